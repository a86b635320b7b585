// Package fence notices that this server is cut off. Without the database it
// keeps its connections and holds their sends; without database and Consul for
// a while it must assume that it is the one who is cut off, and lets its users
// go to servers that are not, so that it keeps no ghosts.
package fence

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// period is how often each side is asked, limit how long an answer may take.
	period = time.Second
	limit  = 2 * time.Second
	// DefaultPatience is how long both must be away.
	DefaultPatience = 10 * time.Second
)

// Options are what Fence is made of.
type Options struct {
	// Database and Consul return an error when they do not answer.
	Database, Consul func(ctx context.Context) error
	Patience         time.Duration
	// Cut is called when the server finds itself cut off, Healed when not any more.
	Cut, Healed func()
	Logger      *slog.Logger
}

// Fence watches. Run is its goroutine.
type Fence struct {
	opts Options
	cut  atomic.Bool
}

// New returns a Fence that is open.
func New(opts Options) *Fence {
	if opts.Patience == 0 {
		opts.Patience = DefaultPatience
	}
	return &Fence{opts: opts}
}

// IsCut says that nobody should be served here. Any goroutine may ask.
func (f *Fence) IsCut() bool { return f.cut.Load() }

// Run watches until ctx ends. The patience counts from the last answer, or from
// the start: how long the questions take that nobody answers is part of it.
func (f *Fence) Run(ctx context.Context) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for last := time.Now(); ; {
		asked := time.Now()
		switch {
		case f.anybody(ctx):
			last = asked
			if f.cut.CompareAndSwap(true, false) {
				f.opts.Logger.Warn("no longer cut off")
				f.opts.Healed()
			}
		case ctx.Err() == nil && time.Since(last) >= f.opts.Patience:
			if f.cut.CompareAndSwap(false, true) {
				f.opts.Logger.Error("cut off: neither the database nor Consul answers", "for", time.Since(last))
				f.opts.Cut()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// anybody asks both at once and tells whether one of them answered in time.
func (f *Fence) anybody(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answers := make(chan error, 2)
	for _, ask := range []func(context.Context) error{f.opts.Database, f.opts.Consul} {
		go func() { answers <- ask(ctx) }()
	}
	first := <-answers
	return first == nil || <-answers == nil
}
