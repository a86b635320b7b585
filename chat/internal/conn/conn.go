// Package conn serves clients: it accepts their connections, checks who they
// are, answers their requests, and writes what is pushed to them.
//
// A connection has one goroutine that reads and handles requests one after the
// other, and at most one that writes. Nothing else touches the socket. An idle
// connection holds no buffers: the reader borrows one when something has arrived, and
// the writer exists only while it has something to write. TLS, where it is on, is
// between the two and the socket (seal.go).
package conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/session"
)

// lingerAfterGoodbye is how long the server waits after its last frame for the
// client to close. If it closed with unread bytes, the kernel would reset the
// connection, and the client might never see the last frames.
const lingerAfterGoodbye = 2 * time.Second

// Conn is one client's connection. Its methods may be called from any goroutine
// and do not block; after the connection has ended they do nothing.
type Conn struct {
	id      uint64
	server  *Server
	nc      net.Conn // TCP
	session session.Session
	since   int64 // when it was accepted, Unix nanoseconds
	in      socket
	out     writeQueue
	// unacknowledged counts sends that wait for their answer.
	unacknowledged atomic.Int32
	// leaving is the Goodbye to send when that count reaches 0, nil unless the
	// connection drains.
	leaving  atomic.Pointer[chatv1.Goodbye]
	refusals refusals
}

// ID is unique among all servers, and never 0.
func (c *Conn) ID() uint64 { return c.id }

// Age is how long ago the connection was accepted.
func (c *Conn) Age() time.Duration { return time.Since(time.Unix(0, c.since)) }

// Session is the id of the session that the client introduced itself with.
func (c *Conn) Session() uint64 { return c.session.ID }

// Push queues encoded frames; a client that is too slow for them is dropped.
func (c *Conn) Push(frames []byte) {
	if !c.out.push(frames) {
		c.server.metrics.slow.Inc()
		c.Bye(slow("the client reads too slowly"))
	}
}

// slow ends a connection that holds too much memory.
func slow(text string) *chatv1.Goodbye {
	return &chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_SLOW, Text: text, Reconnect: true}
}

// Bye ends the connection after a last frame.
func (c *Conn) Bye(g *chatv1.Goodbye) { c.bye(g) }

// bye says whether it was the one that ended the connection.
func (c *Conn) bye(g *chatv1.Goodbye) bool {
	last, err := frame.Append(nil, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Goodbye{Goodbye: g}})
	if err != nil {
		c.server.log.Error("encode goodbye", "err", err)
	}
	if !c.out.last(last) {
		return false
	}
	c.server.metrics.goodbyes.WithLabelValues(g.GetCode().String()).Inc()
	return true
}

// answer queues the answer to a request.
func (c *Conn) answer(request uint64, f *chatv1.ServerFrame) {
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	*buf = c.encode((*buf)[:0], request, f)
	c.Push(*buf)
}

// encode appends the answer to a request. One that cannot be encoded becomes a Failure,
// because a request without an answer would leave the client waiting.
func (c *Conn) encode(dst []byte, request uint64, f *chatv1.ServerFrame) []byte {
	f.RequestId = request
	encoded, err := frame.Append(dst, f)
	if err != nil {
		c.server.log.Error("encode answer", "user", c.session.UserID, "err", err)
		encoded, _ = frame.Append(dst, notEncoded(request)) // it has no text of others
	}
	return encoded
}

func notEncoded(request uint64) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{RequestId: request, Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{
		Code: string(errs.CodeInternal), Text: "the answer cannot be sent",
	}}}
}

// refuse answers a request with a failure.
func (c *Conn) refuse(request uint64, err error) { c.answer(request, c.failure(err)) }

// failure is the answer to a request that failed. It counts it.
func (c *Conn) failure(err error) *chatv1.ServerFrame {
	e := errs.From(err)
	if !e.Code.ClientFault() {
		c.server.log.Warn("request failed", "user", c.session.UserID, "err", err)
	}
	c.server.metrics.refused.WithLabelValues(string(e.Code)).Inc()
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{
		Code:         string(e.Code),
		Text:         e.Message,
		RetryAfterMs: uint32(e.RetryAfter.Milliseconds()),
		Field:        e.Field,
	}}}
}

// quietTime is how long a client must send nothing until its reader hands over to
// a new one, or half a heartbeat if that is shorter.
const quietTime = time.Second

// read handles frames until the connection ends. ctx ends with the server; waited
// is how long the client has been silent already.
//
// Handling a frame makes a goroutine's stack grow, and the runtime does not shrink
// it to its first size again. Most connections wait most of the time, which needs
// little stack. So a reader whose client has become quiet hands over to a new
// goroutine, which halves the memory of an idle connection. With TLS the stack grows
// before the first frame: what may have come with the handshake is looked for.
func (c *Conn) read(ctx context.Context, waited time.Duration) {
	quiet := min(quietTime, c.server.opts.Heartbeat/2)
	var err error
	if waited > 0 || c.in.seal == nil {
		err = c.next(ctx, 2*c.server.opts.Heartbeat-waited)
	}
	for err == nil {
		if err = c.next(ctx, quiet); errors.Is(err, errQuiet) && !c.out.ending() {
			go c.read(ctx, quiet)
			return
		}
	}
	c.in.ended()
	c.ended(err)
	c.server.forget(c)
}

// errEnded ends the reading of a connection that got its Goodbye.
var errEnded = errors.New("the connection was ended")

// errQuiet says that no frame began in time.
var errQuiet = fmt.Errorf("quiet: %w", os.ErrDeadlineExceeded)

// next waits for a frame to begin and handles it.
func (c *Conn) next(ctx context.Context, silence time.Duration) error {
	if err := c.setDeadline(silence); err != nil {
		return err
	}
	buf, err := c.in.arrived()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errQuiet
	case err != nil:
		return err
	}
	return c.burst(ctx, buf)
}

// burst handles the frames that have arrived in a borrowed buffer, and reads on until
// it ends with a whole one. After its Goodbye a connection is not served any more.
//
//go:noinline // an idle connection waits in next, whose stack need not hold this
func (c *Conn) burst(ctx context.Context, buf *[]byte) (err error) {
	defer release(buf)
	rest := restReader{conn: c}
	defer rest.ended()
	*buf, err = frame.Burst(&rest, MaxFrame, *buf, func(body []byte) error {
		rest.late = false
		f := &chatv1.ClientFrame{}
		if err := proto.Unmarshal(body, f); err != nil {
			return protocolError{errUndecodable}
		}
		if c.out.ending() {
			return errEnded
		}
		return c.handle(ctx, f)
	})
	if errors.Is(err, frame.ErrTooLarge) || errors.Is(err, frame.ErrEmpty) {
		return protocolError{err}
	}
	return err
}

// restReader reads the rest of a frame, which has two heartbeats to arrive. What is held
// meanwhile counts in the budget.
type restReader struct {
	conn    *Conn
	late    bool // the deadline of this frame is set
	counted bool
}

// partialFrame is about what is held of a frame that is not complete.
const partialFrame = MaxFrame + readSize

func (r *restReader) Read(b []byte) (int, error) {
	if !r.counted {
		if !r.conn.in.take(partialFrame) {
			return 0, errNoRoom
		}
		r.counted = true
	}
	if !r.late {
		r.late = true
		if err := r.conn.setDeadline(2 * r.conn.server.opts.Heartbeat); err != nil {
			return 0, err
		}
	}
	return r.conn.in.Read(b)
}

func (r *restReader) ended() {
	if r.counted {
		r.conn.in.give(partialFrame)
	}
}

// setDeadline gives the client some time to send something.
func (c *Conn) setDeadline(silence time.Duration) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if c.out.ending() { // asked afterwards: this deadline replaces that of flushed
		return errEnded
	}
	return nil
}

var errUndecodable = errors.New("the frame cannot be decoded")

// protocolError is a client's violation of the protocol. It ends the connection
// with a Goodbye that says so.
type protocolError struct{ error }

// ended queues a Goodbye unless the client is away, then lets the client close
// first.
func (c *Conn) ended(err error) {
	var violation protocolError
	switch {
	case errors.As(err, &violation):
		c.Bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, Text: violation.Error()})
	case errors.Is(err, errNoRoom):
		c.Bye(slow(err.Error()))
	case errors.Is(err, errEnded):
	case errors.Is(err, os.ErrDeadlineExceeded):
		ended := c.bye(&chatv1.Goodbye{
			Code:      chatv1.GoodbyeCode_GOODBYE_CODE_SILENT,
			Text:      "the client was silent for too long",
			Reconnect: true,
		})
		if !ended && c.out.isClosed() {
			return // the time after the Goodbye is over
		}
	default:
		c.out.fail()
		return
	}
	c.linger()
}

// flushed is called when the last byte was written or lost.
func (c *Conn) flushed() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // on a closed socket it fails, which is fine
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerAfterGoodbye))
}

// linger reads and drops what the client still sends, until lingerAfterGoodbye
// after the last frames were written.
func (c *Conn) linger() {
	c.out.whileLocked(func(s state) {
		limit := lingerAfterGoodbye
		if s != closed {
			limit += 2 * c.out.shared.timeout // flushed shortens it again
		}
		_ = c.nc.SetReadDeadline(time.Now().Add(limit))
	})
	_, _ = io.Copy(io.Discard, io.LimitReader(c.nc, maxQueued))
	_ = c.nc.Close()
}
