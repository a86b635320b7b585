package peer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/errs"

	"github.com/msrchat/msrchat/chat/internal/kind"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// MaxMessage bounds a gRPC message between servers. It is larger than a frame of
// the longest deliveries.
const MaxMessage = 16 << 20

// Bounds on what one request of a peer may hold.
const (
	maxEntries = 1024
	// maxAppends requests of one stream are worked on at once, and MaxOffered bytes
	// of all streams. Beyond it a stream is not read, which holds up its peer only.
	maxAppends = 1024
	MaxOffered = 32 << 20
)

// inbound is what came in from one peer. The mutex of Peers owns it. It stays while
// there is a link to the peer or an open stream from it.
type inbound struct {
	boot    uint64
	counter uint64
	stream  uint64 // the newest stream; the end of an older one means nothing
	open    int    // streams that have not ended
	// orderly: the newest stream ended in order, by a peer that drained and sent all.
	orderly bool
}

// addressee is the metadata key of a stream's receiver. An address may be used again
// by another server, whose count of our frames must not be disturbed.
const addressee = "msrchat-to"

// isAddressee says whether a stream is for this server.
func (p *Peers) isAddressee(ctx context.Context) bool {
	to := metadata.ValueFromIncomingContext(ctx, addressee)
	return len(to) == 0 || to[0] == p.opts.Instance
}

// Service is the gRPC service of Peers.
type Service struct {
	relayv1.UnimplementedRelayServiceServer
	peers *Peers
}

// Service returns what to register with a gRPC server.
func (p *Peers) Service() *Service { return &Service{peers: p} }

// Deliver takes a peer's frames. It also ends when the peer is silent, because a
// peer that hangs must be noticed like one that died.
func (s *Service) Deliver(stream relayv1.RelayService_DeliverServer) error {
	p := s.peers
	if !p.isAddressee(stream.Context()) {
		return status.Errorf(codes.FailedPrecondition, "this is %s", p.opts.Instance)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	frames := make(chan *relayv1.DeliverRequest)
	var ended error // of Recv, before frames is closed
	go func() {
		defer close(frames)
		for {
			f, err := stream.Recv()
			if err != nil {
				ended = err
				return
			}
			select {
			case frames <- f:
			case <-ctx.Done():
				return
			}
		}
	}()
	ticker := time.NewTicker(keepAliveInterval)
	defer ticker.Stop()
	silent := time.NewTimer(silenceLimit)
	defer silent.Stop()
	var from string
	var number uint64
	draining, orderly := false, false
	defer func() {
		if from != "" {
			p.endStream(from, number, orderly)
		}
	}()
	drainBegan := p.drainBegan
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				// A peer that drains sends what it has, then closes its side. One that
				// dies while it drains does not.
				orderly = draining && errors.Is(ended, io.EOF)
				return nil
			}
			if f.GetInstance() == "" || from != "" && f.GetInstance() != from {
				return status.Error(codes.InvalidArgument, "a frame must name its sender")
			}
			silent.Reset(silenceLimit)
			if from == "" {
				from = f.GetInstance()
				number = p.beginStream(f)
				if err := s.keepAlive(stream); err != nil {
					return err
				}
			}
			draining = f.GetDraining()
			p.receive(f)
		case <-drainBegan: // say so at once, so that the peer offers its messages elsewhere
			drainBegan = nil
			if from == "" {
				continue // the answer to its first frame will say it
			}
			if err := s.keepAlive(stream); err != nil {
				return err
			}
		case <-ticker.C:
			if err := s.keepAlive(stream); err != nil {
				return err
			}
		case <-silent.C:
			return status.Error(codes.DeadlineExceeded, "the peer was silent for too long")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func (s *Service) keepAlive(stream relayv1.RelayService_DeliverServer) error {
	p := s.peers
	return stream.Send(&relayv1.DeliverResponse{
		Instance: p.opts.Instance,
		BootId:   p.opts.Boot,
		Draining: p.isDraining(),
		Stuck:    p.stalled(),
		Revision: Revision,
	})
}

// beginStream notes a new stream of a peer and numbers it.
func (p *Peers) beginStream(f *relayv1.DeliverRequest) uint64 {
	p.mu.Lock()
	in := p.inbound[f.GetInstance()]
	if in == nil {
		in = &inbound{boot: f.GetBootId()}
		p.inbound[f.GetInstance()] = in
	}
	gap := false
	if in.boot != f.GetBootId() {
		// A new process counts from the start. What the earlier process of this
		// instance did not send is noticed at the end of its stream. If that stream is
		// still open, it is not the newest any more, so the gap is noticed now.
		gap = in.open > 0
		in.boot, in.counter = f.GetBootId(), 0
	}
	in.stream++
	in.open++
	in.orderly = false
	number := in.stream
	p.mu.Unlock()
	if gap {
		p.missed(f.GetInstance())
	}
	return number
}

// missed reports that something from a peer may be lost.
func (p *Peers) missed(instance string) {
	p.metrics.gaps.Inc()
	p.opts.Missed(instance)
}

// receive checks the counter and hands on the deliveries.
func (p *Peers) receive(f *relayv1.DeliverRequest) {
	expected := uint64(0)
	if len(f.GetDeliveries()) > 0 {
		expected = 1
	}
	p.mu.Lock()
	in := p.inbound[f.GetInstance()]
	// A frame of an earlier process, read late, must not disturb the count.
	gap := f.GetBootId() == in.boot && f.GetCounter() != in.counter+expected
	if f.GetBootId() == in.boot {
		in.counter = f.GetCounter()
	}
	p.mu.Unlock()
	if gap {
		p.missed(f.GetInstance())
	}
	if deliveries := p.acceptable(f); len(deliveries) > 0 {
		p.opts.Deliver(f.GetInstance(), deliveries)
	}
}

// endStream is called when a stream ended. Unless it ended in order, what the peer
// committed and did not send yet may never come.
func (p *Peers) endStream(instance string, number uint64, orderly bool) {
	p.mu.Lock()
	in := p.inbound[instance]
	in.open--
	newest := in.stream == number
	in.orderly = orderly && newest
	if p.links[instance] == nil {
		p.forgetInbound(instance)
	}
	p.mu.Unlock()
	if newest && !orderly {
		p.missed(instance)
	}
}

// forgetInbound removes the inbound of a peer without open streams. It needs the
// lock.
func (p *Peers) forgetInbound(instance string) {
	if in := p.inbound[instance]; in != nil && in.open == 0 {
		delete(p.inbound, instance)
	}
}

// Append appends what a peer sends. Requests are worked on in parallel, since a
// peer has at most one under way for each conversation. A bad request is refused in
// its answer: if the stream ended, the peer would offer it again, for ever.
func (s *Service) Append(stream relayv1.RelayService_AppendServer) error {
	var sending sync.Mutex
	answer := func(response *relayv1.AppendResponse) {
		sending.Lock()
		defer sending.Unlock()
		_ = stream.Send(response) // a broken stream ends in Recv
	}
	var working sync.WaitGroup
	defer working.Wait()
	places := make(chan struct{}, maxAppends)
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil // the peer offers again what was not answered
		}
		if err := check(request); err != nil {
			s.peers.opts.Logger.Warn("append refused", "conversation", request.GetConversationId(), "err", err)
			answer(refusal(request, err))
			continue
		}
		size := requestSize(request)
		if err := s.peers.room.Acquire(stream.Context(), size); err != nil {
			return status.FromContextError(err).Err()
		}
		select {
		case places <- struct{}{}:
		case <-stream.Context().Done():
			s.peers.room.Release(size)
			return status.FromContextError(stream.Context().Err()).Err()
		}
		working.Go(func() {
			defer func() {
				<-places
				s.peers.room.Release(size)
			}()
			answer(s.answer(stream.Context(), request))
		})
	}
}

// requestSize is about the size of a request in bytes.
func requestSize(r *relayv1.AppendRequest) int64 {
	const each = 128
	n := 0
	for _, e := range r.GetEntries() {
		n += each + len(e.GetBody())
	}
	return int64(n)
}

func refusal(request *relayv1.AppendRequest, e *errs.Error) *relayv1.AppendResponse {
	return &relayv1.AppendResponse{RequestId: request.GetRequestId(), ErrorCode: string(e.Code), ErrorText: e.Message}
}

var errStopping = errs.New(errs.CodeUnavailable, "the server is stopping")

// answer appends what a peer sent, unless the server stops.
func (s *Service) answer(ctx context.Context, request *relayv1.AppendRequest) *relayv1.AppendResponse {
	if !s.peers.offered.begin() {
		return refusal(request, errStopping)
	}
	defer s.peers.offered.end()
	return s.append(ctx, request)
}

func (s *Service) append(ctx context.Context, request *relayv1.AppendRequest) *relayv1.AppendResponse {
	entries := request.GetEntries()
	appended := make([]*relayv1.Appended, len(entries))
	events, places := make([]msglog.Event, 0, len(entries)), make([]int, 0, len(entries))
	for i, e := range entries {
		if err := kind.CheckRelayed(e.GetKind(), e.GetBody()); err != nil {
			appended[i] = refused(err) // the others are not to blame
			continue
		}
		event := msglog.Event{
			Conversation: request.GetConversationId(),
			Sender:       e.GetSenderId(),
			Kind:         uint8(e.GetKind()),
			Body:         e.GetBody(),
			Connection:   e.GetConnection(),
			Uncounted:    e.GetUncounted(),
		}
		copy(event.ID[:], e.GetClientMsgId())
		events, places = append(events, event), append(places, i)
	}
	if len(events) > 0 {
		results, err := s.peers.opts.Log.Append(ctx, request.GetConversationId(), events)
		if err != nil {
			return refusal(request, errs.From(err))
		}
		for i, r := range results {
			a := &relayv1.Appended{Seq: r.Seq, Ordinal: r.Ordinal, CreatedAtMs: r.CreatedAt, Existing: r.Existing}
			if r.Err != nil {
				a = refused(r.Err)
			}
			appended[places[i]] = a
		}
	}
	return &relayv1.AppendResponse{RequestId: request.GetRequestId(), Results: appended}
}

// refused is the result of an entry that was not appended.
func refused(err error) *relayv1.Appended {
	e := errs.From(err)
	return &relayv1.Appended{ErrorCode: string(e.Code), ErrorText: e.Message}
}
