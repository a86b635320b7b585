package service

import (
	"context"
	"math"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// snapshotEvery is how often a watched fleet is compared with the last
	// snapshot, and so the least time between two that are sent.
	snapshotEvery = time.Second
	// keepAlive is the longest time without a snapshot, so that a watcher can
	// tell a fleet without changes from a lost replica.
	keepAlive = 5 * time.Second
	// maxWatchers bounds the watches of operators and their browsers.
	maxWatchers = 256
)

// feed makes snapshots of the fleet, one for all watchers.
type feed struct {
	snapshot func() *statusv1.FleetResponse

	mu sync.Mutex // owns the fields below
	// watchers each have at most one snapshot waiting, the newest.
	watchers map[chan *statusv1.FleetResponse]struct{}
	last     *statusv1.FleetResponse
	lastAt   time.Time
}

// subscribe returns a channel of snapshots, the first one at once, and how to end
// it. CodeExhausted: too many watch.
func (f *feed) subscribe() (snapshots <-chan *statusv1.FleetResponse, stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers) >= maxWatchers {
		return nil, nil, errs.New(errs.CodeExhausted, "the fleet has %d watches already", maxWatchers).Retry(keepAlive)
	}
	ch := make(chan *statusv1.FleetResponse, 1)
	ch <- f.snapshot()
	f.watchers[ch] = struct{}{}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, ch)
	}, nil
}

// run makes snapshots while there are watchers, until ctx ends.
func (f *feed) run(ctx context.Context) error {
	ticker := time.NewTicker(snapshotEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			f.turn(now)
		}
	}
}

// turn sends a snapshot to all watchers, if the fleet changed.
func (f *feed) turn(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers) == 0 {
		f.last = nil
		return
	}
	next := f.snapshot()
	if f.last != nil && now.Sub(f.lastAt) < keepAlive && proto.Equal(ageless(f.last), ageless(next)) {
		return
	}
	f.last, f.lastAt = next, now
	for ch := range f.watchers {
		select {
		case <-ch:
		default:
		}
		ch <- next // does not block: only this goroutine and subscribe send, under the lock
	}
}

// ageless is a snapshot without what changes with the time alone.
func ageless(f *statusv1.FleetResponse) *statusv1.FleetResponse {
	f = proto.CloneOf(f)
	f.CatalogAgeMs = min(f.GetCatalogAgeMs(), 0)
	f.AssignRate = math.Round(10 * f.GetAssignRate())
	for _, s := range f.GetServers() {
		s.ReportAgeMs = 0
	}
	return f
}
