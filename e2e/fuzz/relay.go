package fuzz

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
)

// relays are the connections to the chat servers' ports for each other.
type relays struct {
	addresses []string

	mu    sync.Mutex // owns the field below
	conns map[int]*grpc.ClientConn
}

func (r *relays) to(i int) (*grpc.ClientConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.conns[i]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+r.addresses[i], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	if r.conns == nil {
		r.conns = make(map[int]*grpc.ClientConn)
	}
	r.conns[i] = c
	return c, nil
}

func (r *relays) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// asIs is a codec for messages that are bytes already, right or not.
type asIs struct{}

func (asIs) Name() string                  { return "proto" }
func (asIs) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (asIs) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

var relayService = relayv1.File_msrchat_relay_v1_relay_proto.Services().ByName("RelayService")

// relay calls the other servers' ports as a server would that is broken or taken over.
// It says what a peer could, of the people and conversations that there are: a peer is
// believed who is whose member, and not what a text is.
func relay(ctx context.Context, w *worker, p *player, v values) {
	if len(w.run.relays.addresses) == 0 {
		pause(ctx, time.Second)
		return
	}
	f := w.filler(v, pick(v, []float64{0.02, 0.3}))
	method := relayService.Methods().Get(v.IntN(relayService.Methods().Len()))
	s := Step{At: fmt.Sprint("relay ", v.IntN(8)), Do: doCall, Learn: string(method.Name())}
	for i := range 1 + v.IntN(8) {
		m := dynamicpb.NewMessage(method.Input())
		f.fill(m, 0)
		f.peer(m, uint64(i)+1)
		body := f.marshal(m)
		if v.chance(0.05) {
			body = f.believed(method.Input(), f.strange(body), uint64(i)+1)
		}
		s.Pieces = append(s.Pieces, body)
	}
	p.do(ctx, s)
}

// peer sets what a peer that is let in says right.
func (f *filler) peer(m *dynamicpb.Message, id uint64) {
	fields := m.Descriptor().Fields()
	if field := fields.ByName("request_id"); field != nil {
		m.Set(field, protoreflect.ValueOfUint64(id))
	}
	if field := fields.ByName("instance"); field != nil {
		m.Set(field, protoreflect.ValueOfString("fuzz"))
	}
	conversation, entries := fields.ByName("conversation_id"), fields.ByName("entries")
	if conversation == nil || entries == nil {
		return
	}
	// A sender is a member: that the first server has asked.
	members := f.world.members[m.Get(conversation).Uint()]
	for i := range m.Get(entries).List().Len() {
		e := m.Get(entries).List().Get(i).Message()
		if sender := e.Descriptor().Fields().ByName("sender_id"); sender != nil && e.Get(sender).Uint() != 0 {
			e.Set(sender, protoreflect.ValueOfUint64(f.world.people[members[f.IntN(2)]].id))
		}
	}
}

// believed is a strange message, with what a peer is believed set right again where it
// can still be read.
func (f *filler) believed(of protoreflect.MessageDescriptor, body []byte, id uint64) []byte {
	m := dynamicpb.NewMessage(of)
	if proto.Unmarshal(body, m) != nil {
		return body
	}
	f.peer(m, id)
	return f.marshal(m)
}

// call sends the messages on a stream, and reads until each is answered, the stream
// ends, or nothing comes.
func (p *player) call(ctx context.Context, s Step) {
	cc, err := p.run.relays.to(index(s.At, len(p.run.relays.addresses)))
	if err != nil {
		return
	}
	run := ctx
	ctx, cancel := context.WithTimeout(ctx, p.run.cfg.Patience)
	defer cancel()
	path := fmt.Sprintf("/%s/%s", relayService.FullName(), s.Learn)
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path,
		grpc.ForceCodec(asIs{}))
	if err != nil {
		p.run.count(s.Learn, status.Code(err).String())
		return
	}
	go func() { // while the answers are read, as a peer does
		for i := range s.Pieces {
			if stream.SendMsg(&s.Pieces[i]) != nil {
				return // RecvMsg says why
			}
		}
		_ = stream.CloseSend()
	}()
	method := relayService.Methods().ByName(protoreflect.Name(s.Learn))
	for {
		var body []byte
		if err := stream.RecvMsg(&body); err != nil {
			if run.Err() == nil {
				p.streamEnded(s.Learn, err)
			}
			return
		}
		p.judgeRelay(s.Learn, method, body)
	}
}

func (p *player) streamEnded(where string, err error) {
	code := status.Code(err)
	switch {
	case code == codes.Unknown && err.Error() == "EOF":
		p.run.count(where, "ended")
		return
	case code == codes.DeadlineExceeded:
		p.find(ruleUnanswered, where, "the stream does not end")
	}
	p.run.count(where, code.String())
	p.line(where, status.Convert(err).Message())
}

// judgeRelay judges an answer to a peer.
func (p *player) judgeRelay(where string, method protoreflect.MethodDescriptor, body []byte) {
	m := dynamicpb.NewMessage(method.Output())
	if err := proto.Unmarshal(body, m); err != nil {
		p.find(ruleUndocumented, where, "an answer that cannot be read: %v", err)
		return
	}
	came := "answered"
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Name() == "error_code" {
			came = value.String()
		}
		return true
	})
	if came == "internal" {
		p.find(ruleServerError, where, "%v", m)
	}
	p.run.count(where, came)
	p.looksFrame(m, where)
}
