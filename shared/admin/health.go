package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// maxHealthRequest: a request holds one service name.
	maxHealthRequest = 4 << 10
	// healthStreams bounds what one connection may watch at once.
	healthStreams = 64
	// notifyTime is for watchers to receive NOT_SERVING, healthGrace for checks
	// in flight after that.
	notifyTime  = 20 * time.Millisecond
	healthGrace = 200 * time.Millisecond
)

// HealthServer answers grpc.health.v1, and nothing else, on a listener of its
// own, so that checks need no client certificate. It has one service, the empty
// name, and starts as NOT_SERVING. Its methods are safe for concurrent use.
type HealthServer struct {
	listener net.Listener
	health   *health.Server

	left chan struct{} // closed by Leave
	once sync.Once
}

// NewHealth returns a server on l, which Run closes.
func NewHealth(l net.Listener) *HealthServer {
	h := &HealthServer{listener: l, health: health.NewServer(), left: make(chan struct{})}
	h.Set(false)
	return h
}

// Set says whether the service takes work. After Leave it changes nothing.
func (h *HealthServer) Set(serving bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthv1.HealthCheckResponse_SERVING
	}
	h.health.SetServingStatus("", state)
}

// Leave says NOT_SERVING for good and ends every watch, here and on the servers
// of Register, whose GracefulStop would otherwise wait for it. Call it a moment
// after Set(false), so that watchers still receive that. It may be called more
// than once; Run calls it at its end.
func (h *HealthServer) Leave() {
	h.health.Shutdown()
	h.once.Do(func() { close(h.left) })
}

// Register adds the same health service to another server, before that one
// serves. Clients that check health on the connection that carries their calls
// (discovery.ServiceConfig) need it there.
func (h *HealthServer) Register(r grpc.ServiceRegistrar) {
	healthv1.RegisterHealthServer(r, leaving{Server: h.health, left: h.left})
}

// leaving is a health service whose watches end with left.
type leaving struct {
	*health.Server
	left <-chan struct{}
}

func (l leaving) Watch(req *healthv1.HealthCheckRequest, stream healthv1.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-l.left:
			cancel()
		case <-ctx.Done():
		}
	}()
	return l.Server.Watch(req, watch{Health_WatchServer: stream, ctx: ctx})
}

// watch is a stream with another context.
type watch struct {
	healthv1.Health_WatchServer
	ctx context.Context //nolint:containedctx // a stream has to return it
}

func (w watch) Context() context.Context { return w.ctx }

// Addr is where it listens.
func (h *HealthServer) Addr() string { return h.listener.Addr().String() }

// Run serves until ctx ends, tells watchers NOT_SERVING and closes. It blocks
// and returns nil after a clean end.
func (h *HealthServer) Run(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxHealthRequest),
		grpc.MaxConcurrentStreams(healthStreams),
		grpc.ConnectionTimeout(5*time.Second),
	)
	h.Register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(h.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve health on %s: %w", h.Addr(), err)
	case <-ctx.Done():
	}
	h.Set(false)
	<-time.After(notifyTime)
	h.Leave()
	hard := time.AfterFunc(healthGrace, srv.Stop)
	defer hard.Stop()
	srv.GracefulStop()
	// ErrServerStopped: it was stopped before Serve began.
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("stop health on %s: %w", h.Addr(), err)
	}
	return nil
}
