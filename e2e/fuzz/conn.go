package fuzz

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
)

const (
	// maxServerFrame is the largest frame that a server may send.
	maxServerFrame = 8 << 20
	// maxClientFrame is what Welcome says; the Welcomes are compared with it.
	maxClientFrame = 64 << 10
)

// conn is a connection of the chat protocol that keeps account of what it may expect:
// it reads the bytes that it sends as a server would. The mutex owns the fields below.
type conn struct {
	player *player
	nc     *net.TCPConn
	at     string
	// push gets every frame that is no answer, result every answer that some ask waits for.
	push func(*chatv1.ServerFrame)

	writing sync.Mutex // owns the right to write

	mu   sync.Mutex
	sent []byte // not a whole frame yet
	// hello was sent; spoilt says that the server has to end the connection.
	hello, spoilt bool
	// nameless: Hello had no request id, as that of an old client, and nor has its answer.
	nameless bool
	welcome  *chatv1.Welcome
	open     map[uint64][]*chatv1.ClientFrame // requests without an answer
	again    map[uint64]bool                  // ids that several of them had
	answered int
	waiting  map[uint64]chan *chatv1.ServerFrame
	// closing: this side has ended its sending, or everything. failed: a write did.
	closing, failed bool
	goodbye         *chatv1.Goodbye
	ended           bool
	why             error
	changed         chan struct{} // closed and replaced at every change
	next            uint64        // request ids of ask
}

// open connects to a chat server.
func (r *run) open(ctx context.Context, p *player, address string) (*conn, error) {
	nc, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &conn{
		player: p, nc: nc, at: address, open: make(map[uint64][]*chatv1.ClientFrame),
		again: make(map[uint64]bool), waiting: make(map[uint64]chan *chatv1.ServerFrame),
		changed: make(chan struct{}), next: 1 << 32,
	}
	go c.read()
	return c, nil
}

// connect is an honest connection of a person, to the server of that number.
func (r *run) connect(ctx context.Context, who *person, server int) (*conn, error) {
	token, err := base64.RawURLEncoding.DecodeString(who.token)
	if err != nil {
		return nil, err
	}
	p := r.player(nil)
	c, err := r.open(ctx, p, r.cfg.Target.Chats[server%len(r.cfg.Target.Chats)])
	if err != nil {
		return nil, err
	}
	f, err := c.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Hello{
		Hello: &chatv1.Hello{Protocol: 1, Token: token, Client: "fuzz"},
	}})
	if err != nil {
		c.close()
		return nil, fmt.Errorf("connect %s: %w", who.name, err)
	}
	go c.keep(time.Duration(f.GetWelcome().GetHeartbeatMs()) * time.Millisecond / 2)
	return c, nil
}

// ask makes an honest request and waits for its result.
func (c *conn) ask(ctx context.Context, f *chatv1.ClientFrame) (*chatv1.ServerFrame, error) {
	result := make(chan *chatv1.ServerFrame, 1)
	c.mu.Lock()
	c.next++
	f.RequestId = c.next
	c.waiting[c.next] = result
	c.mu.Unlock()
	encoded, err := frame.Append(nil, f)
	if err != nil {
		return nil, err
	}
	c.write(encoded)
	limit := time.After(c.player.run.cfg.Patience)
	for {
		changed, ended, why := c.state()
		select {
		case f := <-result:
			if refused := f.GetFailure(); refused != nil {
				return nil, fmt.Errorf("%s: %s", refused.GetCode(), refused.GetText())
			}
			return f, nil
		default:
		}
		if ended {
			return nil, fmt.Errorf("the connection ended: %w", why)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit:
			return nil, errors.New("no answer in time")
		}
	}
}

// keep pings as often as the server wants, until the connection ends.
func (c *conn) keep(every time.Duration) {
	f := &filler{}
	ping := f.encode(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	for {
		_, ended, _ := c.state()
		if ended {
			return
		}
		c.write(ping)
		time.Sleep(every)
	}
}

func (c *conn) state() (changed <-chan struct{}, ended bool, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed, c.ended, c.why
}

// notify needs the lock.
func (c *conn) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// write sends bytes and notes what they ask for.
func (c *conn) write(b []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	c.expect(b)
	c.mu.Unlock()
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.player.run.cfg.Patience))
	if _, err := c.nc.Write(b); err != nil {
		c.mu.Lock()
		c.failed = true
		c.mu.Unlock()
	}
}

// expect reads what is sent as a server does. It needs the lock.
func (c *conn) expect(b []byte) {
	if c.spoilt {
		return
	}
	for c.sent = append(c.sent, b...); len(c.sent) >= frame.HeaderLen; {
		n, err := frame.Length([frame.HeaderLen]byte(c.sent), maxClientFrame)
		if err != nil {
			c.spoilt = true
			return
		}
		if len(c.sent) < frame.HeaderLen+n {
			return
		}
		f := &chatv1.ClientFrame{}
		if proto.Unmarshal(c.sent[frame.HeaderLen:frame.HeaderLen+n], f) != nil {
			c.spoilt = true
			return
		}
		c.sent = c.sent[frame.HeaderLen+n:]
		what := named(f)
		switch first := !c.hello; {
		case first && (what != "hello" || f.GetHello().GetProtocol() != 1):
			c.spoilt = true
			return
		case first:
			c.hello, c.nameless = true, f.GetRequestId() == 0
		case what == "hello", f.GetRequestId() == 0 && what != "ping":
			c.spoilt = true
			return
		}
		if id := f.GetRequestId(); id != 0 {
			c.again[id] = c.again[id] || len(c.open[id]) > 0
			c.open[id] = append(c.open[id], f)
		}
	}
}

var bodies = (&chatv1.ClientFrame{}).ProtoReflect().Descriptor().Oneofs().ByName("body")

// named is the request of a frame by its name in chat.proto.
func named(f *chatv1.ClientFrame) string {
	if field := f.ProtoReflect().WhichOneof(bodies); field != nil {
		return string(field.Name())
	}
	return "unknown"
}

var results = (&chatv1.ServerFrame{}).ProtoReflect().Descriptor().Oneofs().ByName("body")

func namedResult(f *chatv1.ServerFrame) string {
	if field := f.ProtoReflect().WhichOneof(results); field != nil {
		return string(field.Name())
	}
	return "unknown"
}

// read judges what arrives until the connection ends.
func (c *conn) read() {
	r := bufio.NewReader(c.nc)
	var buf []byte
	for {
		f := &chatv1.ServerFrame{}
		var err error
		if buf, err = frame.Read(r, maxServerFrame, buf, f); err != nil {
			c.over(err)
			return
		}
		c.took(f)
	}
}

// over notes the end of the connection.
func (c *conn) over(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.why = true, err
	if c.goodbye != nil {
		c.why = fmt.Errorf("goodbye: %s %s", c.goodbye.GetCode(), c.goodbye.GetText())
	}
	// The kernel drops the last frames where this side still wrote.
	reset := c.failed || strings.Contains(err.Error(), "reset")
	if c.goodbye == nil && !c.closing && (!reset || !c.spoilt) {
		c.player.find(ruleUnanswered, "chat", "the connection ended without a Goodbye: %v", err)
	}
	if !errors.Is(err, io.EOF) && !c.closing && !reset {
		c.player.find(ruleUndocumented, "chat", "a frame that cannot be read: %v", err)
	}
	_ = c.nc.Close()
	c.notify()
}

// took judges a frame.
func (c *conn) took(f *chatv1.ServerFrame) {
	p := c.player
	what := namedResult(f)
	p.looksFrame(f.ProtoReflect(), what)
	c.mu.Lock()
	if c.goodbye != nil {
		p.find(ruleUndocumented, "chat", "%s after Goodbye", what)
	}
	var asked *chatv1.ClientFrame
	if id := f.GetRequestId(); id != 0 {
		c.answered++
		if list := c.open[id]; len(list) > 0 {
			asked = list[0]
			if c.open[id] = list[1:]; len(list) == 1 {
				delete(c.open, id)
			}
		} else {
			p.find(ruleUnanswered, what, "an answer to a request that has none open")
		}
	}
	unasked := f.GetRequestId() == 0
	if w := f.GetWelcome(); w != nil {
		unasked = unasked && !c.nameless
		c.welcome, c.nameless = w, false
	}
	if g := f.GetGoodbye(); g != nil {
		c.goodbye = g
		p.run.count("goodbye", strings.TrimPrefix(g.GetCode().String(), "GOODBYE_CODE_"))
	}
	if asked != nil && c.again[f.GetRequestId()] {
		asked = nil // whose answer it is cannot be told: they may overtake one another
		p.run.count("of one id", what)
	}
	waiting := c.waiting[f.GetRequestId()]
	delete(c.waiting, f.GetRequestId())
	user, push := c.welcome.GetUserId(), c.push
	if waiting != nil {
		waiting <- f // it has room
	}
	c.notify()
	c.mu.Unlock()
	if asked != nil {
		p.judgeAnswer(asked, f, user)
	} else if unasked {
		p.judgePush(f, what)
		if push != nil {
			push(f)
		}
	}
}

// judgePush: only what chat.proto calls a push comes unasked.
func (p *player) judgePush(f *chatv1.ServerFrame, what string) {
	switch f.GetBody().(type) {
	case *chatv1.ServerFrame_Event, *chatv1.ServerFrame_Heads, *chatv1.ServerFrame_OwnState,
		*chatv1.ServerFrame_Goodbye, *chatv1.ServerFrame_Pong:
	default:
		p.find(ruleUndocumented, what, "it came unasked")
	}
	if g := f.GetGoodbye(); g != nil && (g.GetText() == "" || chatv1.GoodbyeCode_name[int32(g.GetCode())] == "" ||
		g.GetCode() == chatv1.GoodbyeCode_GOODBYE_CODE_UNSPECIFIED) {
		p.find(ruleUndocumented, what, "without a reason: %v", g)
	}
}

// judgeAnswer judges the answer to a request.
func (p *player) judgeAnswer(asked *chatv1.ClientFrame, f *chatv1.ServerFrame, user uint64) {
	request, result := named(asked), namedResult(f)
	refused := f.GetFailure()
	if refused != nil {
		p.run.count(request, refused.GetCode())
		p.judgeFailure(asked, refused)
		return
	}
	p.run.count(request, "answered")
	// Each kind of request has one kind of result.
	p.run.mu.Lock()
	first, ok := p.run.answers[request]
	if !ok {
		p.run.answers[request] = result
	}
	p.run.mu.Unlock()
	if ok && first != result {
		p.find(ruleUndocumented, request, "it is answered with %s and with %s", first, result)
	}
	sent := f.GetSent()
	send := asked.GetSend()
	if sent == nil || send == nil {
		return
	}
	if sent.GetSeq() == 0 || sent.GetConversationId() != send.GetConversationId() {
		p.find(ruleLog, request, "acknowledged as number %d of %d", sent.GetSeq(), sent.GetConversationId())
	}
	if !sent.GetExisting() {
		p.run.ledger.add(sent.GetConversationId(), sent.GetSeq(), acknowledged{
			id: string(send.GetClientMsgId()), body: send.GetBody(), sender: user,
		})
	}
}

func (p *player) judgeFailure(asked *chatv1.ClientFrame, refused *chatv1.Failure) {
	request := named(asked)
	code := errs.Code(refused.GetCode())
	switch {
	case errs.Known(code) != code || code == "":
		p.find(ruleUndocumented, request, "the code %q", refused.GetCode())
	case code == errs.CodeInternal, code == errs.CodeUnavailable && refused.GetRetryAfterMs() == 0:
		p.find(ruleServerError, request, "%s: %s", code, refused.GetText())
	case (code == errs.CodeRateLimited || code == errs.CodeExhausted) && refused.GetRetryAfterMs() == 0:
		p.find(ruleServerError, request, "%s without a time: %s", code, refused.GetText())
	case refused.GetText() == "":
		p.find(ruleUndocumented, request, "a failure without a text")
	}
	if strings.Contains(refused.GetText(), canary) {
		p.find(ruleRepeats, request, "the refusal repeats what was sent: %.200q", refused.GetText())
	}
	if field := refused.GetField(); field != "" {
		body := asked.ProtoReflect().WhichOneof(bodies)
		if body == nil || !hasField(body.Message(), field) {
			p.find(ruleUndocumented, request, "the failure names the field %s, which there is not", field)
		}
	}
}

// hasField follows a path of fields.
func hasField(m protoreflect.MessageDescriptor, path string) bool {
	name, rest, more := strings.Cut(path, ".")
	field := m.Fields().ByName(protoreflect.Name(name))
	return field != nil && (!more || field.Message() != nil && hasField(field.Message(), rest))
}

// await waits until everything is answered, or the connection has ended where it must.
func (c *conn) await(ctx context.Context) {
	done := func() bool { return c.ended || !c.spoilt && len(c.open) == 0 }
	if !c.until(ctx, done) {
		c.late()
	}
}

// until waits until something is so; done is called with the lock. It gives up, with
// false, when no answer has come for as long as an answer may take: a server reads a
// connection's requests one after the other, and slowly where a client does not wait as
// it was told.
func (c *conn) until(ctx context.Context, done func() bool) bool {
	limit := time.NewTimer(c.player.run.cfg.Patience)
	defer limit.Stop()
	for answered := 0; ; {
		c.mu.Lock()
		so, changed, n := done(), c.changed, c.answered
		c.mu.Unlock()
		if n > answered {
			answered = n
			limit.Reset(c.player.run.cfg.Patience)
		}
		if so {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return true
		case <-limit.C:
			return false
		}
	}
}

// late finds what was not answered in time.
func (c *conn) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spoilt && c.goodbye == nil {
		c.player.find(ruleUnanswered, "chat", "the protocol was broken, and no Goodbye came")
	}
	if c.spoilt {
		return // requests before it may be cut off
	}
	for _, list := range c.open {
		for _, f := range list {
			c.player.find(ruleUnanswered, named(f), "no answer in %v", c.player.run.cfg.Patience)
		}
	}
}

// shut ends the own side, and waits until the server has ended its.
func (c *conn) shut(ctx context.Context) {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	_ = c.nc.CloseWrite()
	if !c.until(ctx, func() bool { return c.ended }) {
		c.player.find(ruleUnanswered, "chat", "the server keeps a connection that its client has ended")
	}
}

func (c *conn) close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	_ = c.nc.Close()
}
