package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
)

// Handler gets what arrives on a connection. Its methods are called by the
// goroutine in Serve; while they run nothing is read, and the server's time to
// be silent stands still.
type Handler interface {
	// Frame gets every frame but Goodbye. It must not keep f, but may keep its
	// body.
	Frame(f *chatv1.ServerFrame)
	// Drained follows when all that had arrived was handed out, which is the
	// moment to write what it led to.
	Drained()
}

// Conn is a connection that was let in. Its methods may be called from any
// goroutine, but for Call and Serve: those belong to one, Call before Serve.
type Conn struct {
	nc        net.Conn
	heartbeat time.Duration
	// waiting is since when Serve has waited for the rest of a frame, by clock; 0
	// while it does not.
	waiting atomic.Int64
	// keeper or timer has check called twice a heartbeat. check owns asked, the
	// keeper's mutex slot.
	keeper *Keeper
	timer  *time.Timer
	slot   uint16
	asked  bool // a ping was sent because the server was silent

	maxFrame int32 // the server's limit
	// wrote is set by a write and cleared by check.
	wrote   atomic.Bool
	writing sync.Mutex // owns the right to write
	// failed is why writing failed, cause why the connection ended: the first
	// reason each.
	failed, cause atomic.Pointer[error]
}

// Heartbeat is the server's, within reason.
func (c *Conn) Heartbeat() time.Duration { return c.heartbeat }

// Address is the server's, as it was dialled.
func (c *Conn) Address() string { return c.nc.RemoteAddr().String() }

// Call makes one request, whose id is not 0, and waits for its answer; what is
// pushed meanwhile is dropped. A Failure is returned as an *errs.Error, any other
// error has ended the connection. A context without a deadline gets one.
func (c *Conn) Call(ctx context.Context, request *chatv1.ClientFrame) (answer *chatv1.ServerFrame, err error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	id := request.GetRequestId()
	if err := c.exchange(ctx, request, func(f *chatv1.ServerFrame) (bool, error) {
		answer = f
		return f.GetRequestId() == id, nil
	}); err != nil {
		return nil, c.Fail(err)
	}
	return answer, Failure(answer)
}

// Failure is a refusal as an *errs.Error; nil for any other frame.
func Failure(f *chatv1.ServerFrame) error {
	refusal := f.GetFailure()
	if refusal == nil {
		return nil
	}
	e := errs.New(errs.Known(errs.Code(refusal.GetCode())), "%s", refusal.GetText()).
		Retry(time.Duration(refusal.GetRetryAfterMs()) * time.Millisecond)
	if field := refusal.GetField(); field != "" {
		e = e.In(field)
	}
	return e
}

// exchange sends a request and reads no further than the frame that is wanted.
func (c *Conn) exchange(
	ctx context.Context, request *chatv1.ClientFrame, wanted func(*chatv1.ServerFrame) (bool, error),
) error {
	encoded, err := c.Append(nil, request)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := c.nc.SetReadDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) })
	// A server that refuses at once may close before it has read the request; then
	// its Goodbye says more than the broken pipe.
	writeErr := c.Write(encoded)
	err = c.readUntil(wanted)
	if writeErr != nil && !errors.As(err, new(*GoodbyeError)) {
		err = writeErr
	}
	switch ended := !stop(); {
	case ended && err == nil:
		return ctx.Err() // the function has spoilt the deadline
	case ended && !errors.As(err, new(*GoodbyeError)):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case err != nil:
		return err
	}
	return c.nc.SetReadDeadline(time.Time{})
}

func (c *Conn) readUntil(wanted func(*chatv1.ServerFrame) (bool, error)) error {
	for {
		f := &chatv1.ServerFrame{}
		if _, err := frame.Read(c.nc, maxFrame, nil, f); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("wait for the answer: %w", err)
		}
		if g := f.GetGoodbye(); g != nil {
			return &GoodbyeError{g}
		}
		if ok, err := wanted(f); ok || err != nil {
			return err
		}
	}
}

// Serve hands what arrives to h until the connection ends, closes it, and says
// why: a *GoodbyeError, one of this package's errors, what Fail was given,
// net.ErrClosed after Close, or what the network said. It never returns nil.
func (c *Conn) Serve(h Handler) error {
	var f chatv1.ServerFrame
	err := Scan(reader{c}, maxFrame, func(body []byte) error {
		if c.waiting.Load() != 0 {
			c.waiting.Store(0)
		}
		if err := proto.Unmarshal(body, &f); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if g := f.GetGoodbye(); g != nil {
			return &GoodbyeError{g}
		}
		h.Frame(&f)
		return nil
	}, func() {
		h.Drained()
		f.Body = nil // an idle connection need not hold its last frame
	})
	failed := c.failed.Load()
	switch {
	case errors.As(err, new(*GoodbyeError)):
	case failed != nil:
		err = *failed // what ended the reading as well
	case errors.Is(err, frame.ErrTooLarge), errors.Is(err, frame.ErrEmpty):
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("the server closed the connection: %w", err)
	}
	return c.Fail(err)
}

// reader is where Serve waits for the server.
type reader struct{ *Conn }

// Read begins the server's time to be silent with the first wait behind a frame,
// so that bytes which drip are no sign of life.
func (r reader) Read(b []byte) (int, error) {
	if r.waiting.Load() == 0 {
		r.waiting.Store(clock())
	}
	return r.nc.Read(b)
}

// Append encodes a request behind dst. A frame that is larger than the server
// takes is frame.ErrTooLarge: it would cost the connection.
func (c *Conn) Append(dst []byte, f *chatv1.ClientFrame) ([]byte, error) {
	out, err := frame.Append(dst, f)
	if n := len(out) - len(dst) - frame.HeaderLen; err == nil && n > int(c.maxFrame) {
		return dst, fmt.Errorf("%w: %d bytes, the server takes %d", frame.ErrTooLarge, n, c.maxFrame)
	}
	return out, err
}

// Write writes encoded frames, all of them or none that the server will act on:
// after an error the connection is of no use, and Serve ends.
func (c *Conn) Write(frames []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.wrote.Store(true)
	return c.write(frames, writeTimeout)
}

// write needs the lock.
func (c *Conn) write(frames []byte, limit time.Duration) error {
	if failed := c.failed.Load(); failed != nil {
		return *failed // what was written in part must not be followed by more
	}
	err := c.nc.SetWriteDeadline(time.Now().Add(limit))
	if err == nil {
		_, err = c.nc.Write(frames)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w for %v: %w", ErrStuck, limit, err)
	default:
		err = fmt.Errorf("write: %w", err)
	}
	c.failed.Store(&err)
	_ = c.nc.SetReadDeadline(time.Now().Add(goodbyeTimeout)) // Serve ends
	return err
}

// Close ends the connection at once. It does not wait.
func (c *Conn) Close() { _ = c.Fail(net.ErrClosed) }

// Fail does the same for another reason. It returns the first reason that there
// was, which is also what Serve returns. Closing the socket ends what reads and
// writes.
func (c *Conn) Fail(reason error) error {
	if c.cause.CompareAndSwap(nil, &reason) {
		c.stopPings()
		_ = socket(c.nc).Close()
	}
	return *c.cause.Load()
}
