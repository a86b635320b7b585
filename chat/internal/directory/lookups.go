package directory

import (
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

// A person opens conversations with people they know. Somebody who tries names to learn
// which exist, or writes to everybody, is slowed down.
const (
	// maxLookups names that led to nobody or to a new conversation are free: more than a
	// person's contacts, who come at once from a new device.
	maxLookups = 100
	// lookupEvery is how often one more is, after that.
	lookupEvery = 2 * time.Second
	// maxLookingUp users are remembered. Beyond it all may look up anew.
	maxLookingUp = 10_000
)

// lookups counts names for each user, on this server. Its mutex owns the map.
type lookups struct {
	now func() time.Time

	mu sync.Mutex
	// free says when all of a user's look-ups are free again; each takes lookupEvery.
	free map[uint64]time.Time
}

func newLookups() *lookups { return &lookups{now: time.Now, free: make(map[uint64]time.Time)} }

// take counts one look-up; the error says when the next is free.
func (l *lookups) take(user uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	free := l.free[user]
	if free.Before(now) {
		free = now
	}
	if wait := free.Sub(now) - (maxLookups-1)*lookupEvery; wait > 0 {
		return errs.New(errs.CodeRateLimited, "you looked for too many names; wait a moment").Retry(wait)
	}
	if _, ok := l.free[user]; !ok && len(l.free) >= maxLookingUp {
		l.forget(now)
	}
	l.free[user] = free.Add(lookupEvery)
	return nil
}

// giveBack is for a look-up that should not count.
func (l *lookups) giveBack(user uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if free, ok := l.free[user]; ok {
		l.free[user] = free.Add(-lookupEvery)
	}
}

// forget makes room: it removes the users who are free, or all. It needs the lock.
func (l *lookups) forget(now time.Time) {
	for user, free := range l.free {
		if free.Before(now) {
			delete(l.free, user)
		}
	}
	if len(l.free) >= maxLookingUp {
		clear(l.free)
	}
}
