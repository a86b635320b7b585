package admin

import (
	"context"
	"fmt"
	"net"
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
	// healthGrace is for checks in flight; watchers never end by themselves.
	healthGrace = 200 * time.Millisecond
)

// HealthServer answers grpc.health.v1, and nothing else, on a listener of its
// own, so that checks need no client certificate. It knows one service, the
// empty name, and starts as NOT_SERVING. Its methods are safe for concurrent
// use.
type HealthServer struct {
	listener net.Listener
	health   *health.Server
}

// NewHealth returns a server on l, which Run closes.
func NewHealth(l net.Listener) *HealthServer {
	h := &HealthServer{listener: l, health: health.NewServer()}
	h.Set(false)
	return h
}

// Set says whether the service takes work. After Run ended it changes nothing.
func (h *HealthServer) Set(serving bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthv1.HealthCheckResponse_SERVING
	}
	h.health.SetServingStatus("", state)
}

// Register adds the same health service to another server, before that one
// serves: callers that check health on the connection they call on
// (discovery.ServiceConfig) need it there.
func (h *HealthServer) Register(r grpc.ServiceRegistrar) {
	healthv1.RegisterHealthServer(r, h.health)
}

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
	h.health.Shutdown()
	hard := time.AfterFunc(healthGrace, srv.Stop)
	defer hard.Stop()
	srv.GracefulStop()
	<-served
	return nil
}
