package chat

import (
	"context"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

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

// leave drains the server: it admits nobody and owns nothing any more, the
// connections leave in even waves, each once its own messages are acknowledged, and
// then the messages under way finish.
func (s *Server) leave(ctx context.Context) error {
	started, before := time.Now(), s.hub.Len()
	s.draining.Store(true)
	s.health.Set(false)
	s.reporter.Now()
	s.peers.Drain()
	s.drain.Ask(ctx, s.grace())
	s.drain.Empty(ctx, 3*time.Second)
	late, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.lanes.Close(late)
	// The connections that waited for their last answers now have these and a Goodbye.
	s.drain.Empty(ctx, time.Second)
	s.peers.EndAppends(late)
	s.repair.Flush(late)
	err := s.conns.CloseAll(ctx)
	s.log.Info("drained", "connections", before, "took", time.Since(started))
	return err
}

// cut ends all connections at once: this server can neither store messages nor be
// found in Consul.
func (s *Server) cut() {
	s.health.Set(false)
	s.drain.All(chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, cutOff, time.Second)
}

const cutOff = "this server is cut off"

// refuse says why nobody is admitted at present, nil if somebody may be.
func (s *Server) refuse() *chatv1.Goodbye {
	switch {
	case s.draining.Load():
		return s.drain.Replaced()
	case s.fence.IsCut():
		return s.drain.Goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, cutOff, time.Second)
	}
	return nil
}

// keepAtMost obeys an order to shed connections, unless all connections leave anyway.
func (s *Server) keepAtMost(n uint32) {
	if !s.draining.Load() && !s.fence.IsCut() {
		s.drain.KeepAtMost(n)
	}
}
