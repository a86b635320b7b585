// Package fair lets a bounded number of callers work at a time. Those who wait are
// called in a fair order: first those with a preferred key that had few turns lately, then
// the one whose key had the fewest. So a crowd with one key, or with many that come again and
// again, delays nobody who comes for the first time.
package fair

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrFull: too many wait, and all of them are called before.
var ErrFull = errors.New("too many are waiting")

const (
	// halfLife is how long a turn counts in full. After that it counts half, and so on.
	halfLife = time.Minute
	// preferredTurns is how many turns a preferred key may have had lately to go first:
	// who comes again and again waits like all others.
	preferredTurns = 8
	// maxRemembered keys without anybody waiting have their turns remembered. Beyond
	// it these are forgotten, and the order is the one of arrival until they count again.
	maxRemembered = 10_000
)

// Queue is the line. Its methods may be called from any goroutine. Its mutex owns the
// fields that change.
type Queue[K comparable] struct {
	atOnce, mostWaiting, mostPerKey int
	preferred                       func(K) bool
	now                             func() time.Time

	mu      sync.Mutex
	working int
	waiting int
	arrived uint64
	keys    map[K]*line[K]
	heads   lines[K] // those in which somebody waits, the next one first
	halved  time.Time
}

// line is what waits with one key, in the order of arrival.
type line[K comparable] struct {
	key     K
	later   bool // not preferred
	turns   uint32
	first   uint64 // when the first of queue arrived
	queue   []*caller
	current int // place in heads, -1 while nobody waits
}

type caller struct {
	arrived uint64
	called  chan bool // true: it is your turn; false: you were sent away
}

// New returns a queue for atOnce callers at a time. Up to mostWaiting more wait, of
// one key up to mostPerKey. preferred tells the keys that go first; it may be nil.
func New[K comparable](atOnce, mostWaiting, mostPerKey int, preferred func(K) bool) *Queue[K] {
	return &Queue[K]{
		atOnce: atOnce, mostWaiting: mostWaiting, mostPerKey: mostPerKey, preferred: preferred,
		now: time.Now, keys: make(map[K]*line[K]), halved: time.Now(),
	}
}

// Turn is the right to work; it is ended once.
type Turn[K comparable] struct {
	queue *Queue[K]
	key   K
}

// Enter waits for a turn. The error is ErrFull or that of ctx.
func (q *Queue[K]) Enter(ctx context.Context, key K) (Turn[K], error) {
	t := Turn[K]{q, key}
	c := q.join(key)
	switch {
	case c == nil:
		return Turn[K]{}, ErrFull
	case c.called == nil:
		return t, nil
	}
	select {
	case mine := <-c.called:
		if !mine {
			return Turn[K]{}, ErrFull
		}
		return t, nil
	case <-ctx.Done():
	}
	if q.leave(key, c) {
		return Turn[K]{}, ctx.Err()
	}
	if <-c.called { // it was called at the same moment
		t.End(false)
	}
	return Turn[K]{}, ctx.Err()
}

// Full says whether Enter would return ErrFull now.
func (q *Queue[K]) Full(key K) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.working >= q.atOnce && q.full(q.line(key))
}

// full says that nobody more can wait in a line.
func (q *Queue[K]) full(l *line[K]) bool {
	return len(l.queue) >= q.mostPerKey || q.waiting >= q.mostWaiting && q.heavier(l) == nil
}

// join returns a caller without a channel when it may work at once, and nil when
// there is no room for it.
func (q *Queue[K]) join(key K) *caller {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fade()
	l := q.line(key)
	if q.working < q.atOnce {
		q.working++
		l.turns++
		return &caller{}
	}
	if q.full(l) {
		return nil
	}
	if q.waiting >= q.mostWaiting {
		q.sendAway(q.heavier(l))
	}
	q.arrived++
	c := &caller{arrived: q.arrived, called: make(chan bool, 1)}
	l.queue = append(l.queue, c)
	q.waiting++
	if len(l.queue) == 1 {
		l.first = c.arrived
		heap.Push(&q.heads, l)
	}
	return c
}

// line returns the line of a key, a new one if there is none.
func (q *Queue[K]) line(key K) *line[K] {
	l, ok := q.keys[key]
	if ok {
		return l
	}
	if len(q.keys)-len(q.heads) >= maxRemembered {
		for k, l := range q.keys {
			if len(l.queue) == 0 {
				delete(q.keys, k)
			}
		}
	}
	l = &line[K]{key: key, later: q.preferred != nil && !q.preferred(key), current: -1}
	q.keys[key] = l
	return l
}

// heavier returns the line that has to make room for l: the one that is called last, if
// it has less right than l, else nil.
func (q *Queue[K]) heavier(l *line[K]) *line[K] {
	worst := l
	for _, other := range q.heads {
		if worst.compare(other) < 0 {
			worst = other
		}
	}
	if worst == l {
		return nil
	}
	return worst
}

// compare orders lines by their right to the next turn.
func (l *line[K]) compare(other *line[K]) int {
	switch mine, others := l.preferred(), other.preferred(); {
	case mine && !others:
		return -1
	case others && !mine:
		return 1
	}
	return cmp.Compare(l.turns, other.turns)
}

func (l *line[K]) preferred() bool { return !l.later && l.turns < preferredTurns }

// sendAway ends the wait of the last one in a line.
func (q *Queue[K]) sendAway(l *line[K]) {
	last := len(l.queue) - 1
	l.queue[last].called <- false
	q.cut(l, last)
}

// leave takes a caller out who does not wait any longer; false means that it was
// called or sent away before.
func (q *Queue[K]) leave(key K, c *caller) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.keys[key]
	if l == nil {
		return false
	}
	for i, other := range l.queue {
		if other == c {
			q.cut(l, i)
			return true
		}
	}
	return false
}

// cut removes one caller from a line.
func (q *Queue[K]) cut(l *line[K], at int) {
	l.queue = append(l.queue[:at], l.queue[at+1:]...)
	q.waiting--
	if len(l.queue) == 0 {
		l.queue = nil
		heap.Remove(&q.heads, l.current)
		return
	}
	l.first = l.queue[0].arrived
	heap.Fix(&q.heads, l.current)
}

// End ends a turn and calls the next one. A turn that is taken back does not count
// against its key.
func (t Turn[K]) End(takeBack bool) {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.keys[t.key]; takeBack && l != nil && l.turns > 0 {
		l.turns--
		if l.current >= 0 {
			heap.Fix(&q.heads, l.current)
		}
	}
	if len(q.heads) == 0 {
		q.working--
		return
	}
	next := q.heads[0]
	next.queue[0].called <- true
	next.turns++
	q.cut(next, 0)
}

// fade halves all turns for each halfLife that has passed.
func (q *Queue[K]) fade() {
	halves := q.now().Sub(q.halved) / halfLife
	if halves < 1 {
		return
	}
	q.halved = q.now()
	for key, l := range q.keys {
		if l.turns >>= min(halves, 31); l.turns == 0 && len(l.queue) == 0 {
			delete(q.keys, key)
		}
	}
	heap.Init(&q.heads)
}

// lines is a heap of lines: the one with the most right first, then the earliest.
type lines[K comparable] []*line[K]

func (h lines[K]) Len() int { return len(h) }

func (h lines[K]) Less(i, j int) bool {
	return cmp.Or(h[i].compare(h[j]), cmp.Compare(h[i].first, h[j].first)) < 0
}

func (h lines[K]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].current, h[j].current = i, j
}

// Push implements heap.Interface.
func (h *lines[K]) Push(x any) {
	l := x.(*line[K])
	l.current = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *lines[K]) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.current = -1
	return l
}
