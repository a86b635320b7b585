package chat

import (
	"context"
	"time"
)

// watchLinks has everybody compared with the log, twice a heartbeat, while a peer
// that serves users cannot be reached: the network between two chat servers may be
// cut and each see the database and its own users. Their conversations stay one,
// by the log; this keeps their readers less than a heartbeat behind, the time that
// comparing takes included.
func (s *Server) watchLinks(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Heartbeat / 2)
	defer ticker.Stop()
	for was := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		apart := s.peers.Apart()
		if apart != was {
			s.log.Warn("peers out of reach", "apart", apart)
		}
		if apart || was { // also once after it is over: the last may have been missed
			s.repair.Everybody()
		}
		was = apart
	}
}
