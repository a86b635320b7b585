// Package allowance bounds how much each user may ask for in the long run: a number of
// units at once, and then one after the other.
package allowance

import (
	"sync"
	"time"
)

// MaxUsers are remembered. Beyond it everybody begins anew.
const MaxUsers = 10_000

// Allowance counts for each user, on this server. Its methods may be called from any
// goroutine. Its mutex owns the map.
type Allowance struct {
	most  int
	every time.Duration
	now   func() time.Time

	mu sync.Mutex
	// free says when a user's whole allowance is free again; each unit takes every.
	free map[uint64]time.Time
}

// New returns an allowance of most units, of which one comes back every so often.
func New(most int, every time.Duration) *Allowance {
	return &Allowance{most: most, every: every, now: time.Now, free: make(map[uint64]time.Time)}
}

// Take takes units, if there is at least one. If not it says how long it takes until
// there is, and takes nothing.
func (a *Allowance) Take(user uint64, units int) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	free, known := a.free[user]
	if free.Before(now) {
		free = now
	}
	if wait := free.Sub(now) - time.Duration(a.most-1)*a.every; wait > 0 {
		return wait
	}
	if !known && len(a.free) >= MaxUsers {
		a.forget(now)
	}
	a.free[user] = free.Add(time.Duration(units) * a.every)
	return 0
}

// Add gives units back, or takes some that are known only now if it is negative.
func (a *Allowance) Add(user uint64, units int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if free, ok := a.free[user]; ok {
		a.free[user] = free.Add(-time.Duration(units) * a.every)
	}
}

// forget makes room: it removes the users whose allowance is free, or all. It needs the
// lock.
func (a *Allowance) forget(now time.Time) {
	for user, free := range a.free {
		if free.Before(now) {
			delete(a.free, user)
		}
	}
	if len(a.free) >= MaxUsers {
		clear(a.free)
	}
}
