package web

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections counts connections, and by what they did those that ended without
// ever sending a request that net/http could read: it closes them by itself and
// tells nobody.
type Connections struct {
	open    prometheus.Gauge
	useless *prometheus.CounterVec
}

// NewConnections returns counters registered with reg.
func NewConnections(reg prometheus.Registerer) *Connections {
	c := &Connections{
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "msrchat_gate_connections", Help: "Open HTTP connections."}),
		useless: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_useless_connections_total",
			Help: "Connections that ended without a request: silent (nothing was sent) or malformed (it was no HTTP, too large a header, or came too slowly).",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"silent", "malformed"} {
		c.useless.WithLabelValues(reason)
	}
	reg.MustRegister(c.open, c.useless)
	return c
}

// conn is a connection that knows what it was used for.
type conn struct {
	net.Conn
	started  atomic.Bool // the first bytes of a request arrived
	requests atomic.Bool // a request reached the handler
}

// Listener wraps l so that its connections are counted.
func (c *Connections) Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: accepted}, nil
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
	case http.StateNew:
		c.open.Inc()
	case http.StateActive:
		k.started.Store(true)
	case http.StateClosed:
		c.open.Dec()
		switch {
		case k.requests.Load():
		case k.started.Load():
			c.useless.WithLabelValues("malformed").Inc()
		default:
			c.useless.WithLabelValues("silent").Inc()
		}
	}
}

// served notes that the request's connection was of use.
func served(ctx context.Context) {
	if k, ok := ctx.Value(connKey{}).(*conn); ok {
		k.requests.Store(true)
	}
}
