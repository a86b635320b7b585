package limit

import (
	"sync"
	"time"
)

// maxLocal bounds the memory of a Local to a few megabytes.
const maxLocal = 20_000

// Local keeps counts in this process. It is safe for concurrent use; its mutex
// owns the windows.
type Local struct {
	max int
	now func() time.Time

	mu      sync.Mutex
	windows map[string]window
}

type window struct {
	count int
	ends  time.Time
}

// NewLocal returns a Local that keeps at most that many windows; further keys are
// not limited.
func NewLocal(most int, now func() time.Time) *Local {
	return &Local{max: most, now: now, windows: map[string]window{}}
}

// Take counts one event, or returns how long the full window still lasts.
func (l *Local) Take(key string, rule Rule) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	w, ok := l.windows[key]
	if !ok || !now.Before(w.ends) {
		if !ok && len(l.windows) >= l.max && !l.sweep(now) {
			return 0
		}
		w = window{ends: now.Add(rule.Per)}
	}
	if w.count >= rule.Count {
		return w.ends.Sub(now)
	}
	w.count++
	l.windows[key] = w
	return 0
}

// Refund takes back one event.
func (l *Local) Refund(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.windows[key]; w.count > 0 {
		w.count--
		l.windows[key] = w
	}
}

// sweep drops windows that have ended and says whether there is room. The caller
// holds the mutex.
func (l *Local) sweep(now time.Time) bool {
	for key, w := range l.windows {
		if !now.Before(w.ends) {
			delete(l.windows, key)
		}
	}
	return len(l.windows) < l.max
}
