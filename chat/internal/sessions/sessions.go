// Package sessions re-checks the sessions of connected users and the log epoch.
package sessions

import (
	"context"
	"log/slog"
	"slices"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat/internal/hub"
)

// perQuery sessions are checked by one query.
const perQuery = 500

// Options are what Check needs.
type Options struct {
	// Every is the time between two checks.
	Every time.Duration
	Hub   *hub.Hub
	// Revoked returns those of the sessions that have ended. It queries MySQL, so that
	// a revocation holds even if Redis lost its data.
	Revoked func(ctx context.Context, sessions []uint64) ([]uint64, error)
	// Epoch reads the log epoch. EpochChanged is called when it differs.
	Epoch        func(ctx context.Context) (uint64, error)
	EpochChanged func(epoch uint64)
	Logger       *slog.Logger
}

// Check ends the connections whose session was revoked or has expired, and watches
// for a log epoch other than epoch, until ctx ends. While MySQL is away it changes
// nothing.
func Check(ctx context.Context, epoch uint64, opts Options) error {
	ticker := time.NewTicker(opts.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if now, err := opts.Epoch(ctx); err == nil && now != epoch {
			epoch = now
			opts.EpochChanged(epoch)
		}
		opts.revoke(ctx)
	}
}

func (o Options) revoke(ctx context.Context) {
	by := make(map[uint64][]hub.Conn)
	var ids []uint64
	o.Hub.Each(func(_ uint64, c hub.Conn) {
		if by[c.Session()] == nil {
			ids = append(ids, c.Session())
		}
		by[c.Session()] = append(by[c.Session()], c)
	})
	for part := range slices.Chunk(ids, perQuery) {
		revoked, err := o.Revoked(ctx, part)
		if err != nil {
			o.Logger.Warn("sessions cannot be checked", "err", err)
			return
		}
		for _, id := range revoked {
			for _, c := range by[id] {
				c.Bye(&chatv1.Goodbye{
					Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED,
					Text: "the session has ended: log in again",
				})
			}
		}
	}
}
