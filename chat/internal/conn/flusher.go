package conn

import (
	"context"
	"runtime"
)

// maxFlushing outboxes wait for their turn. Beyond it each gets a goroutine of
// its own, as those do whose client is slow.
const maxFlushing = 4096

// flusher writes what was queued for many connections from few goroutines. What
// is queued for a connection until its turn comes leaves in one write, and no
// write, the largest part of what a message costs, needs a new goroutine.
type flusher struct {
	ctx context.Context
	due chan *outbox
}

// newFlusher starts the goroutines, which end with ctx.
func newFlusher(ctx context.Context) *flusher {
	f := &flusher{ctx: ctx, due: make(chan *outbox, maxFlushing)}
	for range runtime.GOMAXPROCS(0) {
		go f.run()
	}
	return f
}

// add gives an outbox its turn, now that something is queued and nobody writes
// it. It does not block.
func (f *flusher) add(o *outbox) {
	if o.raw != nil && f.ctx.Err() == nil {
		select {
		case f.due <- o:
			return
		default:
		}
	}
	go o.write()
}

func (f *flusher) run() {
	a := newAttempt()
	for {
		select {
		case o := <-f.due:
			// Whoever is ready to run goes first: they may have more for this
			// connection. On an idle machine nobody is, and this costs nothing.
			runtime.Gosched()
			o.flush(a)
			for range len(f.due) { // the others take of these as well
				select {
				case o := <-f.due:
					o.flush(a)
				default:
				}
			}
		case <-f.ctx.Done():
			f.stop()
			return
		}
	}
}

// stop leaves what is due to goroutines of their own.
func (f *flusher) stop() {
	for {
		select {
		case o := <-f.due:
			go o.write()
		default:
			return
		}
	}
}
