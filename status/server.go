package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/lifecycle"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/status/internal/fleet"
	"github.com/msrchat/msrchat/status/internal/page"
	"github.com/msrchat/msrchat/status/internal/service"
)

const (
	// streamsPerConn bounds a gate's calls in flight.
	streamsPerConn = 1000
	// A peer that vanished without closing its connection is noticed after the
	// sum.
	pingAfter, pingTimeout = 20 * time.Second, 5 * time.Second
	// leastPing is the least time between a peer's pings.
	leastPing = 5 * time.Second
	// handshakeLimit drops connections that send nothing.
	handshakeLimit = 5 * time.Second
)

// Server is one replica.
type Server struct {
	cfg      Config
	log      *slog.Logger
	registry *prometheus.Registry
	table    *fleet.Table
	catalog  *discovery.Watcher
	service  *service.Service
	grpc     *grpc.Server
	health   *admin.HealthServer

	grpcListener, httpListener net.Listener
}

// New checks cfg and binds the listeners; Run closes them.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure status: %w", err)
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, log: log, registry: admin.NewRegistry(),
		catalog: discovery.NewWatcher(cfg.Catalog, ChatService, discovery.Options{Log: log}),
	}
	s.table = fleet.New(fleet.Options{CatalogAge: s.catalog.Age, StableFor: cfg.StableFor})
	if err := s.listen(); err != nil {
		return nil, err
	}
	metrics := service.NewMetrics(s.registry, s.table, s.catalog.Age)
	s.service = service.New(service.Config{
		Instance: cfg.Instance, Table: s.table, CatalogAge: s.catalog.Age,
		IdleLimit: cfg.ReportIdle, Metrics: metrics, Log: log,
	})
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(service.MaxMessage),
		grpc.MaxConcurrentStreams(streamsPerConn),
		grpc.ConnectionTimeout(handshakeLimit),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPing, PermitWithoutStream: true}),
		grpc.StatsHandler(metrics),
		grpc.UnknownServiceHandler(service.Unknown),
	)
	statusv1.RegisterStatusServiceServer(s.grpc, s.service)
	s.health.Register(s.grpc)
	return s, nil
}

// listen binds the three listeners, or none.
func (s *Server) listen() error {
	var open []net.Listener
	for _, l := range [][2]string{
		{"grpc", s.cfg.GRPCBind}, {"health", s.cfg.HealthBind}, {"http", s.cfg.HTTPBind},
	} {
		listener, err := net.Listen("tcp", l[1])
		if err != nil {
			for _, o := range open {
				err = errors.Join(err, o.Close())
			}
			return fmt.Errorf("listen for %s: %w", l[0], err)
		}
		open = append(open, listener)
	}
	s.grpcListener, s.httpListener, s.health = open[0], open[2], admin.NewHealth(open[1])
	return nil
}

// GRPCAddr is where status.v1 is bound.
func (s *Server) GRPCAddr() string { return s.grpcListener.Addr().String() }

// HealthAddr is where grpc.health.v1 is bound.
func (s *Server) HealthAddr() string { return s.health.Addr() }

// HTTPAddr is where the live page, /healthz, /readyz and /metrics are bound.
func (s *Server) HTTPAddr() string { return s.httpListener.Addr().String() }

// Run serves until ctx ends. Then it deregisters, turns its health to
// NOT_SERVING, closes the report streams, and finishes the calls in flight. It
// blocks, is called once, and returns nil after a clean end.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("status starts", "instance", s.cfg.Instance, "release", s.cfg.Release,
		"grpc", s.GRPCAddr(), "health", s.HealthAddr(), "http", s.HTTPAddr())
	var g lifecycle.Group
	g.Go("http", func(ctx context.Context) error { return admin.Serve(ctx, s.httpListener, s.http()) })
	g.Go("health", s.health.Run)
	g.Go("catalog", func(ctx context.Context) error { return s.catalog.Run(ctx, s.table.SetCatalog) })
	g.Go("probes", func(ctx context.Context) error {
		return discovery.Watch(ctx, s.cfg.Catalog, ProbeService, false, s.table.SetProbes)
	})
	g.Go("watches", s.service.Run)
	g.Go("grpc", s.serveGRPC)
	g.OnStop("grpc", s.stopGRPC)
	g.OnStop("drain", s.drain)
	g.Go("readiness", s.announce) // stops before the drain, which it would undo
	if s.cfg.Register {
		g.Go("registration", s.register)
	}
	err := g.Run(ctx, s.cfg.DrainDelay+s.cfg.Grace+time.Second)
	s.log.Info("status ended", "instance", s.cfg.Instance)
	return err
}

// http serves the live page and what every service shows.
func (s *Server) http() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", admin.Handler(s.registry, s.ready))
	page.Register(mux, s.service.Watch)
	return mux
}

// ready answers /readyz.
func (s *Server) ready(context.Context) error {
	select {
	case <-s.table.Ready():
		return nil
	default:
		return errs.New(errs.CodeUnavailable, "%v has not answered yet", s.cfg.Catalog)
	}
}

// announce turns the health to SERVING once the catalog is known.
func (s *Server) announce(ctx context.Context) error {
	select {
	case <-s.table.Ready():
		s.health.Set(true)
		s.log.Info("status is ready", "instance", s.cfg.Instance)
	case <-ctx.Done():
	}
	return nil
}

// drain tells callers to use another replica and gives them the time to notice.
func (s *Server) drain(ctx context.Context) error {
	s.health.Set(false)
	retry.Sleep(ctx, s.cfg.DrainDelay)
	return nil
}

func (s *Server) serveGRPC(context.Context) error {
	err := s.grpc.Serve(s.grpcListener)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil // stopped before it began
	}
	return err
}

// stopGRPC lets calls in flight finish, for as long as grace allows.
func (s *Server) stopGRPC(ctx context.Context) error {
	s.service.Close()
	s.health.Leave()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Grace)
	defer cancel()
	hard := context.AfterFunc(ctx, s.grpc.Stop)
	defer hard()
	s.grpc.GracefulStop()
	return nil
}

// register keeps the process in the catalog until ctx ends.
func (s *Server) register(ctx context.Context) error {
	or := func(advertise, bound string) string {
		if advertise != "" {
			return advertise
		}
		return bound
	}
	deregister, err := s.cfg.Catalog.Register(ctx, discovery.Registration{
		Service: ServiceName, Instance: s.cfg.Instance,
		Address: or(s.cfg.GRPCAdvertise, s.GRPCAddr()),
		Meta:    map[string]string{discovery.MetaRelease: s.cfg.Release, discovery.MetaZone: s.cfg.Zone},
		Checks:  []discovery.Check{{Name: "grpc health", GRPC: or(s.cfg.HealthAdvertise, s.HealthAddr())}},
		Log:     s.log,
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := deregister(leave); err != nil {
		// Not an error of the run: the catalog also notices by the checks.
		s.log.Warn("deregistration failed", "err", err)
	}
	return nil
}
