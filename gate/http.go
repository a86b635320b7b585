package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/msrchat/msrchat/gate/internal/api"
	"github.com/msrchat/msrchat/gate/internal/problem"
	"github.com/msrchat/msrchat/gate/internal/web"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/discovery"
)

// newHTTP builds the server: the API's operations, the operators' paths, and the
// middleware.
func (s *Server) newHTTP() (*http.Server, *web.Connections, error) {
	limits := s.cfg.HTTP
	router := web.NewRouter(limits.BodyTimeout, web.NewConcurrency(limits.MaxRequests, s.registry))
	yaml, asJSON, err := api.New(router, s.backend.Load).OpenAPI()
	if err != nil {
		return nil, nil, err
	}
	router.Handle("GET /openapi.yaml", document("application/yaml", yaml))
	router.Handle("GET /openapi.json", document("application/json", asJSON))
	router.Handle("GET /healthz", admin.Handler(s.registry, nil))
	router.Handle("GET /readyz", s.ready)

	observer := web.NewObserver(s.log, s.registry, web.NewClientFinder(s.cfg.TrustedProxies), limits.RequestTimeout)
	most, err := s.cfg.connections()
	if err != nil {
		return nil, nil, err
	}
	connections := web.NewConnections(most, s.registry)
	return &http.Server{
		Handler:           connections.Wrap(observer.Wrap(router)),
		ReadHeaderTimeout: limits.HeaderTimeout,
		// The parts have limits of their own. These are longer, for what those
		// miss: when a read's deadline passes, net/http ends the request.
		ReadTimeout:    limits.HeaderTimeout + limits.BodyTimeout + limits.RequestTimeout,
		WriteTimeout:   limits.BodyTimeout + limits.RequestTimeout + 5*time.Second,
		IdleTimeout:    limits.IdleTimeout,
		MaxHeaderBytes: limits.MaxHeaderBytes,
		ConnContext:    connections.Context,
		ConnState:      connections.State,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}, connections, nil
}

func document(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // on an error the client is gone
	})
}

// requestGrace is for requests in flight at the stop. It is longer than their
// timeout.
const requestGrace = 12 * time.Second

// serve serves until ctx ends, then waits for requests in flight.
func (s *Server) serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.connections.Listener(s.listener)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", s.HTTPAddr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestGrace)
	defer cancel()
	if err := s.http.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("requests in flight were cut off: %w", err), s.http.Close())
	}
	return nil
}

// dialStatus returns a connection to all status replicas, without connecting.
func dialStatus(cfg Config) (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A replica that is back is used within the time of one attempt; gRPC's
		// default backoff goes up to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond,
			},
			MinConnectTimeout: time.Second,
		}),
	}
	target := cfg.StatusTarget
	if target == "" {
		target = discovery.Scheme + ":///status"
	}
	if cfg.Catalog != nil { // for a target that is a service in it
		opts = append(opts, discovery.DialOptions(cfg.Catalog)...)
	} else {
		opts = append(opts, grpc.WithDefaultServiceConfig(discovery.ServiceConfig))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("status target: %w", err)
	}
	return conn, nil
}

// ServeHTTP answers /readyz.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	degraded, err := r.check(req.Context())
	if err != nil {
		p := problem.From(req.Context(), err)
		p.Status = http.StatusServiceUnavailable // what load balancers expect
		p.Title = http.StatusText(p.Status)
		problem.Write(w, p)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct { // on an error the client is gone
		Status   string   `json:"status"`
		Degraded []string `json:"degraded"`
	}{"ready", degraded})
}
