package conn

import (
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/fair"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/allowance"
	"github.com/msrchat/msrchat/chat/internal/budget"
	"github.com/msrchat/msrchat/chat/internal/hub"
	"github.com/msrchat/msrchat/chat/internal/lane"
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
	// helloTimeout is how long a connection may take to send Hello, and up to helloSpread
	// more: thousands that came together and say nothing must not all end, and come back,
	// at the same moment.
	helloTimeout = 5 * time.Second
	helloSpread  = 3 * time.Second
	// requestTimeout bounds the work for one request.
	requestTimeout = 15 * time.Second
	// keepAliveInterval is how often a client gets a Pong while the server works on
	// its request; half a heartbeat if that is shorter. A client gives up a server
	// that is silent for 10 s or two heartbeats.
	keepAliveInterval = 2 * time.Second
	// maxPerUser is how many connections of one user are admitted: more devices and
	// programs than anybody has, and too few to fill a server with one account.
	maxPerUser = 128
	// maxAssignment is longer than any assignment's id. Ids are passed on to status.
	maxAssignment = 64
	// maxEvicting evicted connections may still be closing while others take their
	// places.
	maxEvicting = 64
)

// DefaultHandshaking is how many connections that have not been admitted there is
// room for beside the capacity.
const DefaultHandshaking = 2048

// DefaultMemory is enough for some hundred slow readers.
const DefaultMemory = 64 << 20

// Sessions checks tokens.
type Sessions interface {
	Verify(ctx context.Context, token []byte) (session.Session, error)
}

// Directory has the conversations; see package directory.
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
	Send(e msglog.Event, sender lane.Sender, request uint64) error
}

// OwnStates keeps what users set for themselves; see package ownstate.
type OwnStates interface {
	Set(ctx context.Context, user uint64, set *chatv1.SetOwnState) (state *chatv1.OwnState, changed bool, err error)
	Read(ctx context.Context, user uint64, conversations []uint64) ([]*chatv1.OwnState, error)
}

// Routes keeps the servers where a user is connected; see package route.
type Routes interface {
	Add(ctx context.Context, user, conn uint64)
	Remove(user, conn uint64)
}

// Options are what a Server is made of.
type Options struct {
	Instance, Release string
	Heartbeat         time.Duration
	// Capacity is how many connections are admitted. Handshaking more may not be
	// admitted yet; when that many are, a new connection evicts the one that has been
	// silent longest. 0 means DefaultHandshaking.
	Capacity, Handshaking int
	// WriteTimeout is how long a client may take to read a chunk; 0 means the default.
	WriteTimeout time.Duration
	// Memory is how many bytes connections may hold together, of what waits for slow
	// readers, of unfinished frames, and for requests that wait; 0 means DefaultMemory.
	Memory int64
	// Requests is how many requests that need the database are worked on at once; 0 means
	// the size of its pool.
	Requests int
	// TLS is what clients are served with; nil: plain TCP.
	TLS *tls.Config

	Epoch     func() uint64
	Sessions  Sessions
	Directory Directory
	History   History
	Lanes     Lanes
	OwnStates OwnStates
	// OwnStateChanged is called after a change with the connection that made it. It
	// may wait for Redis.
	OwnStateChanged func(ctx context.Context, user uint64, s *chatv1.OwnState, except uint64)
	Routes          Routes
	Hub             *hub.Hub
	// MarkDirty asks for a repair of a user whose heads could not be read.
	MarkDirty func(user uint64)
	// Alternates are other servers' addresses for clients.
	Alternates func() []*chatv1.Endpoint
	// Used is called with each assignment that a client came with. It must not block.
	Used func(assignment string)
	// Refuse says why nobody is admitted at present, or returns nil.
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
	// present counts the connections that have not ended, admitted or not; admitted
	// counts the admitted ones.
	present, admitted atomic.Int64
	conns             sync.WaitGroup
	// ctx is that of all requests; CloseAll cancels it.
	ctx    context.Context
	cancel context.CancelFunc

	queues queueGroup // see writequeue.go
	budget *budget.Budget
	// requests are the turns at the database, and pages those of long answers, by user.
	requests, pages *fair.Queue[uint64]
	read            *allowance.Allowance // of pages, in KiB

	mu sync.Mutex // owns the fields below
	// handshaking connections are not admitted yet, or were rejected and have not
	// ended yet. The value is the connection's element of silent, nil once the wait
	// for its Hello is over.
	handshaking map[net.Conn]*list.Element
	silent      *list.List // of net.Conn, the oldest first
	closing     bool
}

// NewServer returns a server on a listener, which Serve closes.
func NewServer(l net.Listener, opts Options) *Server {
	opts.Handshaking = cmp.Or(opts.Handshaking, DefaultHandshaking)
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		opts:        opts,
		log:         opts.Log,
		listener:    l,
		metrics:     newMetrics(opts.Registerer),
		ctx:         ctx,
		cancel:      cancel,
		handshaking: make(map[net.Conn]*list.Element),
		silent:      list.New(),
	}
	// Connection ids are unique among all servers because each server counts up from
	// a random number.
	s.lastID.Store(rand.Uint64())
	s.queues.timeout = cmp.Or(opts.WriteTimeout, writeTimeout)
	s.budget = budget.New(cmp.Or(opts.Memory, DefaultMemory))
	s.requests = fair.New[uint64](cmp.Or(opts.Requests, database.DefaultMaxOpen), opts.Capacity, maxPerUser, nil)
	s.pages = fair.New[uint64](pagesAtOnce(), opts.Capacity, maxPerUser, nil)
	s.read = allowance.New(maxPages>>10, time.Second/(pageBytesPerSecond>>10))
	s.queues.flusher = newFlusher(ctx)
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "msrchat_chat_held_bytes",
			Help: "Bytes that wait for slow readers, of unfinished frames, and for requests that wait.",
		}, func() float64 { return float64(s.budget.Used()) }))
	}
	return s
}

// Connections lists the admitted connections in random order.
func (s *Server) Connections() []*Conn {
	var all []*Conn
	s.opts.Hub.Each(func(_ uint64, c hub.Conn) {
		if mine, ok := c.(*Conn); ok {
			all = append(all, mine)
		}
	})
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// Accepted counts all connections, admitted or not, from a random number.
func (s *Server) Accepted() uint64 { return s.lastID.Load() }

// Serve accepts connections until ctx ends, then closes the listener. Connections
// stay; see Drain. While file descriptors are lacking it waits.
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
		if !s.track(nc) {
			_ = nc.Close()
			continue
		}
		// The handshake makes its goroutine's stack grow. The reader is another
		// goroutine, which starts with a small one.
		go s.handshake(nc)
	}
}

// forget removes a connection whose reader has ended.
func (s *Server) forget(c *Conn) {
	s.opts.Hub.Remove(c.session.UserID, c)
	s.opts.Routes.Remove(c.session.UserID, c.id)
	c.out.fail()
	_ = c.nc.Close()
	c.leave(s.budget)
	s.admitted.Add(-1)
	s.present.Add(-1)
	s.conns.Done()
}

// CloseAll ends every connection and request at once, admits nobody any more, and
// waits until their goroutines have ended or ctx ends.
func (s *Server) CloseAll(ctx context.Context) error {
	s.cancel()
	s.mu.Lock()
	s.closing = true
	for nc := range s.handshaking {
		_ = nc.Close()
	}
	s.mu.Unlock()
	for _, c := range s.Connections() {
		_ = c.nc.Close()
	}
	ended := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d connections are still open", s.present.Load())
	}
}
