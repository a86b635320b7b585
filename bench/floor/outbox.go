package floor

import (
	"net"
	"sync"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// outbox is a client's outgoing side. mu owns out; writing is the right to write
// and is taken before mu.
type outbox struct {
	nc      net.Conn
	writing sync.Mutex
	mu      sync.Mutex
	out     []byte
}

// push queues a frame until somebody flushes.
func (o *outbox) push(f *chatv1.ServerFrame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.out, _ = frame.Append(o.out, f) // what came in as a frame can go out as one
}

// flush writes what is queued. A client that is gone is noticed by its reader.
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
