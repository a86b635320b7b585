package chat

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/lifecycle"
	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/session"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/directory"
	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/fence"
	"github.com/msrchat/msrchat/chat/internal/hub"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/member"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/ownstate"
	"github.com/msrchat/msrchat/chat/internal/peer"
	"github.com/msrchat/msrchat/chat/internal/repair"
	"github.com/msrchat/msrchat/chat/internal/report"
	"github.com/msrchat/msrchat/chat/internal/route"
)

// Server is one chat server. New binds its ports, Run serves.
type Server struct {
	cfg       Config
	strangers int // see Config.places
	log       *slog.Logger
	boot      uint64
	started   time.Time
	listeners map[string]net.Listener
	registry  *prometheus.Registry

	db     *sql.DB
	redis  redis.UniversalClient
	consul *api.Client

	sessions *session.Store
	hub      *hub.Hub
	msgs     *msglog.Log
	lanes    *lane.Lanes
	peers    *peer.Peers
	routes   *route.Table
	fanout   *fanout.Fanout
	repair   *repair.Repair
	fence    *fence.Fence
	leavers  *leavers
	reporter *report.Reporter
	conns    *conn.Server
	health   *admin.HealthServer
	meter    report.Meter
	shedding *shedding
	epoch    atomic.Uint64
	// serving is set once everything is built, draining once the server leaves.
	serving, draining atomic.Bool
}

// New checks the configuration and binds the ports, so that the addresses are
// known. Run must follow, also to release them.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	files, err := process.OpenFiles()
	if err != nil {
		return nil, err
	}
	capacity, strangers, err := cfg.places(files)
	if err != nil {
		return nil, err
	}
	if capacity < cfg.Capacity {
		log.Warn("capacity lowered to fit the limit of open files", "capacity", capacity, "configured", cfg.Capacity, "open_files", files)
		cfg.Capacity = capacity
	}
	s := &Server{
		cfg: cfg, strangers: strangers, log: log.With("instance", cfg.Instance), started: time.Now(), hub: hub.New(),
		listeners: make(map[string]net.Listener), registry: admin.NewRegistry(), leavers: newLeavers(cfg.Instance),
	}
	var boot [8]byte
	rand.Read(boot[:])
	s.boot = binary.BigEndian.Uint64(boot[:])
	for name, l := range map[string]Listener{"client": cfg.Client, "relay": cfg.Relay, "health": cfg.Health, "http": cfg.HTTP} {
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
		_ = l.Close() // closed already where it was served
	}
}

func (s *Server) address(name string, l Listener) string {
	if l.Advertise != "" {
		return l.Advertise
	}
	return s.listeners[name].Addr().String()
}

// ClientAddr is where clients connect, RelayAddr where peers do.
func (s *Server) ClientAddr() string { return s.address("client", s.cfg.Client) }

// RelayAddr is where other chat servers connect.
func (s *Server) RelayAddr() string { return s.address("relay", s.cfg.Relay) }

// HealthAddr answers grpc.health.v1.
func (s *Server) HealthAddr() string { return s.address("health", s.cfg.Health) }

// HTTPAddr serves /metrics, /healthz and /readyz.
func (s *Server) HTTPAddr() string { return s.address("http", s.cfg.HTTP) }

// farewellLimit is what a stop may take beyond the paced goodbyes: sends under
// way, links, the database.
const farewellLimit = 15 * time.Second

// Run serves until ctx ends, then drains and stops. It waits for the database
// and its schema first, in which time only HTTPAddr answers. It is called once.
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

// grace is what serve takes to stop, at most.
func (s *Server) grace() time.Duration { return s.cfg.Drain + farewellLimit }

func (s *Server) serve(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return unlessOver(ctx, err)
	}
	s.build()
	var g lifecycle.Group
	g.OnStop("database", func(context.Context) error { return errors.Join(s.redis.Close(), s.db.Close()) })
	g.OnStop("message log", s.msgs.Close)
	g.Go("health", s.health.Run)
	g.Go("relay", s.serveRelay)
	g.Go("peers", func(ctx context.Context) error { return s.peers.Run(ctx, s.leavers.beside(s.watch(Service, false))) })
	g.Go("routes", s.routes.Run)
	g.Go("fanout", s.fanout.Run)
	g.Go("repair", s.repair.Run)
	g.Go("fence", s.fence.Run)
	g.Go("links", s.watchLinks)
	g.Go("sessions", s.recheck)
	g.Go("memory", s.trim)
	g.Go("reports", func(ctx context.Context) error { return s.reporter.Run(ctx, s.watch("status", false)) })
	g.Go("clients", s.conns.Serve)
	g.OnStop("drain", s.drain)
	if err := s.register(ctx, &g); err != nil {
		return errors.Join(err, s.msgs.Close(ctx), s.redis.Close(), s.db.Close())
	}
	s.health.Set(true)
	s.serving.Store(true)
	s.log.Info("chat server runs", "client", s.ClientAddr(), "relay", s.RelayAddr(), "release", s.cfg.Release)
	return g.Run(ctx, s.grace())
}

// unlessOver is err, or nil for what failed because ctx has ended.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the stop was asked for
	}
	return err
}

// open connects to what is outside.
func (s *Server) open(ctx context.Context) (err error) {
	if s.consul, err = discovery.NewClient(s.cfg.ConsulAddr); err != nil {
		return fmt.Errorf("consul client: %w", err)
	}
	if s.db, err = database.OpenWait(ctx, s.cfg.Database, s.log); err != nil {
		return err
	}
	if err = schema.WaitFor(ctx, s.db, schema.Latest(), s.log); err == nil {
		err = database.CheckDurability(ctx, s.db)
	}
	var epoch uint64
	if err == nil {
		epoch, err = schema.Epoch(ctx, s.db)
	}
	if err == nil {
		s.redis, err = cache.Open(s.cfg.Redis)
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.epoch.Store(epoch)
	return nil
}

// dialOptions are for connections to peers and status replicas. Keepalive finds
// a peer whose machine is gone; the peers' own signs of life are faster.
func (s *Server) dialOptions() []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(peer.MaxMessage)),
	}, planted.Dial()...)
}

// build makes the parts and ties them together.
func (s *Server) build() {
	reg, hb := s.registry, s.cfg.Heartbeat
	members := member.New(s.db)
	dir := directory.New(s.db, members)
	s.sessions = session.NewStore(s.db, s.redis)
	reg.MustRegister(database.Metrics(s.db), cache.Metrics(s.redis), s.sessions.Metrics())
	s.health = admin.NewHealth(s.listeners["health"])
	s.routes = route.New(route.Options{
		Instance: s.cfg.Instance, Redis: s.redis, Logger: s.log, Registerer: reg,
		Missed: func() { s.repair.Everybody() },
	})
	s.msgs = msglog.New(s.db, msglog.Options{Logger: s.log, Registerer: reg, Committed: func(batch []msglog.Event) {
		s.repair.Committed(batch)
		s.fanout.Committed(batch)
	}})
	s.peers = peer.New(peer.Options{
		Instance: s.cfg.Instance, Boot: s.boot, Log: s.msgs, Dial: s.dialOptions(), Logger: s.log, Registerer: reg,
		Members: func(conversation uint64) []uint64 {
			m, _ := members.Known(conversation)
			return m.Users
		},
		Deliver: func(d []*relayv1.Delivery) { s.fanout.Received(d) },
		Missed:  func(string) { s.repair.Everybody() },
	})
	var appender lane.Appender = s.peers
	if planted.Has(planted.DrainWithoutFlush) {
		appender = unflushed{s.peers, &s.draining}
	}
	s.lanes = lane.New(appender, s.cfg.MaxSends, s.log)
	s.fanout = fanout.New(fanout.Options{
		Hub: s.hub, Peers: s.peers, Routes: s.routes, Members: members, Drop: s.cfg.Hooks.DropPush,
		Missed: func() { s.repair.Everybody() }, Registerer: reg,
	})
	s.repair = repair.New(repair.Options{
		Heartbeat: hb, Tell: s.fanout.Heads, Heads: dir.Heads, Users: s.hub.Users, Lost: s.peers.Lost,
		Deliver: func(users []uint64, frames []byte) int { return s.hub.Deliver(users, 0, frames) },
		Logger:  s.log, Registerer: reg,
	})
	s.fence = fence.New(fence.Options{
		Database: s.db.PingContext, Consul: s.askConsul, Patience: s.cfg.FencePatience, Cut: s.cut,
		Healed: func() { s.health.Set(!s.draining.Load()) }, Logger: s.log,
	})
	s.reporter = report.New(report.Options{Report: s.report, KeepAtMost: s.keepAtMost, Dial: s.dialOptions(), Logger: s.log})
	s.conns = conn.NewServer(s.listeners["client"], conn.Options{
		Instance: s.cfg.Instance, Release: s.cfg.Release, Heartbeat: hb, Capacity: s.cfg.Capacity, Strangers: s.strangers,
		Epoch: s.epoch.Load, Sessions: s.sessions, Directory: dir, History: s.msgs, Lanes: s.lanes,
		OwnStates: ownstate.New(s.db), OwnStateChanged: s.ownStateChanged, Routes: s.routes, Hub: s.hub,
		Dirty: s.repair.Dirty, Alternates: s.peers.Alternates, Used: s.reporter.Used, Refuse: s.refuse, Log: s.log, Registerer: reg,
	})
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_chat_connections", Help: "Connections of users.",
	}, func() float64 { return float64(s.hub.Len()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_chat_capacity", Help: "Connections of users that are let in at most.",
	}, func() float64 { return float64(s.cfg.Capacity) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_chat_sends_waiting", Help: "Messages on their way into the log.",
	}, func() float64 { return float64(s.lanes.Waiting()) }))
	s.shedding = newShedding(s.cfg.Settled, reg)
}

// ownStateChanged tells a user's other connections of a change, now and once more
// when it has been quiet.
func (s *Server) ownStateChanged(ctx context.Context, user uint64, state *chatv1.OwnState, except uint64) {
	s.repair.OwnState(user, state)
	s.fanout.OwnState(ctx, user, state, except)
}

// watch follows a service in Consul.
func (s *Server) watch(service string, onlyPassing bool) func(context.Context, func([]discovery.Instance)) error {
	return func(ctx context.Context, fn func([]discovery.Instance)) error {
		return discovery.Watch(ctx, s.consul, service, onlyPassing, fn)
	}
}

func (s *Server) askConsul(ctx context.Context) error {
	leader, err := s.consul.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err == nil && leader == "" {
		err = errors.New("consul has no leader")
	}
	return err
}

// streamsPerPeer is more than the two that a peer opens.
const streamsPerPeer = 16

func (s *Server) serveRelay(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(peer.MaxMessage),
		grpc.MaxConcurrentStreams(streamsPerPeer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	relayv1.RegisterRelayServiceServer(srv, s.peers.Service())
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	if err := srv.Serve(s.listeners["relay"]); ctx.Err() == nil {
		return err
	}
	return nil // stopped, perhaps before it began
}

// register registers the process in Consul where nobody else does; at a stop it
// leaves first.
func (s *Server) register(ctx context.Context, g *lifecycle.Group) error {
	if !s.cfg.Register {
		return nil
	}
	leave, err := discovery.Register(context.WithoutCancel(ctx), s.consul, discovery.Registration{
		Service: Service, Instance: s.cfg.Instance, Address: s.ClientAddr(), Log: s.log,
		Meta: map[string]string{
			discovery.MetaRelease: s.cfg.Release, discovery.MetaZone: s.cfg.Zone, discovery.MetaRelay: s.RelayAddr(),
			discovery.MetaTLSServerName: s.cfg.TLSServerName,
		},
		Checks: []discovery.Check{{Name: "health", GRPC: s.HealthAddr()}, {Name: "client port", TCP: s.ClientAddr()}},
	})
	if err != nil {
		return fmt.Errorf("register in Consul: %w", err)
	}
	g.OnStop("registration", leave)
	return nil
}

func (s *Server) ready(ctx context.Context) error {
	switch {
	case !s.serving.Load():
		return errs.New(errs.CodeUnavailable, "waiting for the database and its schema")
	case s.draining.Load():
		return errs.New(errs.CodeUnavailable, "draining")
	case s.fence.IsCut():
		return errs.New(errs.CodeUnavailable, "cut off from database and Consul")
	}
	return s.db.PingContext(ctx)
}

func (s *Server) endpoint() *chatv1.Endpoint {
	return &chatv1.Endpoint{Instance: s.cfg.Instance, Address: s.ClientAddr(), TlsServerName: s.cfg.TLSServerName}
}

func (s *Server) report() *statusv1.ReportRequest {
	load := &statusv1.Load{
		Connections: uint32(s.hub.Len()), Capacity: uint32(s.cfg.Capacity),
		QueueDelayMs: float64(s.msgs.QueueDelay().Microseconds()) / 1000, Draining: s.draining.Load() || s.fence.IsCut(),
	}
	s.meter.Fill(load, s.lanes.Sent())
	return &statusv1.ReportRequest{
		Instance: s.cfg.Instance, BootId: s.boot, Release: s.cfg.Release, Zone: s.cfg.Zone, Endpoint: s.endpoint(),
		StartedAtMs: s.started.UnixMilli(), Load: load,
	}
}
