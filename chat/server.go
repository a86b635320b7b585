package chat

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/lifecycle"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/session"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/drain"
	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/fence"
	"github.com/msrchat/msrchat/chat/internal/hub"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/memory"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/peer"
	"github.com/msrchat/msrchat/chat/internal/repair"
	"github.com/msrchat/msrchat/chat/internal/report"
	"github.com/msrchat/msrchat/chat/internal/route"
	"github.com/msrchat/msrchat/chat/internal/sessions"
)

// Server is one chat server. New binds its ports, Run serves.
type Server struct {
	cfg         Config
	handshaking int // see Config.places
	log         *slog.Logger
	boot        uint64
	started     time.Time
	listeners   map[string]net.Listener
	registry    *prometheus.Registry

	certificate *certificate.Certificate // nil without TLS
	tls         *tls.Config

	db    *sql.DB
	redis redis.UniversalClient

	sessions *session.Store
	hub      *hub.Hub
	msgs     *msglog.Log
	lanes    *lane.Lanes
	peers    *peer.Peers
	routes   *route.Table
	fanout   *fanout.Fanout
	repair   *repair.Repair
	fence    *fence.Fence
	drain    *drain.Drain
	reporter *report.Reporter
	conns    *conn.Server
	health   *admin.HealthServer
	meter    report.Meter
	epoch    atomic.Uint64
	// serving is set when all parts are built, draining when the server begins to stop.
	serving, draining atomic.Bool
}

// New checks the configuration and binds the ports, so that the addresses are known.
// Run must follow, which also releases them.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	files, err := process.OpenFiles()
	if err != nil {
		return nil, err
	}
	memory := debug.SetMemoryLimit(-1) // GOMEMLIMIT; this only asks
	if memory == math.MaxInt64 {
		memory = 0
	}
	capacity, handshaking, err := cfg.places(files, memory)
	if err != nil {
		return nil, err
	}
	if capacity < cfg.Capacity {
		log.Warn("capacity lowered to fit the limits of open files and memory",
			"capacity", capacity, "configured", cfg.Capacity, "open_files", files, "memory_mib", memory>>20)
		cfg.Capacity = capacity
	}
	s := &Server{
		cfg:         cfg,
		handshaking: handshaking,
		log:         log.With("instance", cfg.Instance),
		started:     time.Now(),
		hub:         hub.New(),
		listeners:   make(map[string]net.Listener),
		registry:    admin.NewRegistry(),
	}
	if err := s.loadCertificate(); err != nil {
		return nil, err
	}
	var boot [8]byte
	rand.Read(boot[:])
	s.boot = binary.BigEndian.Uint64(boot[:])
	for name, l := range cfg.listeners() {
		bound, err := net.Listen("tcp", l.Bind)
		if err != nil {
			s.release()
			return nil, fmt.Errorf("bind the %s port: %w", name, err)
		}
		s.listeners[name] = bound
	}
	return s, nil
}

func (s *Server) release() {
	for _, l := range s.listeners {
		_ = l.Close() // fails if it was served and closed already
	}
}

func (s *Server) address(name string, l Listener) string {
	if l.Advertise != "" {
		return l.Advertise
	}
	return s.listeners[name].Addr().String()
}

// ClientAddr is where clients connect.
func (s *Server) ClientAddr() string { return s.address("client", s.cfg.Client) }

// RelayAddr is where other chat servers connect.
func (s *Server) RelayAddr() string { return s.address("relay", s.cfg.Relay) }

// HealthAddr answers grpc.health.v1.
func (s *Server) HealthAddr() string { return s.address("health", s.cfg.Health) }

// HTTPAddr serves /metrics, /healthz and /readyz.
func (s *Server) HTTPAddr() string { return s.address("http", s.cfg.HTTP) }

// stopLimit is how long a stop may take beyond the drain of the connections: for
// sends under way, links and the database.
const stopLimit = 15 * time.Second

// Run serves until ctx ends, then drains and stops. It first waits for the database
// and its schema; meanwhile only HTTPAddr answers. It is called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.release()
	var g lifecycle.Group
	g.Go("http", func(ctx context.Context) error {
		h := admin.Handler(s.registry, s.ready)
		if s.cfg.Profile {
			h = admin.Profiles(h)
		}
		return admin.Serve(ctx, s.listeners["http"], h)
	})
	g.Go("server", s.serve)
	return g.Run(ctx, s.grace()+time.Second)
}

// grace is how long serve may take to stop.
func (s *Server) grace() time.Duration { return s.cfg.Drain + stopLimit }

// serve builds the server and runs its parts. The last in the group is stopped
// first: the server leaves the catalog, then drains, then its parts end. ARCHITECTURE.md
// has the table of the goroutines and what each owns.
func (s *Server) serve(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return lifecycle.UnlessStopped(ctx, err)
	}
	s.build()
	var g lifecycle.Group
	g.OnStop("database", func(context.Context) error { return errors.Join(s.redis.Close(), s.db.Close()) })
	g.OnStop("message log", s.msgs.Close)
	g.Go("health", s.health.Run)
	g.Go("relay", s.serveRelay)
	g.Go("peers", func(ctx context.Context) error { return s.peers.Run(ctx, s.watchPeers) })
	g.Go("routes", s.routes.Run)
	g.Go("fanout", s.fanout.Run)
	g.Go("repair", s.repair.Run)
	g.Go("fence", s.fence.Run)
	g.Go("sessions", s.checkSessions)
	g.Go("memory", func(ctx context.Context) error { return memory.Trim(ctx, s.work) })
	if s.certificate != nil {
		g.Go("certificate", s.certificate.Run)
		g.Go("tickets", s.renewTickets)
	}
	g.Go("reports", func(ctx context.Context) error { return s.reporter.Run(ctx, s.watchStatus) })
	g.Go("clients", s.conns.Serve)
	g.OnStop("drain", s.leave)
	if err := s.register(ctx, &g); err != nil {
		return errors.Join(err, s.msgs.Close(ctx), s.redis.Close(), s.db.Close())
	}
	s.health.Set(true)
	s.serving.Store(true)
	s.log.Info("serving", "client", s.ClientAddr(), "relay", s.RelayAddr(), "release", s.cfg.Release)
	return g.Run(ctx, s.grace())
}

// ownStateChanged sends a change to the user's other connections: now, and as an
// announcement when the state has not changed for a while.
func (s *Server) ownStateChanged(ctx context.Context, user uint64, state *chatv1.OwnState, except uint64) {
	s.repair.OwnState(user, state)
	s.fanout.OwnState(ctx, user, state, except)
}

// watchPeers follows the chat servers in the catalog, for the links and for the group
// that drains together.
func (s *Server) watchPeers(ctx context.Context, fn func([]discovery.Instance)) error {
	return discovery.Watch(ctx, s.cfg.Catalog, Service, false, func(list []discovery.Instance) {
		s.drain.Group.Update(list)
		fn(list)
	})
}

func (s *Server) watchStatus(ctx context.Context, fn func([]discovery.Instance)) error {
	return discovery.Watch(ctx, s.cfg.Catalog, "status", false, fn)
}

// work counts messages and connections since the start.
func (s *Server) work() uint64 { return uint64(s.lanes.Sent()) + s.conns.Accepted() }

func (s *Server) checkSessions(ctx context.Context) error {
	return sessions.Check(ctx, s.epoch.Load(), sessions.Options{
		Every:   s.cfg.Heartbeat,
		Hub:     s.hub,
		Revoked: s.sessions.Revoked,
		Epoch:   func(ctx context.Context) (uint64, error) { return schema.Epoch(ctx, s.db) },
		EpochChanged: func(epoch uint64) {
			s.epoch.Store(epoch)
			s.log.Warn("the log epoch changed: all clients verify their tails", "epoch", epoch)
			s.drain.All(chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE, "the log epoch changed", s.cfg.Heartbeat/2)
		},
		Logger: s.log,
	})
}

// streamsPerPeer is more than the two that a peer opens.
const streamsPerPeer = 16

func (s *Server) serveRelay(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(peer.MaxMessage),
		grpc.MaxConcurrentStreams(streamsPerPeer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             5 * time.Second,
			PermitWithoutStream: true,
		}),
	)
	relayv1.RegisterRelayServiceServer(srv, s.peers.Service())
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	if err := srv.Serve(s.listeners["relay"]); ctx.Err() == nil {
		return err
	}
	return nil // it was stopped, perhaps before Serve began
}

// register registers the process in the catalog, unless Nomad does. A stop begins with
// leaving it.
func (s *Server) register(ctx context.Context, g *lifecycle.Group) error {
	if !s.cfg.Register {
		return nil
	}
	leave, err := s.cfg.Catalog.Register(context.WithoutCancel(ctx), discovery.Registration{
		Service:  Service,
		Instance: s.cfg.Instance,
		Address:  s.ClientAddr(),
		Log:      s.log,
		Meta: map[string]string{
			discovery.MetaRelease:       s.cfg.Release,
			discovery.MetaZone:          s.cfg.Zone,
			discovery.MetaRelay:         s.RelayAddr(),
			discovery.MetaTLSServerName: s.cfg.TLSServerName,
		},
		Checks: []discovery.Check{
			{Name: "health", GRPC: s.HealthAddr()},
			{Name: "client port", TCP: s.ClientAddr()},
		},
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	g.OnStop("registration", leave)
	return nil
}

func (s *Server) endpoint() *chatv1.Endpoint {
	return &chatv1.Endpoint{
		Instance:      s.cfg.Instance,
		Address:       s.ClientAddr(),
		TlsServerName: s.cfg.TLSServerName,
	}
}

func (s *Server) report() *statusv1.ReportRequest {
	load := &statusv1.Load{
		Connections:  uint32(s.hub.Len()),
		Capacity:     uint32(s.cfg.Capacity),
		QueueDelayMs: float64(s.msgs.QueueDelay().Microseconds()) / 1000,
		Draining:     s.draining.Load() || s.fence.IsCut(),
	}
	s.meter.Fill(load, s.lanes.Sent())
	return &statusv1.ReportRequest{
		Instance:    s.cfg.Instance,
		BootId:      s.boot,
		Release:     s.cfg.Release,
		Zone:        s.cfg.Zone,
		Endpoint:    s.endpoint(),
		StartedAtMs: s.started.UnixMilli(),
		Load:        load,
	}
}
