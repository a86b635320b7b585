package conn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/budget"
	"github.com/msrchat/msrchat/chat/internal/encode"
)

// handshake expects Hello and answers it.
func (s *Server) handshake(nc net.Conn) {
	c := &Conn{id: s.lastID.Add(1), server: s, nc: nc, since: time.Now().UnixNano()}
	c.in.open(nc)
	c.out.nc, c.out.raw, c.out.done, c.out.shared = nc, c.in.raw, c.flushed, &s.queues
	if tcp, ok := nc.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // fails on a closed socket
	}
	request, hello, err := c.hello(s.ctx)
	s.helloEnded(nc)
	if err == nil {
		err = s.admit(s.ctx, c, request, hello)
	}
	if err != nil {
		s.metrics.accepts.WithLabelValues("refused").Inc()
		c.reject(err, s.opts.Alternates())
		s.untrack(nc)
		s.present.Add(-1)
		s.conns.Done()
		return
	}
	s.untrack(nc) // now it is in the hub, where CloseAll finds it
	s.metrics.accepts.WithLabelValues("welcome").Inc()
	go c.read(s.ctx, 0)
}

// track remembers a new connection, so that CloseAll can end it; false means that
// there is no room for it. When there is none, the connection that has been silent
// longest is evicted: a real client sends Hello at once, and so a flood of
// connections that send nothing keeps nobody out.
func (s *Server) track(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := s.present.Load() - int64(s.opts.Capacity+s.opts.Handshaking) + 1
	if over > 0 && s.silent.Len() > 0 {
		oldest := s.silent.Remove(s.silent.Front()).(net.Conn)
		s.handshaking[oldest] = nil
		_ = oldest.Close() // this ends its handshake
		s.metrics.accepts.WithLabelValues("evicted").Inc()
		over -= maxEvicting
	}
	if over > 0 {
		s.metrics.accepts.WithLabelValues("overflow").Inc()
	}
	if over > 0 || s.closing {
		return false
	}
	s.handshaking[nc] = s.silent.PushBack(nc)
	s.present.Add(1)
	s.conns.Add(1)
	return true
}

// helloEnded notes that the wait for a connection's Hello is over: it cannot be
// evicted any more.
func (s *Server) helloEnded(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element := s.handshaking[nc]; element != nil {
		s.silent.Remove(element)
		s.handshaking[nc] = nil
	}
}

// untrack removes a connection that was admitted, or rejected and has ended.
func (s *Server) untrack(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.handshaking, nc)
}

// goodbye is an error that says how to end a connection.
type goodbye struct{ *chatv1.Goodbye }

func (g goodbye) Error() string { return fmt.Sprintf("%s: %s", g.GetCode(), g.GetText()) }

// hello reads the first frame and returns its request id and Hello.
func (c *Conn) hello(ctx context.Context) (request uint64, _ *chatv1.Hello, err error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(helloTimeout + rand.N(helloSpread))); err != nil {
		return 0, nil, err
	}
	if conf := c.server.opts.TLS; conf != nil {
		if err := c.in.handshake(ctx, &c.out, conf); err != nil {
			return 0, nil, fmt.Errorf("%w: %w", errHandshake, err)
		}
	}
	var f chatv1.ClientFrame
	if err := c.firstFrame(&f); err != nil {
		return 0, nil, err
	}
	hello := f.GetHello()
	switch {
	case hello == nil:
		return 0, nil, protocolError{errors.New("the first frame must be Hello")}
	case hello.GetProtocol() != Protocol:
		return 0, nil, goodbye{&chatv1.Goodbye{
			Code: chatv1.GoodbyeCode_GOODBYE_CODE_VERSION,
			Text: fmt.Sprintf("this server speaks protocol version %d, the client %d: install a matching client",
				Protocol, hello.GetProtocol()),
		}}
	}
	return f.GetRequestId(), hello, nil
}

// maxHello is how long the first frame may be: a token, an assignment, and a program's
// name. Its sender is not known yet.
const maxHello = 4 << 10

// errHandshake: TLS was not agreed on, so nothing more can be said.
var errHandshake = errors.New("TLS handshake")

// firstFrame reads a frame and nothing behind it.
func (c *Conn) firstFrame(f *chatv1.ClientFrame) error {
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	read, err := frame.Read(&c.in, maxHello, *buf, f)
	if read != nil {
		*buf = read
	}
	switch {
	case errors.Is(err, frame.ErrTooLarge), errors.Is(err, frame.ErrEmpty):
		return protocolError{err}
	case errors.Is(err, frame.ErrUndecodable):
		return protocolError{errUndecodable}
	}
	return err
}

// admit checks who the user is and admits the connection. It writes the route
// before it reads the heads, so that an event between the two is pushed.
func (s *Server) admit(ctx context.Context, c *Conn, request uint64, hello *chatv1.Hello) error {
	if g := s.opts.Refuse(); g != nil {
		return goodbye{g}
	}
	if s.admitted.Load() >= int64(s.opts.Capacity) {
		return full() // before it costs the database anything
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var err error
	if c.session, err = s.opts.Sessions.Verify(ctx, hello.GetToken()); err != nil {
		return err
	}
	if len(s.opts.Hub.Of(c.session.UserID)) >= maxPerUser {
		return tooMany()
	}
	if id := hello.GetAssignmentId(); id != "" && len(id) <= maxAssignment {
		s.opts.Used(id)
	}
	if s.admitted.Add(1) > int64(s.opts.Capacity) {
		s.admitted.Add(-1)
		return full()
	}
	c.join(s.budget)
	c.answer(request, s.welcome(c.session))
	s.opts.Hub.Add(c.session.UserID, c)
	if g := s.opts.Refuse(); g != nil { // a drain that began meanwhile did not see this connection
		c.Bye(g)
		return nil
	}
	s.opts.Routes.Add(ctx, c.session.UserID, c.id)
	heads, err := s.opts.Directory.OwnHeads(ctx, c.session.UserID)
	if err != nil {
		s.log.Warn("read heads at connect", "user", c.session.UserID, "err", err)
		s.opts.MarkDirty(c.session.UserID)
		return nil
	}
	c.Push(encode.HeadsFrames(heads...))
	return nil
}

// join gives an admitted connection its share of the memory, leave ends it.
func (c *Conn) join(b *budget.Budget) {
	share := b.Join(c.session.UserID, c.network())
	c.in.admitted(share)
	c.out.share = share // nothing was queued yet
}

func (c *Conn) leave(b *budget.Budget) { b.Leave(c.session.UserID, c.network()) }

// network is the client's address, the zero one where there is none.
func (c *Conn) network() netip.Addr {
	if tcp, ok := c.nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}

// welcome is the answer to the Hello of a user who is admitted.
func (s *Server) welcome(user session.Session) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
		UserId:      user.UserID,
		UserName:    user.UserName,
		Instance:    s.opts.Instance,
		Release:     s.opts.Release,
		HeartbeatMs: uint32(s.opts.Heartbeat.Milliseconds()),
		LogEpoch:    s.opts.Epoch(),
		Alternates:  s.opts.Alternates(),
		Limits: &chatv1.Limits{
			MaxFrameBytes:     MaxFrame,
			MaxTextRunes:      text.MaxMessageRunes,
			MaxTextBytes:      text.MaxMessageBytes,
			MaxPage:           MaxPage,
			MaxUnacknowledged: MaxUnacknowledged,
		},
		Revision: Revision,
	}}}
}

func full() error {
	return goodbye{&chatv1.Goodbye{
		Code:             chatv1.GoodbyeCode_GOODBYE_CODE_FULL,
		Text:             "this server is full",
		Reconnect:        true,
		ReconnectAfterMs: 200 + rand.Uint32N(800),
	}}
}

// tooMany is for a user who has maxPerUser connections.
func tooMany() error {
	return goodbye{&chatv1.Goodbye{
		Code:             chatv1.GoodbyeCode_GOODBYE_CODE_FULL,
		Text:             fmt.Sprintf("you have %d connections here already", maxPerUser),
		Reconnect:        true,
		ReconnectAfterMs: 10_000,
	}}
}

// reject ends a connection that is not admitted.
func (c *Conn) reject(err error, alternates []*chatv1.Endpoint) {
	var g goodbye
	var e *errs.Error
	switch {
	case errors.Is(err, errHandshake):
		c.out.fail()
	case errors.As(err, &g):
		g.Alternates = alternates
		c.Bye(g.Goodbye)
		c.linger()
	case errors.As(err, &e) && e.Code == errs.CodeUnauthenticated:
		c.Bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, Text: e.Message})
		c.linger()
	case errors.As(err, &e):
		c.server.log.Warn("cannot admit", "err", err)
		c.Bye(&chatv1.Goodbye{
			Code:             chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE,
			Text:             e.Message,
			Reconnect:        true,
			ReconnectAfterMs: 1000 + rand.Uint32N(1000),
			Alternates:       alternates,
		})
		c.linger()
	default:
		c.ended(err)
	}
	_ = c.nc.Close()
}
