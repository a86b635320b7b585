package chat

import (
	"context"
	"sync/atomic"

	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// unflushed is for planted.DrainWithoutFlush: once the server leaves, it answers
// what is to be appended as done, and forgets it.
type unflushed struct {
	lane.Appender
	draining *atomic.Bool
}

func (u unflushed) Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error) {
	if !u.draining.Load() {
		return u.Appender.Append(ctx, conversation, events)
	}
	results := make([]msglog.Result, len(events))
	for i := range results {
		results[i].Seq = 1 // some number that the log has
	}
	return results, nil
}
