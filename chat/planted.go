package chat

import (
	"context"
	"sync/atomic"

	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// unflushed is for planted.DrainWithoutFlush: while the server drains, it answers
// appends as done and does not make them.
type unflushed struct {
	lane.Appender
	draining *atomic.Bool
}

func (u unflushed) Begin(conversation uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool {
	return !u.draining.Load() && u.Appender.Begin(conversation, take, ended)
}

func (u unflushed) Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error) {
	if !u.draining.Load() {
		return u.Appender.Append(ctx, conversation, events)
	}
	results := make([]msglog.Result, len(events))
	for i := range results {
		results[i].Seq = 1 // a number that the log has
	}
	return results, nil
}
