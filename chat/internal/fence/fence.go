// Package fence notices that this server is cut off. While only the database is
// away, the server keeps its connections and holds their sends. When neither the
// database nor the catalog (Consul) has answered for a while, the server must be cut
// off itself, and its users are sent to other servers.
package fence

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// period is how often both are asked, limit how long an answer may take.
	period = time.Second
	limit  = 2 * time.Second
	// DefaultPatience is how long both must be away.
	DefaultPatience = 10 * time.Second
)

// Options are what Fence is made of.
type Options struct {
	// Database and Catalog return an error when they do not answer.
	Database, Catalog func(ctx context.Context) error
	Patience          time.Duration
	// Cut is called when the server is found to be cut off, Healed when one of the
	// two answers again.
	Cut, Healed func()
	Logger      *slog.Logger
}

// Fence watches the database and the catalog. Run is its goroutine.
type Fence struct {
	opts Options
	cut  atomic.Bool
}

// New returns a Fence. It is not cut off before Run finds so.
func New(opts Options) *Fence {
	if opts.Patience == 0 {
		opts.Patience = DefaultPatience
	}
	return &Fence{opts: opts}
}

// IsCut says that the server is cut off, so that it should serve nobody. It may be
// called from any goroutine.
func (f *Fence) IsCut() bool { return f.cut.Load() }

// Run watches until ctx ends. The patience counts from the time of the last question
// that was answered, or from the start.
func (f *Fence) Run(ctx context.Context) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for last := time.Now(); ; {
		asked := time.Now()
		switch {
		case f.reachable(ctx):
			last = asked
			if f.cut.CompareAndSwap(true, false) {
				f.opts.Logger.Warn("no longer cut off")
				f.opts.Healed()
			}
		case ctx.Err() == nil && time.Since(last) >= f.opts.Patience:
			if f.cut.CompareAndSwap(false, true) {
				f.opts.Logger.Error("cut off: neither the database nor the catalog answers", "for", time.Since(last))
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

// reachable asks both at once and says whether one of them answered in time.
func (f *Fence) reachable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answers := make(chan error, 2)
	for _, ask := range []func(context.Context) error{f.opts.Database, f.opts.Catalog} {
		go func() { answers <- ask(ctx) }()
	}
	first := <-answers
	return first == nil || <-answers == nil
}
