package conn

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/chat/internal/budget"
)

// Bounds of what waits for slow readers.
const (
	// maxQueued is how many bytes may wait for one connection: some thousand
	// messages, or a page of the longest ones. Beyond it the connection is dropped;
	// its client comes back and pulls what it missed.
	maxQueued = 1 << 20
	// freeQueued bytes of a queue do not count in the budget of all connections, and of
	// what is being written as many: most queues are never longer.
	freeQueued = 2 << 10
	// maxControl is how much tls.Conn may write by itself while the client reads nothing: a
	// client could ask for new keys without end.
	maxControl = 4 << 10
	// maxUnread is how much may wait for a client until its next page is read for it: a
	// client that reads none of its pages gets no more of them.
	maxUnread = 64 << 10
)

const (
	// writeTimeout is how long a client may take to read one chunk, and up to a half more:
	// thousands that stopped reading together must not all end, and come back, at the same
	// moment.
	writeTimeout = 10 * time.Second
	chunk        = 16 << 10
	// kernelBuffer bounds what the kernel keeps for a slow reader, and so how much
	// that reader must read before the next chunk finds room.
	kernelBuffer = 64 << 10
)

// queueGroup is what the write queues of a server share. It does not change.
type queueGroup struct {
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
// the client reads slowly. The mutex owns the fields below it; those above do not
// change once frames are queued.
type writeQueue struct {
	nc     net.Conn
	raw    syscall.RawConn // nil where every write may block
	shared *queueGroup
	seal   *seal         // nil without TLS
	share  *budget.Share // nil until the client is admitted
	// done is called once, after the last byte was written or lost.
	done func()

	mu      sync.Mutex
	queued  *[]byte // borrowed; nil while empty
	records *[]byte // what tls.Conn made of it, not yet written; borrowed, nil while empty
	sealing bool    // the writer has tls.Conn make records of frames
	counted int     // how much of queued is taken from the budget
	unread  int     // bytes that are queued or being written
	read    chan struct{}
	writing bool
	slow    bool // the writer has a goroutine of its own
	state   state
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
	if q.state != open || len(frames) == 0 {
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
		if q.queued != nil {
			q.unread -= len(*q.queued)
			*q.queued = (*q.queued)[:0]
			q.count(0)
		}
		q.add(frames) // a Goodbye is shorter than what does not count
	}
	q.state = closing
	return true
}

// add needs the lock.
func (q *writeQueue) add(frames []byte) bool {
	have := 0
	if q.queued != nil {
		have = len(*q.queued)
	}
	if have+len(frames) > maxQueued || !q.count(have+len(frames)) {
		return false
	}
	if q.queued == nil {
		if q.slow { // a lent one may be much larger than what waits
			q.queued = new([]byte)
		} else {
			q.queued = buffers.Get().(*[]byte)
		}
	}
	*q.queued = append(*q.queued, frames...)
	q.unread += len(frames)
	q.schedule()
	return true
}

// schedule makes sure that what is queued will be written. It needs the lock.
func (q *writeQueue) schedule() {
	if !q.writing {
		q.writing = true
		q.shared.flusher.add(q)
	}
}

// count takes from the budget what so many queued bytes need; false means that there
// is no room. It needs the lock.
func (q *writeQueue) count(queued int) bool {
	counted := max(queued-freeQueued, 0)
	more := counted - q.counted
	switch {
	case q.share == nil || more == 0:
		return true
	case more < 0:
		q.share.Give(-more)
	case !q.share.Take(more):
		return false
	}
	q.counted = counted
	return true
}

// record queues a record of TLS behind those before it.
func (q *writeQueue) record(b []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == closed {
		return net.ErrClosed
	}
	if q.records == nil {
		if q.slow {
			q.records = new([]byte)
		} else {
			q.records = buffers.Get().(*[]byte)
		}
	}
	if !q.sealing && len(*q.records)+len(b) > maxControl {
		return errNoRoom
	}
	*q.records = append(*q.records, b...)
	q.schedule() // where tls.Conn writes by itself, to renew a key
	return nil
}

// batch is what is written at a time.
type batch struct {
	bytes   *[]byte // borrowed
	counted int     // of the budget
	unread  int     // bytes of frames
}

// write writes what is queued, all that waits at a time, until nothing is left. It
// blocks while the client does not read.
func (q *writeQueue) write() {
	for {
		b, err := q.next()
		if b.bytes == nil {
			return
		}
		if err == nil {
			err = q.send(*b.bytes)
		}
		q.written(b, err)
	}
}

// flush writes what is queued without blocking. If the kernel does not take all of
// it, a goroutine of its own writes the rest. What was queued meanwhile waits for a
// flusher again.
func (q *writeQueue) flush(a *attempt) {
	b, err := q.next()
	if b.bytes == nil {
		return
	}
	n := 0
	if err == nil {
		n, err = a.write(q.raw, *b.bytes)
	}
	if err == nil && n < len(*b.bytes) {
		rest := append([]byte(nil), (*b.bytes)[n:]...) // a lent buffer may be much larger
		release(b.bytes)
		b.bytes = &rest
		go q.writeRest(b)
		return
	}
	q.written(b, err)
	q.mu.Lock()
	q.writing = q.queued != nil || q.records != nil || q.state == closing
	more := q.writing
	q.mu.Unlock()
	if more {
		q.shared.flusher.add(q)
	}
}

// writeRest writes for a client that reads slowly, until nothing is left.
func (q *writeQueue) writeRest(b batch) {
	q.mu.Lock()
	q.slow = true
	q.mu.Unlock()
	q.written(b, q.send(*b.bytes))
	q.write()
}

// next removes what is queued and makes records of it where there is TLS. If nothing
// is left the caller stops writing; after the last frames it also ends the outgoing
// side.
func (q *writeQueue) next() (batch, error) {
	q.mu.Lock()
	plain, b := q.queued, batch{counted: q.counted}
	if plain != nil {
		b.unread = len(*plain)
	}
	q.queued, q.counted = nil, 0 // it is counted until it is written
	ending := q.state == closing
	q.sealing = q.seal != nil
	q.mu.Unlock()
	if q.seal == nil {
		b.bytes = plain
	} else if err := q.sealed(&b, plain, ending && plain == nil); err != nil {
		return b, err
	}
	if b.bytes == nil {
		if b.counted > 0 { // the connection failed between tls.Conn and here
			q.share.Give(b.counted)
		}
		q.stop()
	}
	return b, nil
}

// sealed makes a batch of what tls.Conn makes of plain, and of what it wrote before.
func (q *writeQueue) sealed(b *batch, plain *[]byte, ending bool) error {
	if plain != nil {
		if _, err := q.seal.tls.Write(*plain); err != nil {
			b.bytes = plain
			return err // the connection ends
		}
		release(plain)
	}
	if ending {
		_ = q.seal.tls.CloseWrite() // once; it fails on a broken connection, which ends anyway
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	b.bytes, q.records, q.sealing = q.records, nil, false
	return nil
}

// stop ends the writing if nothing was queued meanwhile.
func (q *writeQueue) stop() {
	q.mu.Lock()
	if q.queued != nil || q.records != nil {
		q.mu.Unlock()
		q.shared.flusher.add(q)
		return
	}
	q.writing, q.slow = false, false
	finish := q.state == closing
	if finish {
		q.state = closed
	}
	q.mu.Unlock()
	if finish {
		q.done()
	}
}

// written gives back the buffer of a batch; an error ends the connection.
func (q *writeQueue) written(b batch, err error) {
	release(b.bytes)
	if b.counted > 0 {
		q.share.Give(b.counted)
	}
	q.mu.Lock()
	q.unread -= b.unread
	if q.read != nil && q.unread <= maxUnread {
		close(q.read)
		q.read = nil
	}
	q.mu.Unlock()
	if err != nil {
		q.fail()
	}
}

// waitRead waits until the client has read so much that at most maxUnread bytes wait
// for it, or the connection or ctx has ended.
func (q *writeQueue) waitRead(ctx context.Context) error {
	q.mu.Lock()
	if q.unread <= maxUnread || q.state == closed {
		q.mu.Unlock()
		return nil
	}
	if q.read == nil {
		q.read = make(chan struct{})
	}
	read := q.read
	q.mu.Unlock()
	select {
	case <-read:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send writes in chunks, each with a deadline of its own: a client that does not
// read is dropped, and one that reads a long page slowly is not.
func (q *writeQueue) send(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), chunk)
		limit := q.shared.timeout + rand.N(q.shared.timeout/2)
		if err := q.nc.SetWriteDeadline(time.Now().Add(limit)); err != nil {
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
		q.unread -= len(*q.queued)
		release(q.queued)
		q.queued = nil
		q.count(0)
	}
	if q.records != nil {
		release(q.records)
		q.records = nil
	}
	if q.read != nil {
		close(q.read)
		q.read = nil
	}
	q.mu.Unlock()
	if was != closed {
		_ = q.nc.Close()
		q.done()
	}
}
