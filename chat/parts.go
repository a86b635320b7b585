package chat

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/session"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/directory"
	"github.com/msrchat/msrchat/chat/internal/drain"
	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/fence"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/member"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/ownstate"
	"github.com/msrchat/msrchat/chat/internal/peer"
	"github.com/msrchat/msrchat/chat/internal/repair"
	"github.com/msrchat/msrchat/chat/internal/report"
	"github.com/msrchat/msrchat/chat/internal/route"
)

// open connects to the database and Redis.
func (s *Server) open(ctx context.Context) (err error) {
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

// dialOptions are for connections to peers and status replicas. gRPC's keepalive
// notices that a machine is away; the links' own keepalives notice it sooner.
func (s *Server) dialOptions() []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(peer.MaxMessage)),
	}, planted.Dial()...)
}

// build makes the parts and connects them.
func (s *Server) build() {
	members := member.New(s.db)
	dir := directory.New(s.db, members)
	s.sessions = session.NewStore(s.db, s.redis)
	s.registry.MustRegister(database.Metrics(s.db), cache.Metrics(s.redis), s.sessions.Metrics())
	s.health = admin.NewHealth(s.listeners["health"])
	s.buildLog(members)
	s.buildDelivery(members, dir)
	s.fence = fence.New(fence.Options{
		Database: s.db.PingContext,
		Catalog:  s.cfg.Catalog.Ping,
		Patience: s.cfg.FencePatience,
		Cut:      s.cut,
		Healed:   func() { s.health.Set(!s.draining.Load()) },
		Logger:   s.log,
	})
	s.reporter = report.New(report.Options{
		Report:     s.report,
		KeepAtMost: s.keepAtMost,
		Dial:       s.dialOptions(),
		Logger:     s.log,
	})
	s.buildClients(dir)
	s.gauge("connections", "Connections of users.", s.hub.Len)
	s.gauge("capacity", "Largest number of user connections.", func() int { return s.cfg.Capacity })
	s.gauge("sends_waiting", "Messages on their way into the log.", s.lanes.Waiting)
}

// buildLog makes the parts that bring messages into the log.
func (s *Server) buildLog(members *member.Index) {
	s.msgs = msglog.New(s.db, msglog.Options{
		Committed: func(batch []msglog.Event) {
			s.repair.Committed(batch)
			s.fanout.Committed(batch)
		},
		Logger:     s.log,
		Registerer: s.registry,
	})
	s.peers = peer.New(peer.Options{
		Instance: s.cfg.Instance,
		Boot:     s.boot,
		Log:      s.msgs,
		Members: func(conversation uint64) []uint64 {
			m, _ := members.Cached(conversation)
			return m.Users
		},
		Deliver: s.received,
		Missed: func(string) {
			s.routes.ForgetAll()
			s.repair.MarkAllDirty()
		},
		Dial:       s.dialOptions(),
		Logger:     s.log,
		Registerer: s.registry,
	})
	var appender lane.Appender = s.peers
	if planted.Has(planted.DrainWithoutFlush) {
		appender = unflushed{s.peers, &s.draining}
	}
	s.lanes = lane.New(appender, s.cfg.MaxSends, s.log)
}

// received takes what a peer sent: for the readers here, for the log, and about users who
// are connected there.
func (s *Server) received(from string, deliveries []*relayv1.Delivery) {
	pushed := make([]*relayv1.Delivery, 0, len(deliveries))
	for _, d := range deliveries {
		switch what := d.GetWhat().(type) {
		case *relayv1.Delivery_Connected:
			if s.routes.Forget(d.GetUserId()) {
				compare := &relayv1.Delivery_Compare{Compare: true}
				s.peers.Send(from, &relayv1.Delivery{What: compare, UserId: d.GetUserId()})
			}
			continue
		case *relayv1.Delivery_Compare:
			s.repair.MarkDirty(d.GetUserId())
			continue
		case *relayv1.Delivery_Event:
			s.msgs.Learn(what.Event.GetConversationId(), what.Event.GetSeq())
		}
		pushed = append(pushed, d)
	}
	s.fanout.Received(pushed)
}

// buildDelivery makes the parts that bring events to their readers.
func (s *Server) buildDelivery(members *member.Index, dir *directory.Directory) {
	s.routes = route.New(route.Options{
		Instance:   s.cfg.Instance,
		Redis:      s.redis,
		Heartbeat:  s.cfg.Heartbeat,
		Missed:     func() { s.repair.MarkAllDirty() },
		Added:      s.peers.Connected,
		Told:       s.peers.Told,
		Logger:     s.log,
		Registerer: s.registry,
	})
	s.fanout = fanout.New(fanout.Options{
		Hub:        s.hub,
		Peers:      s.peers,
		Routes:     s.routes,
		Members:    members,
		Missed:     func() { s.repair.MarkAllDirty() },
		Drop:       s.cfg.Hooks.DropPush,
		Registerer: s.registry,
	})
	s.repair = repair.New(repair.Options{
		Heartbeat:   s.cfg.Heartbeat,
		Announce:    s.fanout.Announce,
		Heads:       dir.Heads,
		Deliver:     func(users []uint64, frames []byte) int { return s.hub.Deliver(users, 0, frames) },
		Users:       s.hub.Users,
		Lost:        s.peers.Lost,
		Partitioned: s.peers.Partitioned,
		Logger:      s.log,
		Registerer:  s.registry,
	})
}

// buildClients makes the parts that deal with clients' connections.
func (s *Server) buildClients(dir *directory.Directory) {
	s.conns = conn.NewServer(s.listeners["client"], conn.Options{
		Instance:        s.cfg.Instance,
		Release:         s.cfg.Release,
		Heartbeat:       s.cfg.Heartbeat,
		Capacity:        s.cfg.Capacity,
		Handshaking:     s.handshaking,
		TLS:             s.tls,
		Epoch:           s.epoch.Load,
		Sessions:        s.sessions,
		Directory:       dir,
		History:         s.msgs,
		Lanes:           s.lanes,
		OwnStates:       ownstate.New(s.db),
		OwnStateChanged: s.ownStateChanged,
		Routes:          s.routes,
		Hub:             s.hub,
		MarkDirty:       s.repair.MarkDirty,
		Alternates:      s.peers.Alternates,
		Used:            s.reporter.Used,
		Refuse:          s.refuse,
		Log:             s.log,
		Registerer:      s.registry,
	})
	s.drain = drain.New(s.cfg.Instance, drain.Options{
		Connections: s.conns.Connections,
		Count:       s.hub.Len,
		Alternates:  s.peers.Alternates,
		Rate:        s.cfg.DrainRate,
		Limit:       s.cfg.Drain,
		Settled:     s.cfg.Settled,
		Logger:      s.log,
		Registerer:  s.registry,
	})
}

func (s *Server) gauge(name, help string, value func() int) {
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_chat_" + name, Help: help,
	}, func() float64 { return float64(value()) }))
}
