package floor

import (
	"net"
	"sync"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// outbox is a client's outgoing side. mu owns out; writing lets one goroutine
// write at a time and is taken before mu.
type outbox struct {
	nc      net.Conn
	writing sync.Mutex
	mu      sync.Mutex
	out     []byte
}

// push queues a frame until the next flush.
func (o *outbox) push(f *chatv1.ServerFrame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.out, _ = frame.Append(o.out, f) // what could be decoded can be encoded
}

// flush writes what is queued. An error ends the client's reader too.
func (o *outbox) flush() {
	o.writing.Lock()
	defer o.writing.Unlock()
	o.mu.Lock()
	out := o.out
	o.out = nil
	o.mu.Unlock()
	if len(out) > 0 {
		_, _ = o.nc.Write(out)
	}
}
