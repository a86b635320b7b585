package conn

import (
	"net"
	"sync"
	"time"
)

// maxQueued is how many bytes may wait for a slow reader: some thousand
// messages, or a page of the longest ones. Beyond it the connection is dropped;
// its client comes back and pulls what it missed.
const maxQueued = 1 << 20

// writeTimeout is how long one write may make no progress.
const writeTimeout = 10 * time.Second

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
// most one goroutine that writes them, which exists only while there is
// something to write. The mutex owns all fields.
type outbox struct {
	mu      sync.Mutex
	nc      net.Conn
	queued  *[]byte // lent; nil while empty
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
	if len(*o.queued)+len(frames) > maxQueued {
		return false
	}
	*o.queued = append(*o.queued, frames...)
	if !o.writing {
		o.writing = true
		go o.write()
	}
	return true
}

// write writes what is queued, all that waits at a time, until nothing is left.
func (o *outbox) write() {
	for {
		o.mu.Lock()
		batch := o.queued
		o.queued = nil
		if batch == nil || o.state == closed {
			o.writing = false
			finish := o.state == closing
			if finish {
				o.state = closed
			}
			o.mu.Unlock()
			if finish {
				o.done()
			}
			return
		}
		o.mu.Unlock()
		err := o.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = o.nc.Write(*batch)
		}
		release(batch)
		if err != nil {
			o.fail()
		}
	}
}

// fail closes at once; what is queued is lost.
func (o *outbox) fail() {
	o.mu.Lock()
	was := o.state
	o.state = closed
	if o.queued != nil {
		release(o.queued)
		o.queued = nil
	}
	o.mu.Unlock()
	if was != closed {
		_ = o.nc.Close()
		o.done()
	}
}
