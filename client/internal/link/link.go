// Package link is one connection to a chat server: dialling, Hello and Welcome,
// frames both ways, heartbeats.
//
// One goroutine reads the socket and one writes it; nobody else touches it. Both
// end, and the socket is closed, when either meets an error or Close is called.
package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

// Protocol is the version of the protocol that this package speaks.
const Protocol = 1

const (
	// maxFrame is the largest frame taken from a server: a page of 256 texts of
	// the longest kind has 4 MiB.
	maxFrame = 8 << 20
	// dialTimeout and helloTimeout bound the steps of Dial. A server answers
	// Hello after two look-ups; ten seconds is a server in trouble.
	dialTimeout  = 5 * time.Second
	helloTimeout = 10 * time.Second
	// writeTimeout bounds one write. The peer's receive buffer is full that long
	// only when it stopped reading.
	writeTimeout = 10 * time.Second
	// outgoing is how many frames may wait for the writer. The owner never has
	// that many requests unanswered, so a full queue means a stuck socket.
	outgoing = 512
	// incoming is how many frames may wait for the owner. When it is full the
	// reader waits, the server's socket fills, and the server drops us as slow.
	incoming = 64
	// A server's heartbeat is believed within these limits.
	minHeartbeat     = 10 * time.Millisecond
	maxHeartbeat     = 10 * time.Minute
	defaultHeartbeat = 20 * time.Second
)

// Errors that end a link, beside those of the network.
var (
	// ErrClosed: this side closed the link.
	ErrClosed = errors.New("link closed")
	// ErrSilent: the server sent nothing for two heartbeats.
	ErrSilent = errors.New("the server is silent")
	// ErrStuck: the server does not read what we send.
	ErrStuck = errors.New("the server does not read")
	// ErrProtocol: the server sent what the protocol does not allow.
	ErrProtocol = errors.New("the server broke the protocol")
)

// GoodbyeError is the server's Goodbye.
type GoodbyeError struct{ Goodbye *chatv1.Goodbye }

func (e *GoodbyeError) Error() string {
	if e.Goodbye.GetText() != "" {
		return "the server said goodbye: " + e.Goodbye.GetText()
	}
	return "the server said goodbye: " + e.Goodbye.GetCode().String()
}

// Link is an accepted connection. Its methods may be called from any goroutine.
type Link struct {
	Welcome *chatv1.Welcome
	// Heartbeat is the server's, within reason.
	Heartbeat time.Duration

	conn   net.Conn
	in     chan *chatv1.ServerFrame // written and closed by the reader
	out    chan *chatv1.ClientFrame
	closed chan struct{}
	once   sync.Once
	err    error        // why it ended; set once, before closed
	heard  atomic.Int64 // when the last frame came, in Unix nanoseconds
}

// Dial connects to a server and introduces itself. base is the TLS configuration
// for servers that have a name, nil for the system's roots. The error is a
// *GoodbyeError where the server refused.
func Dial(ctx context.Context, to *chatv1.Endpoint, hello *chatv1.Hello, base *tls.Config) (*Link, error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dial(dialCtx, to, base)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.GetAddress(), err)
	}
	// A cancelled caller must not wait for the server's answer.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	welcome, err := introduce(conn, hello)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("introduce to %s: %w", to.GetAddress(), err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("introduce to %s: %w", to.GetAddress(), err)
	}
	l := &Link{
		Welcome: welcome, Heartbeat: heartbeat(welcome), conn: conn,
		in: make(chan *chatv1.ServerFrame, incoming), out: make(chan *chatv1.ClientFrame, outgoing),
		closed: make(chan struct{}),
	}
	l.heard.Store(time.Now().UnixNano())
	go l.read()
	go l.write()
	return l, nil
}

func dial(ctx context.Context, to *chatv1.Endpoint, base *tls.Config) (net.Conn, error) {
	var d net.Dialer
	if to.GetTlsServerName() == "" {
		return d.DialContext(ctx, "tcp", to.GetAddress())
	}
	conf := &tls.Config{}
	if base != nil {
		conf = base.Clone()
	}
	conf.ServerName = to.GetTlsServerName()
	conf.MinVersion = tls.VersionTLS13
	return (&tls.Dialer{NetDialer: &d, Config: conf}).DialContext(ctx, "tcp", to.GetAddress())
}

func introduce(conn net.Conn, hello *chatv1.Hello) (*chatv1.Welcome, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	wire, err := frame.Append(nil, &chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_Hello{Hello: hello}})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(wire); err != nil {
		// A server that refuses at once may close before it has read us; its
		// Goodbye says more than our broken pipe.
		if _, err := readWelcome(conn); errors.As(err, new(*GoodbyeError)) {
			return nil, err
		}
		return nil, err
	}
	return readWelcome(conn)
}

func readWelcome(conn net.Conn) (*chatv1.Welcome, error) {
	var answer chatv1.ServerFrame
	if _, err := frame.Read(conn, maxFrame, nil, &answer); err != nil {
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	switch body := answer.GetBody().(type) {
	case *chatv1.ServerFrame_Welcome:
		return body.Welcome, nil
	case *chatv1.ServerFrame_Goodbye:
		return nil, &GoodbyeError{body.Goodbye}
	}
	return nil, fmt.Errorf("%w: it began with %T", ErrProtocol, answer.GetBody())
}

func heartbeat(w *chatv1.Welcome) time.Duration {
	if w.GetHeartbeatMs() == 0 {
		return defaultHeartbeat
	}
	return min(max(time.Duration(w.GetHeartbeatMs())*time.Millisecond, minHeartbeat), maxHeartbeat)
}

// Frames delivers what the server sends, but for Pong and Goodbye. It is closed
// when the link ends; Err then says why.
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

// Heard is when the last frame came.
func (l *Link) Heard() time.Time { return time.Unix(0, l.heard.Load()) }

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
		l.end(ErrStuck)
		return false
	}
}

// Close ends the link at once; frames that wait are lost.
func (l *Link) Close() { l.end(ErrClosed) }

// Fail ends the link because of what the server sent.
func (l *Link) Fail(err error) { l.end(err) }

func (l *Link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.closed)
		_ = l.conn.Close()
	})
}

func (l *Link) read() {
	defer close(l.in)
	r := bufio.NewReaderSize(l.conn, 2<<10) // most frames are short; a connection is mostly idle
	var buf []byte
	for {
		// One deadline for the whole frame: bytes that drip do not count as life.
		if err := l.conn.SetReadDeadline(time.Now().Add(2 * l.Heartbeat)); err != nil {
			l.end(err)
			return
		}
		f := &chatv1.ServerFrame{}
		var err error
		if buf, err = frame.Read(r, maxFrame, buf, f); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				err = fmt.Errorf("%w for %v", ErrSilent, 2*l.Heartbeat)
			}
			l.end(err)
			return
		}
		if cap(buf) > 64<<10 {
			buf = nil // a big page is rare; do not hold its space
		}
		l.heard.Store(time.Now().UnixNano())
		switch body := f.GetBody().(type) {
		case *chatv1.ServerFrame_Goodbye:
			l.end(&GoodbyeError{body.Goodbye})
			return
		case *chatv1.ServerFrame_Pong:
			continue
		}
		select {
		case l.in <- f:
		case <-l.closed:
			return
		}
	}
}

var ping = &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}

// Ping asks for a sign of life ahead of the heartbeat.
func (l *Link) Ping() bool { return l.Send(ping) }

func (l *Link) write() {
	idle := time.NewTimer(l.Heartbeat)
	defer idle.Stop()
	var buf []byte
	for {
		var err error
		select {
		case <-l.closed:
			return
		case <-idle.C:
			buf, err = frame.Append(buf[:0], ping)
		case f := <-l.out:
			buf, err = l.batch(buf[:0], f)
		}
		if err == nil {
			err = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
		if err == nil {
			_, err = l.conn.Write(buf)
		}
		if err != nil {
			l.writeFailed(err)
			return
		}
		if cap(buf) > 64<<10 {
			buf = nil
		}
		idle.Reset(l.Heartbeat)
	}
}

// writeFailed ends the link, after a moment in which the reader may find the
// server's Goodbye, which says why the server stopped reading.
func (l *Link) writeFailed(err error) {
	select {
	case <-l.closed:
	case <-time.After(200 * time.Millisecond):
		l.end(fmt.Errorf("write: %w", err))
	}
}

// batch encodes a frame and those that wait behind it, up to 32 KiB.
func (l *Link) batch(buf []byte, f proto.Message) ([]byte, error) {
	buf, err := frame.Append(buf, f)
	for err == nil && len(buf) < 32<<10 {
		select {
		case next := <-l.out:
			buf, err = frame.Append(buf, next)
		default:
			return buf, nil
		}
	}
	return buf, err
}
