package conn

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/hub"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// Protocol and Revision are the version of chat.proto that this server speaks.
const (
	Protocol = 1
	Revision = 1
)

// Limits of one connection, announced in Welcome.
const (
	// MaxFrame fits the longest text with room for the rest.
	MaxFrame = text.MaxMessageBytes + 4<<10
	// MaxPage is how many events or conversations one answer holds.
	MaxPage = 200
	// MaxUnacknowledged is how many sends one connection may have under way.
	MaxUnacknowledged = 256
	// helloTimeout is how long a connection may take to introduce itself.
	helloTimeout = 5 * time.Second
	// requestTimeout bounds the work for one request.
	requestTimeout = 15 * time.Second
	// signOfLife is how often, at least, a client hears from a server that works
	// on its request; half a heartbeat where that is less. It gives up one that
	// says nothing for 10 s or two heartbeats.
	signOfLife = 2 * time.Second
	// maxPerUser is how many connections of one user are let in: more devices and
	// programs than anybody has, and no way to fill a server with one account.
	maxPerUser = 128
	// maxAssignment is longer than any assignment's id. Ids travel on to status.
	maxAssignment = 64
	// beingClosed strangers may be on their way out while others come in.
	beingClosed = 64
)

// DefaultStrangers is how many connections that have not introduced themselves
// there is room for, whatever the capacity.
const DefaultStrangers = 2048

// Sessions checks tokens.
type Sessions interface {
	Verify(ctx context.Context, token []byte) (session.Session, error)
}

// Directory knows conversations; see package directory.
type Directory interface {
	Knows(conversation, user uint64) bool
	Check(ctx context.Context, conversation, user uint64) error
	OpenDirect(ctx context.Context, user uint64, peerName string) (*chatv1.Conversation, bool, error)
	List(ctx context.Context, user, afterID uint64, limit int) ([]*chatv1.Conversation, bool, error)
	OwnHeads(ctx context.Context, user uint64) ([]*chatv1.Head, error)
}

// History reads logs; see msglog.
type History interface {
	After(ctx context.Context, conversation, after uint64, limit int) ([]msglog.Event, error)
	Before(ctx context.Context, conversation, before uint64, limit int) ([]msglog.Event, error)
	Heads(ctx context.Context, conversations []uint64) (map[uint64]msglog.Head, error)
}

// Lanes appends messages in order; see package lane.
type Lanes interface {
	Send(e msglog.Event, done func(msglog.Result)) error
}

// OwnStates keeps what users set for themselves; see package ownstate.
type OwnStates interface {
	Set(ctx context.Context, user uint64, set *chatv1.SetOwnState) (state *chatv1.OwnState, changed bool, err error)
	Read(ctx context.Context, user uint64, conversations []uint64) ([]*chatv1.OwnState, error)
}

// Routes tells other servers where a user is; see package route.
type Routes interface {
	Add(ctx context.Context, user, conn uint64)
	Remove(user, conn uint64)
}

// Options are what a Server is made of.
type Options struct {
	Instance, Release string
	Heartbeat         time.Duration
	// Capacity is how many connections are let in. Strangers more may be on their
	// way in; while they are all there, the one that has been silent longest makes
	// place for the next. 0 means DefaultStrangers.
	Capacity, Strangers int
	// WriteTimeout is how long a client may read nothing, MaxQueued how many bytes
	// may wait for all slow readers; 0 means the defaults.
	WriteTimeout time.Duration
	MaxQueued    int64

	Epoch     func() uint64
	Sessions  Sessions
	Directory Directory
	History   History
	Lanes     Lanes
	OwnStates OwnStates
	// OwnStateChanged is told of a change and the connection that made it. It may
	// wait for Redis.
	OwnStateChanged func(ctx context.Context, user uint64, s *chatv1.OwnState, except uint64)
	Routes          Routes
	Hub             *hub.Hub
	// Dirty asks for a repair of a user whose heads could not be read.
	Dirty func(user uint64)
	// Alternates are other servers' addresses for clients.
	Alternates func() []*chatv1.Endpoint
	// Used is told of the assignments that arrive. It must not block.
	Used func(assignment string)
	// Refuse says why nobody is let in at present, or returns nil.
	Refuse     func() *chatv1.Goodbye
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Server accepts and serves connections.
type Server struct {
	opts     Options
	log      *slog.Logger
	listener net.Listener
	metrics  *metrics
	lastID   atomic.Uint64
	// inside counts accepted connections, whether introduced or not.
	inside atomic.Int64
	// guests counts those that were let in.
	guests atomic.Int64
	conns  sync.WaitGroup
	// ctx is that of all requests; CloseAll cancels it.
	ctx    context.Context
	cancel context.CancelFunc

	queues queues // see outbox.go

	mu sync.Mutex // owns the fields below
	// strangers are not let in yet, or turned away and not gone yet; with their
	// place in silent, nil once they said Hello or were told to go.
	strangers map[net.Conn]*list.Element
	silent    *list.List // of net.Conn, the oldest first
	closing   bool
}

// NewServer returns a server on a listener, which Serve closes.
func NewServer(l net.Listener, opts Options) *Server {
	if opts.Strangers == 0 {
		opts.Strangers = DefaultStrangers
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		opts: opts, log: opts.Log, listener: l, metrics: newMetrics(opts.Registerer), ctx: ctx, cancel: cancel,
		strangers: make(map[net.Conn]*list.Element), silent: list.New(),
	}
	// Connections of different servers are told apart by their ids, which count up
	// from a random number each.
	s.lastID.Store(rand.Uint64())
	s.queues.timeout, s.queues.most = cmp.Or(opts.WriteTimeout, writeTimeout), cmp.Or(opts.MaxQueued, maxQueuedTogether)
	s.queues.flusher = newFlusher(ctx)
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "msrchat_chat_queued_bytes", Help: "Bytes that wait for slow readers, above 64 KiB each.",
		}, func() float64 { return float64(s.queues.waiting.Load()) }))
	}
	return s
}

// Accepted counts the connections that were let in or not, from a random number.
func (s *Server) Accepted() uint64 { return s.lastID.Load() }

// Serve accepts connections until ctx ends, then closes the listener. What is
// connected stays; see Drain. A temporary lack of descriptors is waited out.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	for delay := time.Duration(0); ; {
		nc, err := s.listener.Accept()
		switch {
		case err == nil:
			delay = 0
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		default:
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed", "err", err, "pause", delay)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
			continue
		}
		if !s.greet(nc) {
			_ = nc.Close()
			continue
		}
		// A goroutine of its own, whose stack grows in the handshake; the reader
		// that stays starts with a small one.
		go s.introduce(nc)
	}
}

// introduce expects Hello and answers it.
func (s *Server) introduce(nc net.Conn) {
	c := &Conn{id: s.lastID.Add(1), server: s, nc: nc, since: time.Now().UnixNano()}
	c.out.nc, c.out.raw, c.out.done, c.out.shared = nc, rawConn(nc), c.flushed, &s.queues
	if tcp, ok := nc.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // fails on a socket that is gone
	}
	request, hello, err := c.hello()
	s.heard(nc)
	if err == nil {
		err = s.admit(s.ctx, c, request, hello)
	}
	if err != nil {
		s.metrics.accepts.WithLabelValues("refused").Inc()
		c.turnAway(err, s.opts.Alternates())
		s.known(nc)
		s.inside.Add(-1)
		s.conns.Done()
		return
	}
	s.known(nc) // now it is in the hub, where CloseAll finds it
	s.metrics.accepts.WithLabelValues("welcome").Inc()
	go c.read(s.ctx, 0)
}

// greet remembers a new connection, so that CloseAll can end it; false means
// that there is no place for it. Of many that say nothing the oldest has to go:
// whoever means it says Hello at once, and so gets in beside any flood of those
// who do not.
func (s *Server) greet(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := s.inside.Load() - int64(s.opts.Capacity+s.opts.Strangers) + 1
	if over > 0 && s.silent.Len() > 0 {
		oldest := s.silent.Remove(s.silent.Front()).(net.Conn)
		s.strangers[oldest] = nil
		_ = oldest.Close() // its goroutine notices
		s.metrics.accepts.WithLabelValues("evicted").Inc()
		over -= beingClosed
	}
	if over > 0 {
		s.metrics.accepts.WithLabelValues("overflow").Inc()
	}
	if over > 0 || s.closing {
		return false
	}
	s.strangers[nc] = s.silent.PushBack(nc)
	s.inside.Add(1)
	s.conns.Add(1)
	return true
}

// heard notes that a stranger is not silent any more.
func (s *Server) heard(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if place := s.strangers[nc]; place != nil {
		s.silent.Remove(place)
		s.strangers[nc] = nil
	}
}

// known forgets a stranger.
func (s *Server) known(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.strangers, nc)
}

// goodbye is an error that says how to end a connection.
type goodbye struct{ *chatv1.Goodbye }

func (g goodbye) Error() string { return fmt.Sprintf("%s: %s", g.GetCode(), g.GetText()) }

// hello reads the first frame and returns its request id and what it says.
func (c *Conn) hello() (request uint64, _ *chatv1.Hello, err error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, nil, err
	}
	var f chatv1.ClientFrame
	var header [frame.HeaderLen]byte
	if _, err := io.ReadFull(c.nc, header[:]); err != nil {
		return 0, nil, err
	}
	if err := c.body(header, &f); err != nil {
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

// admit checks who it is and lets the connection in: route first, then heads,
// so that nothing can fall between the two.
func (s *Server) admit(ctx context.Context, c *Conn, request uint64, hello *chatv1.Hello) error {
	if g := s.opts.Refuse(); g != nil {
		return goodbye{g}
	}
	if s.guests.Load() >= int64(s.opts.Capacity) {
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
	if s.guests.Add(1) > int64(s.opts.Capacity) {
		s.guests.Add(-1)
		return full()
	}
	c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
		UserId: c.session.UserID, UserName: c.session.UserName, Instance: s.opts.Instance, Release: s.opts.Release,
		HeartbeatMs: uint32(s.opts.Heartbeat.Milliseconds()), LogEpoch: s.opts.Epoch(), Alternates: s.opts.Alternates(),
		Limits: &chatv1.Limits{
			MaxFrameBytes: MaxFrame, MaxTextRunes: text.MaxMessageRunes, MaxTextBytes: text.MaxMessageBytes,
			MaxPage: MaxPage, MaxUnacknowledged: MaxUnacknowledged,
		},
		Revision: Revision,
	}}})
	s.opts.Hub.Add(c.session.UserID, c)
	if g := s.opts.Refuse(); g != nil { // whoever asks all to leave may have missed this one
		c.Bye(g)
		return nil
	}
	s.opts.Routes.Add(ctx, c.session.UserID, c.id)
	heads, err := s.opts.Directory.OwnHeads(ctx, c.session.UserID)
	if err != nil {
		s.log.Warn("read heads at connect", "user", c.session.UserID, "err", err)
		s.opts.Dirty(c.session.UserID)
		return nil
	}
	c.Push(encode.HeadsFrames(heads...))
	return nil
}

func full() error {
	return goodbye{&chatv1.Goodbye{
		Code: chatv1.GoodbyeCode_GOODBYE_CODE_FULL, Text: "this server is full", Reconnect: true,
		ReconnectAfterMs: 200 + rand.Uint32N(800),
	}}
}

// tooMany is for the user who has every connection already.
func tooMany() error {
	return goodbye{&chatv1.Goodbye{
		Code: chatv1.GoodbyeCode_GOODBYE_CODE_FULL, Text: fmt.Sprintf("you have %d connections here already", maxPerUser),
		Reconnect: true, ReconnectAfterMs: 10_000,
	}}
}

// turnAway ends a connection that was not let in.
func (c *Conn) turnAway(err error, alternates []*chatv1.Endpoint) {
	var g goodbye
	var e *errs.Error
	switch {
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
			Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, Text: e.Message, Reconnect: true,
			ReconnectAfterMs: 1000 + rand.Uint32N(1000), Alternates: alternates,
		})
		c.linger()
	default:
		c.ended(err)
	}
	_ = c.nc.Close()
}

// left forgets a connection whose reader has ended.
func (s *Server) left(c *Conn) {
	s.opts.Hub.Remove(c.session.UserID, c)
	s.opts.Routes.Remove(c.session.UserID, c.id)
	c.out.fail()
	_ = c.nc.Close()
	s.guests.Add(-1)
	s.inside.Add(-1)
	s.conns.Done()
}

// CloseAll ends every connection and request at once, lets nobody in any more,
// and waits until their goroutines are gone or ctx ends.
func (s *Server) CloseAll(ctx context.Context) error {
	s.cancel()
	s.mu.Lock()
	s.closing = true
	for nc := range s.strangers {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.opts.Hub.Each(func(_ uint64, c hub.Conn) {
		if mine, ok := c.(*Conn); ok {
			_ = mine.nc.Close()
		}
	})
	gone := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d connections are still open", s.inside.Load())
	}
}
