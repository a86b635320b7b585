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
	// maxQueued is how many bytes may wait for one connection: some thousand
	// messages, or a page of the longest ones. Beyond it the connection is dropped;
	// its client comes back and pulls what it missed.
	maxQueued = 1 << 20
	// maxQueuedTogether is how many bytes may wait for all connections, not counting
	// the first softLimit bytes of each. Beyond it a connection that needs more than
	// softLimit is dropped.
	maxQueuedTogether = 256 << 20
	softLimit         = 64 << 10
)

const (
	// writeTimeout is how long a client may take to read one chunk.
	writeTimeout = 10 * time.Second
	chunk        = 16 << 10
	// kernelBuffer bounds what the kernel keeps for a slow reader, and so how much
	// that reader must read before the next chunk finds room.
	kernelBuffer = 64 << 10
)

// queueGroup is what the write queues of a server share.
type queueGroup struct {
	// most bounds waiting, the bytes that wait above the soft limits.
	most    int64
	waiting atomic.Int64
	timeout time.Duration
	flusher *flusher
}

// buffers lends queue space, so that an idle connection holds none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps a buffer that grew for one burst out of the pool.
const maxPooled = 64 << 10

func release(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// writeQueue is the outgoing side of a connection: a bounded queue of bytes and at
// most one goroutine that writes them. That is a flusher's, or one of its own while
// the client reads slowly. The mutex owns all fields but the first three, which do
// not change.
type writeQueue struct {
	nc     net.Conn
	raw    syscall.RawConn // nil where every write may block
	shared *queueGroup

	mu      sync.Mutex
	queued  *[]byte // borrowed; nil while empty
	above   int     // how much of queued is above the soft limit, counted in shared
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
	// closed: the socket is closed.
	closed
)

// push queues frames and reports whether there was room. A connection that closes
// drops them and reports true.
func (q *writeQueue) push(frames []byte) (room bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state != open {
		return true
	}
	return q.add(frames)
}

// ending says that the last frames were queued.
func (q *writeQueue) ending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state != open
}

func (q *writeQueue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state == closed
}

// whileLocked calls fn with the state, which does not change until fn returns.
func (q *writeQueue) whileLocked(fn func(state)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fn(q.state)
}

// last queues the final frames and closes the outgoing side behind them. If there
// is no room, they replace what waits. false means that the connection had ended
// before.
func (q *writeQueue) last(frames []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state != open {
		return false
	}
	if !q.add(frames) {
		*q.queued = (*q.queued)[:0]
		q.count(0)
		q.add(frames)
	}
	q.state = closing
	return true
}

// add needs the lock.
func (q *writeQueue) add(frames []byte) bool {
	if q.queued == nil {
		q.queued = buffers.Get().(*[]byte)
	}
	limit := maxQueued
	if len(*q.queued) > 0 && q.shared.waiting.Load() > q.shared.most {
		limit = softLimit
	}
	if len(*q.queued)+len(frames) > limit {
		return false
	}
	*q.queued = append(*q.queued, frames...)
	q.count(len(*q.queued))
	if !q.writing {
		q.writing = true
		q.shared.flusher.add(q)
	}
	return true
}

// count notes how many bytes are queued. It needs the lock.
func (q *writeQueue) count(queued int) {
	above := max(queued-softLimit, 0)
	if above != q.above {
		q.shared.waiting.Add(int64(above - q.above))
		q.above = above
	}
}

// write writes what is queued, all that waits at a time, until nothing is left. It
// blocks while the client does not read.
func (q *writeQueue) write() {
	for batch, above := q.take(); batch != nil; batch, above = q.take() {
		q.written(batch, above, q.send(*batch))
	}
}

// flush writes what is queued without blocking. If the kernel does not take all of
// it, a goroutine of its own writes the rest. What was queued meanwhile waits for a
// flusher again.
func (q *writeQueue) flush(a *attempt) {
	batch, above := q.take()
	if batch == nil {
		return
	}
	n, err := a.write(q.raw, *batch)
	if err == nil && n < len(*batch) {
		go func() {
			q.written(batch, above, q.send((*batch)[n:]))
			q.write()
		}()
		return
	}
	q.written(batch, above, err)
	q.mu.Lock()
	more := q.queued != nil || q.state == closing
	q.writing = more
	q.mu.Unlock()
	if more {
		q.shared.flusher.add(q)
	}
}

// take removes what is queued. If nothing is, it returns nil and the caller stops
// writing; after the last frames it also ends the outgoing side.
func (q *writeQueue) take() (batch *[]byte, above int) {
	q.mu.Lock()
	batch, above = q.queued, q.above
	q.queued, q.above = nil, 0 // it is counted until it is written
	q.writing = batch != nil
	finish := batch == nil && q.state == closing
	if finish {
		q.state = closed
	}
	q.mu.Unlock()
	if finish {
		q.done()
	}
	return batch, above
}

// written gives back the buffer of a batch; an error ends the connection.
func (q *writeQueue) written(batch *[]byte, above int, err error) {
	release(batch)
	q.shared.waiting.Add(-int64(above))
	if err != nil {
		q.fail()
	}
}

// send writes in chunks, each with a deadline of its own: a client that does not
// read is dropped, and one that reads a long page slowly is not.
func (q *writeQueue) send(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), chunk)
		if err := q.nc.SetWriteDeadline(time.Now().Add(q.shared.timeout)); err != nil {
			return err
		}
		if _, err := q.nc.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return q.nc.SetWriteDeadline(time.Time{}) // or a flusher's write would fail later
}

// fail closes at once; what is queued is lost.
func (q *writeQueue) fail() {
	q.mu.Lock()
	was := q.state
	q.state = closed
	if q.queued != nil {
		release(q.queued)
		q.queued = nil
		q.count(0)
	}
	q.mu.Unlock()
	if was != closed {
		_ = q.nc.Close()
		q.done()
	}
}
