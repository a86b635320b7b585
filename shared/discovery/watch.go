package discovery

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/shared/retry"
)

// Options of a watch. The zero value of each field means its default.
type Options struct {
	// OnlyPassing leaves out instances with a failing check.
	OnlyPassing bool
	// EmptyAfter is for how long the catalog has to answer, without an error between,
	// that the service has no instance at all before that is reported; default
	// 5 s. Such an answer far more often comes from an agent that just lost its
	// data, or that refuses the token, than from a service that ended. The price:
	// the last instance of a service that did end is listed that much longer, and
	// callers get a refused connection instead of an empty list. Instances that
	// are registered and fail their checks are reported at once.
	EmptyAfter time.Duration
	// WaitTime is how long one query blocks when nothing changes, and so the
	// largest Age without a fault; default 10 s.
	WaitTime time.Duration
	// MinInterval is the least time between two queries, for a service whose
	// catalog entry changes all the time; default 100 ms.
	MinInterval time.Duration
	// MaxBackoff bounds the pause after an error; default 2 s, so that an agent
	// that is back is noticed soon.
	MaxBackoff time.Duration
	// OnError gets the error of every failed query, from the watch's goroutine.
	OnError func(error)
	// Log gets a line when the catalog is lost and one when it is back.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.EmptyAfter, 5*time.Second)
	def(&o.WaitTime, 10*time.Second)
	def(&o.MinInterval, 100*time.Millisecond)
	def(&o.MaxBackoff, 2*time.Second)
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Watcher follows the instances of one service. Its fields belong to the
// goroutine in Run, except the atomic one.
type Watcher struct {
	catalog Catalog
	service string
	opts    Options

	success atomic.Int64 // Unix nanoseconds of the last good answer, 0 if none

	index      uint64     // WaitIndex of the next query; 0 does not block
	reported   bool       // fn was called at least once
	rows       int        // of the last answer that was accepted
	last       []Instance // what fn got last
	emptySince time.Time  // when the catalog first answered "none"; zero if the last answer had some
	failures   int        // failed queries in a row
}

// NewWatcher returns a watcher of service; nothing happens before Run.
func NewWatcher(catalog Catalog, service string, opts Options) *Watcher {
	return &Watcher{catalog: catalog, service: service, opts: opts.withDefaults()}
}

// Watch is NewWatcher and Run with the default options.
func Watch(ctx context.Context, catalog Catalog, service string, onlyPassing bool, fn func([]Instance)) error {
	return NewWatcher(catalog, service, Options{OnlyPassing: onlyPassing}).Run(ctx, fn)
}

// Age is how long ago the catalog last answered; ok is false if it never has. Without
// a fault it stays below WaitTime plus a little. Safe from any goroutine.
func (w *Watcher) Age() (age time.Duration, ok bool) {
	at := w.success.Load()
	if at == 0 {
		return 0, false
	}
	return time.Since(time.Unix(0, at)), true
}

// Run calls fn with the instances, ordered by ID, at the catalog's first answer
// (also when there are none) and then whenever they changed. After an error it
// asks again and keeps its list. fn is called from this goroutine and should
// not block; it may keep the slice. Run returns nil once ctx ended; it is
// called once.
func (w *Watcher) Run(ctx context.Context, fn func([]Instance)) error {
	for ctx.Err() == nil && retry.Sleep(ctx, w.turn(ctx, fn)) {
	}
	return nil
}

// List asks once for the instances of a service that pass their checks.
func List(ctx context.Context, catalog Catalog, service string) ([]Instance, error) {
	list, _, err := catalog.Query(ctx, service, 0, 0)
	if err != nil {
		return nil, err
	}
	return passing(sorted(list)), nil
}

// turn queries once and returns how long to pause.
func (w *Watcher) turn(ctx context.Context, fn func([]Instance)) time.Duration {
	asked := time.Now()
	list, err := w.query(ctx)
	switch {
	case ctx.Err() != nil:
		return 0 // err, if any, is about that
	case err != nil:
		return w.failed(err)
	case w.accept(list, time.Now()):
		fn(slices.Clone(w.last))
	}
	return w.opts.MinInterval - time.Since(asked)
}

// query asks once, for as long as nothing changes or a decision is due.
func (w *Watcher) query(ctx context.Context) ([]Instance, error) {
	wait := w.opts.WaitTime
	if !w.emptySince.IsZero() {
		wait = min(wait, max(w.opts.EmptyAfter-time.Since(w.emptySince), time.Millisecond))
	}
	list, index, err := w.catalog.Query(ctx, w.service, w.index, wait)
	if err != nil {
		return nil, err
	}
	switch {
	case index < w.index:
		w.index = 0 // the catalog restarted or was restored: start over
	case index == 0:
		w.index = 1 // 0 would never block
	default:
		w.index = index
	}
	return sorted(list), nil
}

// accept takes in an answer and says whether there is something to report.
func (w *Watcher) accept(list []Instance, now time.Time) bool {
	w.success.Store(now.UnixNano())
	if w.failures > 0 {
		w.opts.Log.Info("the catalog is back", "catalog", w.catalog, "service", w.service)
		w.failures = 0
	}
	if len(list) > 0 {
		w.emptySince = time.Time{}
	} else if w.reported && w.rows > 0 {
		if w.emptySince.IsZero() {
			w.emptySince = now
		}
		if now.Sub(w.emptySince) < w.opts.EmptyAfter {
			return false
		}
		w.emptySince = time.Time{}
	}
	w.rows = len(list)
	if w.opts.OnlyPassing {
		list = passing(list)
	}
	if w.reported && slices.EqualFunc(list, w.last, Instance.equal) {
		return false
	}
	w.reported, w.last = true, list
	return true
}

// failed takes in an error and returns how long to pause.
func (w *Watcher) failed(err error) time.Duration {
	if w.failures == 0 {
		w.opts.Log.Warn("the catalog does not answer", "catalog", w.catalog, "service", w.service, "err", err)
	}
	w.failures++
	w.opts.OnError(err)
	w.index = 0                // the agent that answers next may count differently
	w.emptySince = time.Time{} // "none" has to be said without an error between
	return retry.Policy{Min: w.opts.MinInterval, Max: w.opts.MaxBackoff}.After(w.failures)
}
