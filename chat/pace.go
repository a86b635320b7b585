package chat

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
)

// leavers are the other chat servers that left the catalog a moment ago. In an
// upgrade all old servers leave together; each then asks only its part of the
// fleet's rate of connections to come back elsewhere. The mutex owns the fields
// below it.
type leavers struct {
	own string

	mu     sync.Mutex
	listed map[string]bool
	left   map[string]time.Time
}

func newLeavers(own string) *leavers {
	return &leavers{own: own, listed: map[string]bool{}, left: map[string]time.Time{}}
}

// beside hands a watched catalog on and keeps an eye on it.
func (l *leavers) beside(watch func(context.Context, func([]discovery.Instance)) error) func(context.Context, func([]discovery.Instance)) error {
	return func(ctx context.Context, fn func([]discovery.Instance)) error {
		return watch(ctx, func(list []discovery.Instance) {
			l.set(list, time.Now())
			fn(list)
		})
	}
}

func (l *leavers) set(list []discovery.Instance, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	listed := make(map[string]bool, len(list))
	for _, i := range list {
		if i.ID != l.own {
			listed[i.ID] = true
			delete(l.left, i.ID)
		}
	}
	for id := range l.listed {
		if !listed[id] {
			l.left[id] = now
		}
	}
	l.listed = listed
}

// since counts those that left within the last d, and forgets the others.
func (l *leavers) since(d time.Duration, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range l.left {
		if now.Sub(at) > d {
			delete(l.left, id)
		}
	}
	return len(l.left)
}

// pace is the plan of one drain: how many of total connections are asked by when.
type pace struct {
	total int
	limit time.Duration // all are asked by then
	asked int
	due   float64
	// hurried says that the limit asked for more than the rate allows.
	hurried bool
}

// next returns how many more are to be asked at a time after the start, when the
// last step took so long and this server's share of the rate is share
// connections a second.
func (p *pace) next(elapsed, step time.Duration, share float64) int {
	p.due += share * step.Seconds()
	upTo := int(math.Ceil(p.due))
	if least := int(math.Ceil(float64(p.total) * elapsed.Seconds() / max(p.limit, step).Seconds())); least > upTo {
		upTo, p.hurried = least, true
	}
	n := max(min(upTo, p.total)-p.asked, 0)
	p.asked += n
	return n
}
