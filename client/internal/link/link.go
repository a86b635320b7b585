// Package link puts queues on a connection to a chat server, for the client's
// one goroutine that must not wait for the network: one goroutine reads, one
// writes, and both end with the connection.
package link

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire"
)

const (
	// outgoing is how many frames may wait for the writer. The owner never has
	// that many requests unanswered, so a full queue means a stuck socket.
	outgoing = 512
	// incoming is how many frames may wait for the owner. When it is full the
	// reader waits, the server's socket fills, and the server drops us as slow.
	incoming = 64
	// maxBatch bounds what is written at a time, maxKept the buffer that the
	// writer keeps.
	maxBatch = 32 << 10
	maxKept  = 64 << 10
)

// Link is an accepted connection. Its methods may be called from any goroutine.
type Link struct {
	Welcome *chatv1.Welcome
	// Heartbeat is the server's, within reason.
	Heartbeat time.Duration

	conn   *wire.Conn
	in     chan *chatv1.ServerFrame // written and closed by the reader
	out    chan *chatv1.ClientFrame
	closed chan struct{}
	once   sync.Once
	err    error        // why it ended; set once, before closed
	last   atomic.Int64 // when the last frame came, in Unix nanoseconds
}

// Dial connects to a server and logs in. base is the TLS configuration for
// servers that have a name, nil for the system's roots. The error is a
// *wire.GoodbyeError where the server refused.
func Dial(ctx context.Context, to *chatv1.Endpoint, who wire.Login, base *tls.Config) (*Link, error) {
	conn, welcome, err := (&wire.Dialer{TLS: base}).Dial(ctx, to, who)
	if err != nil {
		return nil, err
	}
	l := &Link{
		Welcome: welcome, Heartbeat: conn.Heartbeat(), conn: conn,
		in: make(chan *chatv1.ServerFrame, incoming), out: make(chan *chatv1.ClientFrame, outgoing),
		closed: make(chan struct{}),
	}
	l.last.Store(time.Now().UnixNano())
	go l.read()
	go l.write()
	return l, nil
}

// Frames delivers what the server sends. It is closed when the link ends; Err
// then says why.
func (l *Link) Frames() <-chan *chatv1.ServerFrame { return l.in }

// Err says why the link ended; nil while it lives.
func (l *Link) Err() error {
	select {
	case <-l.closed:
		return l.err
	default:
		return nil
	}
}

// LastFrame is when the last frame came.
func (l *Link) LastFrame() time.Time { return time.Unix(0, l.last.Load()) }

// Send queues a frame. It never waits: false means that the link has ended, or
// now ends because the server does not read.
func (l *Link) Send(f *chatv1.ClientFrame) bool {
	select {
	case <-l.closed:
		return false
	default:
	}
	select {
	case l.out <- f:
		return true
	default:
		l.end(wire.ErrStuck)
		return false
	}
}

var ping = &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}

// Ping asks for an answer before the heartbeat is due.
func (l *Link) Ping() bool { return l.Send(ping) }

// Close ends the link at once; frames that wait are lost.
func (l *Link) Close() { l.end(net.ErrClosed) }

// Fail ends the link because of what the server sent.
func (l *Link) Fail(err error) { l.end(err) }

// end closes the connection; its first reason is the link's.
func (l *Link) end(err error) {
	l.once.Do(func() {
		l.err = l.conn.Fail(err)
		close(l.closed)
	})
}

func (l *Link) read() {
	defer close(l.in)
	l.end(l.conn.Serve(l))
}

// Frame makes the link its connection's handler. The owner gets a frame of its
// own; the connection uses f again.
func (l *Link) Frame(f *chatv1.ServerFrame) {
	l.last.Store(time.Now().UnixNano())
	if f.GetPong() != nil {
		return
	}
	select {
	case l.in <- &chatv1.ServerFrame{RequestId: f.GetRequestId(), Body: f.GetBody()}:
	case <-l.closed:
	}
}

// Drained has nothing to do: the owner's frames come through out.
func (l *Link) Drained() {}

// write writes what is queued, all that waits at a time. After an error the
// reader ends, and says why.
func (l *Link) write() {
	var buf []byte
	for {
		var err error
		select {
		case <-l.closed:
			return
		case f := <-l.out:
			buf, err = l.batch(buf[:0], f)
		}
		if err != nil {
			l.end(err)
			return
		}
		if l.conn.Write(buf) != nil {
			return
		}
		if cap(buf) > maxKept {
			buf = nil
		}
	}
}

// batch encodes a frame and those that wait behind it.
func (l *Link) batch(buf []byte, f *chatv1.ClientFrame) ([]byte, error) {
	buf, err := l.conn.Append(buf, f)
	for err == nil && len(buf) < maxBatch {
		select {
		case next := <-l.out:
			buf, err = l.conn.Append(buf, next)
		default:
			return buf, nil
		}
	}
	return buf, err
}
