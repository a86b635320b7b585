package conn

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of what waits for slow readers.
const (
	// maxQueued is how many bytes may wait for one: some thousand messages, or a
	// page of the longest ones. Beyond it the connection is dropped; its client
	// comes back and pulls what it missed.
	maxQueued = 1 << 20
	// maxQueuedTogether is how many may wait for all of them, above the calm that
	// each may have. Beyond it whoever is behind and wants more than the calm is
	// dropped.
	maxQueuedTogether = 256 << 20
	calm              = 64 << 10
)

const (
	// writeTimeout is how long a client may take nothing, which is less than a
	// chunk.
	writeTimeout = 10 * time.Second
	chunk        = 16 << 10
	// kernelBuffer bounds what the kernel keeps for a slow reader, and with it how
	// much such a one must read before the next chunk finds room.
	kernelBuffer = 64 << 10
)

// queues is what the outboxes of a server share.
type queues struct {
	// most is how many bytes may wait above the calm, waiting how many do.
	most    int64
	waiting atomic.Int64
	timeout time.Duration
	flusher *flusher
}

// buffers lends queue space, so that an idle connection holds none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps a buffer that grew for one burst from staying large.
const maxPooled = 64 << 10

func release(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// outbox is the outgoing side of a connection: a bounded queue of bytes and at
// most one goroutine that writes them: a flusher's, or one of its own while the
// client takes its time. The mutex owns all fields but the first three, which do
// not change.
type outbox struct {
	nc     net.Conn
	raw    syscall.RawConn // nil where a write cannot but wait
	shared *queues

	mu      sync.Mutex
	queued  *[]byte // lent; nil while empty
	above   int     // how much of queued is above the calm, and so counted
	writing bool
	state   state
	// done is called once, after the last byte was written or lost.
	done func()
}

type state uint8

const (
	open state = iota
	// closing: nothing more is taken, what is queued is still written.
	closing
	// closed: the socket is gone.
	closed
)

// push queues frames and reports whether there was room. On a connection that
// closes they are dropped, which is no lack of room.
func (o *outbox) push(frames []byte) (room bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != open {
		return true
	}
	return o.queue(frames)
}

// ending says that the last frames were queued.
func (o *outbox) ending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state != open
}

func (o *outbox) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state == closed
}

// whileLocked calls fn with a state that does not change meanwhile.
func (o *outbox) whileLocked(fn func(state)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn(o.state)
}

// last queues the final frames and closes the outgoing side behind them. Where
// there is no room, what waits is dropped for them. false means that the
// connection was ended before.
func (o *outbox) last(frames []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != open {
		return false
	}
	if !o.queue(frames) {
		*o.queued = (*o.queued)[:0]
		o.count(0)
		o.queue(frames)
	}
	o.state = closing
	return true
}

// queue needs the lock.
func (o *outbox) queue(frames []byte) bool {
	if o.queued == nil {
		o.queued = buffers.Get().(*[]byte)
	}
	limit := maxQueued
	if len(*o.queued) > 0 && o.shared.waiting.Load() > o.shared.most {
		limit = calm
	}
	if len(*o.queued)+len(frames) > limit {
		return false
	}
	*o.queued = append(*o.queued, frames...)
	o.count(len(*o.queued))
	if !o.writing {
		o.writing = true
		o.shared.flusher.add(o)
	}
	return true
}

// count notes how much is queued. It needs the lock.
func (o *outbox) count(queued int) {
	above := max(queued-calm, 0)
	if above != o.above {
		o.shared.waiting.Add(int64(above - o.above))
		o.above = above
	}
}

// write writes what is queued, all that waits at a time, until nothing is left.
// It waits for the client.
func (o *outbox) write() {
	for batch, above := o.take(); batch != nil; batch, above = o.take() {
		o.written(batch, above, o.send(*batch))
	}
}

// flush writes what is queued without waiting. A client that does not take it at
// once gets a goroutine of its own; what was queued meanwhile gets its turn.
func (o *outbox) flush(a *attempt) {
	batch, above := o.take()
	if batch == nil {
		return
	}
	n, err := a.write(o.raw, *batch)
	if err == nil && n < len(*batch) {
		go func() {
			o.written(batch, above, o.send((*batch)[n:]))
			o.write()
		}()
		return
	}
	o.written(batch, above, err)
	o.mu.Lock()
	more := o.queued != nil || o.state == closing
	o.writing = more
	o.mu.Unlock()
	if more {
		o.shared.flusher.add(o)
	}
}

// take removes what is queued. Where nothing is, it returns nil, and whoever
// wrote is done; after the last frames that ends the outgoing side.
func (o *outbox) take() (batch *[]byte, above int) {
	o.mu.Lock()
	batch, above = o.queued, o.above
	o.queued, o.above = nil, 0 // it is counted until it is written
	o.writing = batch != nil
	finish := batch == nil && o.state == closing
	if finish {
		o.state = closed
	}
	o.mu.Unlock()
	if finish {
		o.done()
	}
	return batch, above
}

// written gives back what was lent for a batch; an error ends the connection.
func (o *outbox) written(batch *[]byte, above int, err error) {
	release(batch)
	o.shared.waiting.Add(-int64(above))
	if err != nil {
		o.fail()
	}
}

// send writes in chunks, so that a client is given up when it does not read, and
// not when it takes its time over a long page.
func (o *outbox) send(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), chunk)
		if err := o.nc.SetWriteDeadline(time.Now().Add(o.shared.timeout)); err != nil {
			return err
		}
		if _, err := o.nc.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return o.nc.SetWriteDeadline(time.Time{}) // a flusher's write must not find it over
}

// fail closes at once; what is queued is lost.
func (o *outbox) fail() {
	o.mu.Lock()
	was := o.state
	o.state = closed
	if o.queued != nil {
		release(o.queued)
		o.queued = nil
		o.count(0)
	}
	o.mu.Unlock()
	if was != closed {
		_ = o.nc.Close()
		o.done()
	}
}
