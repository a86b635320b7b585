package conn_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/hub"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// pipes is a listener whose connections buffer nothing: what one side writes waits
// until the other reads. So nothing depends on the buffers of a kernel.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func listen() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// world is a server and fakes of everything around it. Its mutex owns sends.
type world struct {
	*conn.Server
	pipes *pipes
	hub   *hub.Hub
	// connect makes the two ends of a connection; nil: a pipe.
	connect func(t testing.TB) (ours, theirs net.Conn)

	verify func(ctx context.Context) error
	member func(conversation uint64) error
	refuse atomic.Pointer[chatv1.Goodbye]
	events []msglog.Event

	mu    sync.Mutex
	sends []send
}

// send is what reached the lanes.
type send struct {
	conversation uint64
	text         string
	done         func(msglog.Result)
}

func newWorld(t testing.TB, change ...func(*world, *conn.Options)) *world {
	t.Helper()
	w := &world{pipes: listen(), hub: hub.New()}
	opts := conn.Options{
		Instance:   "test",
		Heartbeat:  time.Minute,
		Capacity:   100,
		Epoch:      func() uint64 { return 1 },
		Sessions:   w,
		Directory:  w,
		History:    history{w},
		Lanes:      w,
		Routes:     w,
		Hub:        w.hub,
		MarkDirty:  func(uint64) {},
		Alternates: func() []*chatv1.Endpoint { return nil },
		Used:       func(string) {},
		Refuse:     w.refuse.Load,
		Log:        slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(w, &opts)
	}
	w.Server = conn.NewServer(w.pipes, opts)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- w.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		end, cancel := context.WithTimeout(context.Background(), testenv.Patience)
		defer cancel()
		if err := w.CloseAll(end); err != nil {
			t.Error(err)
		}
		if n := w.hub.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return w
}

func (w *world) Verify(ctx context.Context, token []byte) (session.Session, error) {
	if w.verify != nil {
		if err := w.verify(ctx); err != nil {
			return session.Session{}, err
		}
	}
	if len(token) != session.TokenBytes {
		return session.Session{}, errs.New(errs.CodeUnauthenticated, "unknown")
	}
	return session.Session{ID: 1, UserID: uint64(token[0]), UserName: "u"}, nil
}

// Knows is always false, so that every message is checked.
func (w *world) Knows(uint64, uint64) bool { return false }

func (w *world) Check(_ context.Context, conversation, _ uint64) error {
	if w.member != nil {
		return w.member(conversation)
	}
	return nil
}

func (w *world) OpenDirect(context.Context, uint64, string) (*chatv1.Conversation, bool, error) {
	return &chatv1.Conversation{Id: 1}, true, nil
}

func (w *world) List(context.Context, uint64, uint64, int) ([]*chatv1.Conversation, bool, error) {
	return nil, false, nil
}

// OwnHeads are none.
func (w *world) OwnHeads(context.Context, uint64) ([]*chatv1.Head, error) { return nil, nil }

// history is the world's History. Its Heads differs from the world's.
type history struct{ *world }

func (h history) After(_ context.Context, _, after uint64, limit int) ([]msglog.Event, error) {
	above := h.events[min(after, uint64(len(h.events))):]
	return above[:min(limit, len(above))], nil
}

func (h history) Before(_ context.Context, _, before uint64, limit int) ([]msglog.Event, error) {
	below := h.events[:min(before-1, uint64(len(h.events)))]
	return below[max(len(below)-limit, 0):], nil
}

func (h history) Heads(context.Context, []uint64) (map[uint64]msglog.Head, error) { return nil, nil }

func (w *world) Send(e msglog.Event, sender lane.Sender, request uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	done := func(r msglog.Result) {
		sender.Sent([]lane.Answer{{Request: request, Conversation: e.Conversation, Result: r}})
	}
	w.sends = append(w.sends, send{e.Conversation, string(e.Body), done})
	return nil
}

func (w *world) Add(context.Context, uint64, uint64) {}

func (w *world) Remove(uint64, uint64) {}

// sent is what reached the lanes so far.
func (w *world) sent() []send {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]send(nil), w.sends...)
}

// client is the other end of a connection.
type client struct {
	t  testing.TB
	nc net.Conn
}

func (w *world) dial(t testing.TB) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	if w.connect != nil {
		ours, theirs = w.connect(t)
	}
	w.pipes.conns <- theirs
	t.Cleanup(func() { _ = ours.Close() })
	return &client{t, ours}
}

func hello(user byte) *chatv1.ClientFrame {
	token := make([]byte, session.TokenBytes)
	token[0] = user
	return &chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_Hello{
		Hello: &chatv1.Hello{Protocol: conn.Protocol, Token: token},
	}}
}

func (w *world) login(t testing.TB, user byte) *client {
	t.Helper()
	c := w.dial(t)
	c.write(hello(user))
	if f := c.read(); f.GetWelcome() == nil {
		t.Fatalf("no Welcome but %v", f)
	}
	if f := c.read(); f.GetHeads() == nil {
		t.Fatalf("no heads but %v", f)
	}
	return c
}

func encoded(t testing.TB, f *chatv1.ClientFrame) []byte {
	t.Helper()
	b, err := frame.Append(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *client) write(frames ...*chatv1.ClientFrame) {
	c.t.Helper()
	for _, f := range frames {
		_ = c.nc.SetWriteDeadline(time.Now().Add(testenv.Patience))
		if _, err := c.nc.Write(encoded(c.t, f)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// next reads a frame; io.EOF is the end.
func (c *client) next() (*chatv1.ServerFrame, error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(testenv.Patience))
	f := &chatv1.ServerFrame{}
	_, err := frame.Read(c.nc, 4<<20, nil, f)
	return f, err
}

func (c *client) read() *chatv1.ServerFrame {
	c.t.Helper()
	f, err := c.next()
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// goodbye reads to the end and returns the last frame, which must be one.
func (c *client) goodbye() *chatv1.Goodbye {
	c.t.Helper()
	var last *chatv1.ServerFrame
	for {
		f, err := c.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.t.Fatal(err)
			}
			break
		}
		last = f
	}
	if last.GetGoodbye() == nil {
		c.t.Fatalf("the last frame is %v", last)
	}
	return last.GetGoodbye()
}

// text is a message whose request id and message id both are n.
func text(n byte, conversation uint64, s string) *chatv1.ClientFrame {
	id := make([]byte, 16)
	id[0] = n
	return &chatv1.ClientFrame{RequestId: uint64(n), Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
		ConversationId: conversation, ClientMsgId: id, Body: []byte(s),
	}}}
}

func ping() *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}
}

// pong fails the test unless the server answers a Ping.
func (c *client) pong() {
	c.t.Helper()
	c.write(ping())
	if f := c.read(); f.GetPong() == nil {
		c.t.Fatalf("no Pong but %v", f)
	}
}
