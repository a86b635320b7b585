package peer

import (
	"context"
	"sync"
)

// door counts who is inside, until it is closed and the last one has left. Its
// mutex owns the fields, except that anybody may wait for empty.
type door struct {
	mu     sync.Mutex
	inside int
	closed bool
	empty  chan struct{} // closed when the door is closed and nobody is inside
}

func newDoor() *door { return &door{empty: make(chan struct{})} }

// enter says whether the door is open; who entered must leave.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.inside++
	return true
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside--; d.inside == 0 && d.closed {
		close(d.empty)
	}
}

// close lets nobody in any more and waits until all have left or ctx ends. It
// may be called again.
func (d *door) close(ctx context.Context) {
	d.mu.Lock()
	if !d.closed && d.inside == 0 {
		close(d.empty)
	}
	d.closed = true
	d.mu.Unlock()
	select {
	case <-d.empty:
	case <-ctx.Done():
	}
}
