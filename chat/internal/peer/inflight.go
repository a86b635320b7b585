package peer

import (
	"context"
	"sync"
)

// inflight counts the requests in flight until it is closed and the last one has
// ended. Its mutex owns the fields, except that any goroutine may wait for idle.
type inflight struct {
	mu     sync.Mutex
	count  int
	closed bool
	idle   chan struct{} // closed when closed is set and count is 0
}

func newInflight() *inflight { return &inflight{idle: make(chan struct{})} }

// begin says whether a request may begin. If so, end must follow.
func (f *inflight) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.count++
	return true
}

func (f *inflight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count--; f.count == 0 && f.closed {
		close(f.idle)
	}
}

// close lets no more requests begin and waits until all have ended or ctx ends. It
// may be called again.
func (f *inflight) close(ctx context.Context) {
	f.mu.Lock()
	if !f.closed && f.count == 0 {
		close(f.idle)
	}
	f.closed = true
	f.mu.Unlock()
	select {
	case <-f.idle:
	case <-ctx.Done():
	}
}
