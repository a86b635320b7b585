package wire

import (
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// slots spread the pings: each round one slot's connections are pinged.
const slots = 64

// keeper pings every connection twice a heartbeat, and ends those whose server
// has been silent for two. One goroutine does it for all connections, so that an
// idle one needs no timer. The mutex owns the fields.
type keeper struct {
	ping []byte
	stop chan struct{}
	done chan struct{}

	mu        sync.Mutex
	conns     [slots]map[*Conn]struct{}
	next      int           // the slot that gets the next connection
	heartbeat time.Duration // the shortest that a server announced
}

func newKeeper() *keeper {
	ping, err := frame.Append(nil, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	if err != nil {
		panic(err) // a frame without strings can always be encoded
	}
	k := &keeper{ping: ping, stop: make(chan struct{}), done: make(chan struct{}), heartbeat: time.Minute}
	for i := range k.conns {
		k.conns[i] = make(map[*Conn]struct{})
	}
	go k.run()
	return k
}

// close ends the goroutine and waits for it. The connections stay.
func (k *keeper) close() {
	close(k.stop)
	<-k.done
}

func (k *keeper) add(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.keeper, c.slot = k, k.next
	k.conns[c.slot][c] = struct{}{}
	k.next = (k.next + 1) % slots
	if c.heartbeat > 0 {
		k.heartbeat = min(k.heartbeat, c.heartbeat)
	}
}

func (k *keeper) forget(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns[c.slot], c)
}

func (k *keeper) run() {
	defer close(k.done)
	for slot := 0; ; slot = (slot + 1) % slots {
		k.mu.Lock()
		pause := k.heartbeat / 2 / slots
		k.mu.Unlock()
		timer := time.NewTimer(min(pause, 50*time.Millisecond)) // a shorter heartbeat may be announced meanwhile
		select {
		case <-k.stop:
			timer.Stop()
			return
		case <-timer.C:
		}
		for _, c := range k.in(slot) {
			k.visit(c)
		}
	}
}

func (k *keeper) in(slot int) []*Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]*Conn, 0, len(k.conns[slot]))
	for c := range k.conns[slot] {
		out = append(out, c)
	}
	return out
}

// visit pings a connection, unless somebody is writing on it.
func (k *keeper) visit(c *Conn) {
	if silent := time.Since(time.Unix(0, c.heard.Load())); c.heartbeat > 0 && silent > 2*c.heartbeat {
		_ = c.end(errSilent)
		return
	}
	if c.writing.TryLock() {
		defer c.writing.Unlock()
		_ = c.write(k.ping) // an error closes the connection, and Serve tells
	}
}
