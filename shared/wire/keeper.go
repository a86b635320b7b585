package wire

import (
	"fmt"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// ping is the frame, encoded.
var ping = func() []byte {
	b, err := frame.Append(nil, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	if err != nil {
		panic(err) // a frame without strings can always be encoded
	}
	return b
}()

// started is where clock begins.
var started = time.Now()

// clock is a time that does not jump, in nanoseconds, never 0.
func clock() int64 { return int64(time.Since(started)) + 1 }

// check is to be called twice a heartbeat. It pings when nothing was written
// since it was called last, so that the server gets something once a heartbeat,
// and when the server has been silent for one: a server that holds sends while its
// database does not answer sends nothing but Pongs. After two it ends the
// connection. It returns how much longer the server may be silent.
func (c *Conn) check() (left time.Duration) {
	var silent time.Duration
	if since := c.waiting.Load(); since != 0 {
		silent = time.Duration(clock() - since)
	}
	if left = 2*c.heartbeat - silent; left < 0 {
		_ = c.Fail(fmt.Errorf("%w for %v", ErrSilent, silent.Round(time.Millisecond)))
		return 0
	}
	due := !c.wrote.Swap(false) || silent >= c.heartbeat
	if due && c.writing.TryLock() { // where a write goes on, that is enough
		defer c.writing.Unlock()
		c.wrote.Store(true)
		_ = c.write(ping, pingTimeout) // an error ends Serve
	}
	return left
}

// keepAlive has somebody call check.
func (c *Conn) keepAlive(k *Keeper) {
	if k != nil {
		k.add(c)
		return
	}
	c.timer = time.AfterFunc(maxHeartbeat, func() {
		left := c.check()
		if c.cause.Load() == nil {
			c.timer.Reset(min(c.heartbeat/2, max(left, time.Millisecond)))
		}
	})
	c.timer.Reset(c.heartbeat / 2) // not above: the function needs the field
}

func (c *Conn) stopPings() {
	switch {
	case c.keeper != nil:
		c.keeper.remove(c)
	case c.timer != nil:
		c.timer.Stop() // the function, if it runs now, runs once more at most
	}
}

// slots spread the pings: each round one slot's connections are checked.
const slots = 64

// Keeper checks the connections of many by one goroutine, so that an idle one
// needs no timer. The mutex owns the fields below it.
type Keeper struct {
	stop, done chan struct{}
	shorter    chan struct{} // holds one: heartbeat fell

	mu        sync.Mutex
	conns     [slots]map[*Conn]struct{}
	next      int32         // the slot that gets the next connection
	heartbeat time.Duration // the shortest of all connections so far
}

// NewKeeper returns a keeper that works until Close.
func NewKeeper() *Keeper {
	k := &Keeper{
		stop: make(chan struct{}), done: make(chan struct{}), shorter: make(chan struct{}, 1), heartbeat: maxHeartbeat,
	}
	for i := range k.conns {
		k.conns[i] = make(map[*Conn]struct{})
	}
	go k.run()
	return k
}

// Close ends the goroutine and waits for it. The connections stay.
func (k *Keeper) Close() {
	close(k.stop)
	<-k.done
}

func (k *Keeper) add(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.keeper, c.slot = k, k.next
	k.conns[c.slot][c] = struct{}{}
	k.next = (k.next + 1) % slots
	if c.heartbeat < k.heartbeat {
		k.heartbeat = c.heartbeat
		select {
		case k.shorter <- struct{}{}:
		default: // it is about to look anyway
		}
	}
}

func (k *Keeper) remove(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns[c.slot], c)
}

// pause is the time between two slots: all have their turn twice a heartbeat.
func (k *Keeper) pause() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.heartbeat / 2 / slots
}

func (k *Keeper) run() {
	defer close(k.done)
	timer := time.NewTimer(k.pause())
	defer timer.Stop()
	var due []*Conn
	for slot := 0; ; {
		select {
		case <-k.stop:
			return
		case <-k.shorter:
		case <-timer.C:
			due = k.in(slot, due[:0])
			for _, c := range due {
				c.check()
			}
			clear(due) // or it holds connections that have ended
			slot = (slot + 1) % slots
		}
		timer.Reset(k.pause())
	}
}

// in appends a slot's connections.
func (k *Keeper) in(slot int, to []*Conn) []*Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns[slot] {
		to = append(to, c)
	}
	return to
}
