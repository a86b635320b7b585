package web

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections counts connections, and those that ended without a request that
// net/http could read, by reason: net/http closes these without calling a
// handler.
//
// It also bounds them. One too many is closed at once, and from half of the
// limit on every connection is closed after its answer, so that idle ones make
// room for requests. Up to there an answer 429 waits for refusedWait.
type Connections struct {
	most   int64
	open   atomic.Int64
	unused *prometheus.CounterVec
}

// refusedWait slows down those who do not stop when they are told to. A person hardly notices
// a second.
const refusedWait = time.Second

// NewConnections returns counters registered with reg, and a bound of most.
func NewConnections(most int, reg prometheus.Registerer) *Connections {
	c := &Connections{
		most: int64(most),
		unused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_unused_connections_total",
			Help: "Connections that ended without a request: silent (nothing was sent), malformed (not HTTP, " +
				"too large a header, or too slow) or full (there were too many connections).",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"silent", "malformed", "full"} {
		c.unused.WithLabelValues(reason)
	}
	reg.MustRegister(c.unused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_gate_connections", Help: "Open HTTP connections.",
	}, func() float64 { return float64(c.open.Load()) }))
	return c
}

// conn is a connection that records what it was used for.
type conn struct {
	net.Conn
	started  atomic.Bool // the first bytes of a request arrived
	requests atomic.Bool // a request reached the handler
}

// Listener wraps l so that its connections are counted and bounded.
func (c *Connections) Listener(l net.Listener) net.Listener { return listener{l, c} }

type listener struct {
	net.Listener
	connections *Connections
}

func (l listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.connections.open.Add(1) <= l.connections.most {
			return &conn{Conn: accepted}, nil
		}
		l.connections.open.Add(-1)
		l.connections.unused.WithLabelValues("full").Inc()
		_ = accepted.Close()
	}
}

// Wrap makes answers close their connections while there are many, and holds answers 429 back
// while there are few.
func (c *Connections) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.open.Load() > c.most/2 {
			w.Header().Set("Connection", "close")
			next.ServeHTTP(w, r)
			return
		}
		slow := &refusal{ResponseWriter: w}
		next.ServeHTTP(slow, r)
		slow.release(r.Context())
	})
}

type connKey struct{}

// Context is for http.Server.ConnContext.
func (c *Connections) Context(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// State is for http.Server.ConnState.
func (c *Connections) State(nc net.Conn, state http.ConnState) {
	k, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		k.started.Store(true)
	case http.StateClosed:
		c.open.Add(-1)
		switch {
		case k.requests.Load():
		case k.started.Load():
			c.unused.WithLabelValues("malformed").Inc()
		default:
			c.unused.WithLabelValues("silent").Inc()
		}
	}
}

// served records that the request's connection had a request.
func served(ctx context.Context) {
	if k, ok := ctx.Value(connKey{}).(*conn); ok {
		k.requests.Store(true)
	}
}
