package conn

import (
	"context"
	"runtime"
)

// maxFlushing write queues wait for a flusher. Beyond it each gets a goroutine of
// its own.
const maxFlushing = 4096

// flusher writes what was queued for many connections from few goroutines. What
// is queued for a connection while it waits for its turn leaves in one write, and
// no write needs a new goroutine. Writes are the largest part of what a message
// costs.
type flusher struct {
	ctx context.Context
	due chan *writeQueue
}

// newFlusher starts the goroutines, which end with ctx.
func newFlusher(ctx context.Context) *flusher {
	f := &flusher{ctx: ctx, due: make(chan *writeQueue, maxFlushing)}
	for range runtime.GOMAXPROCS(0) {
		go f.run()
	}
	return f
}

// add schedules a queue that has something to write and no writer. It does not
// block.
func (f *flusher) add(q *writeQueue) {
	if q.raw != nil && f.ctx.Err() == nil {
		select {
		case f.due <- q:
			return
		default:
		}
	}
	go q.write()
}

func (f *flusher) run() {
	a := newAttempt()
	for {
		select {
		case q := <-f.due:
			// Goroutines that are ready go first: they may have more for this
			// connection. On an idle machine there are none, and this costs nothing.
			runtime.Gosched()
			q.flush(a)
			for range len(f.due) { // the other flushers take of these as well
				select {
				case q := <-f.due:
					q.flush(a)
				default:
				}
			}
		case <-f.ctx.Done():
			f.stop()
			return
		}
	}
}

// stop starts a goroutine for each queue that still waits.
func (f *flusher) stop() {
	for {
		select {
		case q := <-f.due:
			go q.write()
		default:
			return
		}
	}
}
