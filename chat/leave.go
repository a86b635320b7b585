package chat

import (
	"context"
	"math/rand/v2"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/schema"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/hub"
)

// wave is how often a part of the connections is asked to leave.
const wave = 100 * time.Millisecond

// spread is within how long after its Goodbye a client returns elsewhere.
const spread = 250 * time.Millisecond

// drain empties the server: nobody new, the conversations go to other owners,
// the connections leave in even waves, each once its own messages are
// acknowledged, then the messages under way finish.
func (s *Server) drain(ctx context.Context) error {
	started, before := time.Now(), s.hub.Len()
	s.draining.Store(true)
	s.health.Set(false)
	s.reporter.Now()
	s.peers.Drain()
	ticker := time.NewTicker(wave)
	defer ticker.Stop()
	s.askToLeave(ctx, ticker, started)
	s.empty(ctx, ticker, 3*time.Second)
	late, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.lanes.Close(late)
	// Those that waited for their last answers have them now, and a Goodbye.
	s.empty(ctx, ticker, time.Second)
	s.peers.EndAppends(late)
	s.repair.Flush(late)
	err := s.conns.CloseAll(ctx)
	s.log.Info("drained", "connections", before, "took", time.Since(started))
	return err
}

// askToLeave says goodbye in waves: all servers that leave together ask at most
// Config.DrainRate connections a second, unless that would take longer than
// Config.Drain.
func (s *Server) askToLeave(ctx context.Context, ticker *time.Ticker, started time.Time) {
	all := s.connections()
	plan := pace{total: len(all), limit: s.cfg.Drain}
	for at := started; len(all) > 0 && s.hub.Len() > 0; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		now := time.Now()
		together := 1 + s.leavers.since(s.cfg.Drain+farewellLimit, now)
		n := plan.next(now.Sub(started), now.Sub(at), float64(s.cfg.DrainRate)/float64(together))
		if ctx.Err() != nil {
			n = len(all)
		}
		for _, c := range all[:n] {
			c.Drain(s.goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, "this server is being replaced", rand.N(spread)))
		}
		all, at = all[n:], now
	}
	if plan.hurried {
		s.log.Warn("more connections than the drain's rate lets go in its time", "connections", plan.total, "rate", s.cfg.DrainRate, "drain", s.cfg.Drain)
	}
}

// empty waits, but not for ever, until the connections have left; those that came while the
// others were asked are asked too.
func (s *Server) empty(ctx context.Context, ticker *time.Ticker, limit time.Duration) {
	for deadline := time.Now().Add(limit); s.hub.Len() > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		for _, c := range s.connections() {
			if !c.Leaving() {
				c.Drain(s.goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, "this server is being replaced", rand.N(spread)))
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// connections lists this server's connections in random order.
func (s *Server) connections() []*conn.Conn {
	var all []*conn.Conn
	s.hub.Each(func(_ uint64, c hub.Conn) {
		if mine, ok := c.(*conn.Conn); ok {
			all = append(all, mine)
		}
	})
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func (s *Server) goodbye(code chatv1.GoodbyeCode, text string, after time.Duration) *chatv1.Goodbye {
	return &chatv1.Goodbye{
		Code: code, Text: text, Reconnect: true, ReconnectAfterMs: uint32(after.Milliseconds()), Alternates: s.peers.Alternates(),
	}
}

// refuse says why nobody is let in at present.
func (s *Server) refuse() *chatv1.Goodbye {
	switch {
	case s.draining.Load():
		return s.goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, "this server is being replaced", rand.N(spread))
	case s.fence.IsCut():
		return s.goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, "this server is cut off", time.Second)
	}
	return nil
}

// cut sends everybody elsewhere at once: this server can neither store nor be
// found.
func (s *Server) cut() {
	s.health.Set(false)
	for _, c := range s.connections() {
		c.Bye(s.goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, "this server is cut off", rand.N(time.Second)))
	}
}

// sessionsPerQuery are re-checked together.
const sessionsPerQuery = 500

// recheck ends, once a heartbeat, the connections whose session was revoked or
// has expired, and reads the log epoch. It asks MySQL, so that a revocation
// holds with Redis empty; while MySQL is away it changes nothing.
func (s *Server) recheck(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if epoch, err := schema.Epoch(ctx, s.db); err == nil && s.epoch.Swap(epoch) != epoch {
			s.log.Warn("the log epoch changed: all clients verify their tails", "epoch", epoch)
			for _, c := range s.connections() {
				c.Bye(s.goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE, "the log epoch changed", rand.N(s.cfg.Heartbeat/2)))
			}
		}
		s.revoke(ctx)
	}
}

func (s *Server) revoke(ctx context.Context) {
	by := make(map[uint64][]hub.Conn)
	var ids []uint64
	s.hub.Each(func(_ uint64, c hub.Conn) {
		if by[c.Session()] == nil {
			ids = append(ids, c.Session())
		}
		by[c.Session()] = append(by[c.Session()], c)
	})
	for at := 0; at < len(ids); at += sessionsPerQuery {
		gone, err := s.sessions.Revoked(ctx, ids[at:min(at+sessionsPerQuery, len(ids))])
		if err != nil {
			s.log.Warn("sessions cannot be checked", "err", err)
			return
		}
		for _, id := range gone {
			for _, c := range by[id] {
				c.Bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, Text: "the session has ended: log in again"})
			}
		}
	}
}
