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
	// lookEvery is how often a watched fleet is looked at, and so the least time
	// between two of its pictures.
	lookEvery = time.Second
	// signOfLife is the longest time without one, so that a watcher can tell
	// quiet from lost.
	signOfLife = 5 * time.Second
	// maxWatchers bounds those who watch: operators and their browsers.
	maxWatchers = 256
)

// feed makes one picture of the fleet for all who watch it.
type feed struct {
	look func() *statusv1.FleetResponse

	mu sync.Mutex // owns the fields below
	// watchers each have one picture waiting at most, the newest.
	watchers map[chan *statusv1.FleetResponse]struct{}
	last     *statusv1.FleetResponse
	lastAt   time.Time
}

// subscribe returns where pictures arrive, the first one at once, and how to end
// it. CodeExhausted: too many watch.
func (f *feed) subscribe() (news <-chan *statusv1.FleetResponse, stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers) >= maxWatchers {
		return nil, nil, errs.New(errs.CodeExhausted, "%d watch the fleet already", maxWatchers).Retry(signOfLife)
	}
	ch := make(chan *statusv1.FleetResponse, 1)
	ch <- f.look()
	f.watchers[ch] = struct{}{}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, ch)
	}, nil
}

// run looks at the fleet while somebody watches, until ctx ends.
func (f *feed) run(ctx context.Context) error {
	ticker := time.NewTicker(lookEvery)
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

// turn shows everybody a new picture, if there is one.
func (f *feed) turn(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers) == 0 {
		f.last = nil
		return
	}
	next := f.look()
	if f.last != nil && now.Sub(f.lastAt) < signOfLife && proto.Equal(ageless(f.last), ageless(next)) {
		return
	}
	f.last, f.lastAt = next, now
	for ch := range f.watchers {
		select {
		case <-ch:
		default:
		}
		ch <- next // there is room: only this goroutine and subscribe fill it, under the lock
	}
}

// ageless is a picture without what changes by the mere passing of time.
func ageless(f *statusv1.FleetResponse) *statusv1.FleetResponse {
	f = proto.CloneOf(f)
	f.CatalogAgeMs = min(f.GetCatalogAgeMs(), 0)
	f.AssignRate = math.Round(10 * f.GetAssignRate())
	for _, s := range f.GetServers() {
		s.ReportAgeMs = 0
	}
	return f
}
