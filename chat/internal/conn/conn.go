// Package conn serves clients: it accepts their connections, checks who they
// are, answers their requests, and writes what is pushed to them.
//
// A connection has one goroutine that reads and handles requests one after the
// other, and at most one that writes. Nothing else touches the socket. An idle
// connection holds no buffers: the reader borrows one when a frame has begun to
// arrive, the writer exists only while it has something to write.
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

// lingerAfterGoodbye is how long the server waits, after its last frame, for
// the client to close. Closing with unread bytes would make the kernel reset
// the connection, and the client might never see the last frames.
const lingerAfterGoodbye = 2 * time.Second

// Conn is one client's connection. Its methods may be called from any goroutine
// and do not block; after the end they do nothing.
type Conn struct {
	id      uint64
	server  *Server
	nc      net.Conn
	session session.Session
	since   int64 // when it was accepted, Unix nanoseconds
	out     outbox
	// unacknowledged counts sends that wait for their answer.
	unacknowledged atomic.Int32
	// leaving is set once the connection is to end when that count reaches 0.
	leaving atomic.Pointer[chatv1.Goodbye]
	turns   turns
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
		c.Bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_SLOW, Text: "the client reads too slowly", Reconnect: true})
	}
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
	f.RequestId = request
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	encoded, err := frame.Append((*buf)[:0], f)
	if err != nil {
		c.server.log.Error("encode answer", "user", c.session.UserID, "err", err)
		return
	}
	*buf = encoded
	c.Push(encoded)
}

// refuse answers a request with a failure.
func (c *Conn) refuse(request uint64, err error) {
	e := errs.From(err)
	if !e.Code.ClientFault() {
		c.server.log.Warn("request failed", "user", c.session.UserID, "err", err)
	}
	c.server.metrics.refused.WithLabelValues(string(e.Code)).Inc()
	c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{
		Code: string(e.Code), Text: e.Message, RetryAfterMs: uint32(e.RetryAfter.Milliseconds()), Field: e.Field,
	}}})
}

// settleTime is how long a client must say nothing until its reader hands over
// to a new one, or half a heartbeat where that is shorter.
const settleTime = time.Second

// read handles frames until the connection ends. ctx ends with the server; the
// client has said nothing for as long as waited.
//
// Handling a frame makes a goroutine's stack grow, and the runtime does not
// shrink it to the least again. Most connections wait most of the time, and
// waiting needs little: so a goroutine whose client has become quiet hands over
// to a new one, which halves what an idle connection costs.
func (c *Conn) read(ctx context.Context, waited time.Duration) {
	settle := min(settleTime, c.server.opts.Heartbeat/2)
	err := c.next(ctx, 2*c.server.opts.Heartbeat-waited)
	for err == nil {
		if err = c.next(ctx, settle); errors.Is(err, errQuiet) && !c.out.ending() {
			go c.read(ctx, settle)
			return
		}
	}
	c.ended(err)
	c.server.left(c)
}

// errGone ends the reading of a connection that got its Goodbye.
var errGone = errors.New("the connection was ended")

// errQuiet says that no frame began in time.
var errQuiet = fmt.Errorf("quiet: %w", os.ErrDeadlineExceeded)

// next waits for a frame to begin, and then handles it.
func (c *Conn) next(ctx context.Context, silence time.Duration) error {
	header, err := c.begin(silence)
	if err != nil {
		return err
	}
	return c.burst(ctx, header)
}

// burst reads a frame and what has arrived behind it into a borrowed buffer, and
// handles it, unless the connection got its Goodbye in the meantime: whoever
// stays after that is not served.
//
//go:noinline // an idle connection's stack, which waits in next, need not hold this
func (c *Conn) burst(ctx context.Context, header [frame.HeaderLen]byte) (err error) {
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	if cap(*buf) < burstSize {
		*buf = make([]byte, 0, burstSize)
	}
	r := punctual{conn: c}
	*buf, err = frame.Burst(&r, MaxFrame, append(*buf, header[:]...), func(body []byte) error {
		r.due = true
		f := &chatv1.ClientFrame{}
		if err := proto.Unmarshal(body, f); err != nil {
			return protocolError{errUndecodable}
		}
		if c.out.ending() {
			return errGone
		}
		return c.handle(ctx, f)
	})
	if errors.Is(err, frame.ErrTooLarge) || errors.Is(err, frame.ErrEmpty) {
		return protocolError{err}
	}
	return err
}

// burstSize is how much is read at a time: some dozen short messages.
const burstSize = 4 << 10

// punctual reads frames of which each, once begun, has two heartbeats.
type punctual struct {
	conn *Conn
	due  bool // a frame has ended, so the next one's time begins
}

func (p *punctual) Read(b []byte) (int, error) {
	if p.due {
		p.due = false
		if err := p.conn.until(2 * p.conn.server.opts.Heartbeat); err != nil {
			return 0, err
		}
	}
	return p.conn.nc.Read(b)
}

// begin waits for a header. Once its first byte is there, the rest of the frame
// has two heartbeats.
func (c *Conn) begin(silence time.Duration) (header [frame.HeaderLen]byte, err error) {
	if err := c.until(silence); err != nil {
		return header, err
	}
	n, err := io.ReadFull(c.nc, header[:])
	late := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case late && n == 0:
		return header, errQuiet
	case err != nil && !late:
		return header, err
	}
	if err := c.until(2 * c.server.opts.Heartbeat); err != nil {
		return header, err
	}
	_, err = io.ReadFull(c.nc, header[n:]) // nothing, as a rule
	return header, err
}

// until gives the client some time to say something.
func (c *Conn) until(silence time.Duration) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if c.out.ending() { // asked behind the deadline, which would undo flushed's
		return errGone
	}
	return nil
}

var errUndecodable = errors.New("the frame cannot be decoded")

// body reads and decodes the rest of a frame.
func (c *Conn) body(header [frame.HeaderLen]byte, f *chatv1.ClientFrame) error {
	n, err := frame.Length(header, MaxFrame)
	if err != nil {
		return protocolError{err}
	}
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	if *buf, err = frame.ReadBody(c.nc, n, *buf); err != nil {
		return err
	}
	if err := proto.Unmarshal(*buf, f); err != nil {
		return protocolError{errUndecodable}
	}
	return nil
}

// protocolError is a client's breach of the protocol; it ends the connection
// with a Goodbye that says so.
type protocolError struct{ error }

// ended says goodbye where there is still somebody to say it to, then lets the
// client close first.
func (c *Conn) ended(err error) {
	var breach protocolError
	switch {
	case errors.As(err, &breach):
		c.Bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, Text: breach.Error()})
	case errors.Is(err, errGone):
	case errors.Is(err, os.ErrDeadlineExceeded):
		ended := c.bye(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_SILENT, Text: "no sign of life", Reconnect: true})
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
		_ = half.CloseWrite() // fails on a socket that is gone, as wanted
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerAfterGoodbye))
}

// linger reads and drops what the client still sends, for as long as the last
// frames may take to be written, and a little more.
func (c *Conn) linger() {
	c.out.whileLocked(func(s state) {
		limit := lingerAfterGoodbye
		if s != closed {
			limit += c.out.shared.timeout // flushed sets it anew
		}
		_ = c.nc.SetReadDeadline(time.Now().Add(limit))
	})
	_, _ = io.Copy(io.Discard, io.LimitReader(c.nc, maxQueued))
	_ = c.nc.Close()
}
