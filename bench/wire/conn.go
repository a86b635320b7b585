// Package wire is a lean client of the chat protocol, for measuring with tens of
// thousands of connections in one process. It logs in, keeps the connection
// alive and hands out what arrives; resending, pulling and reconnecting are its
// user's. An idle connection holds one goroutine and no buffer.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
)

// protocol is the version of chat.proto that this client speaks.
const protocol = 1

const (
	// maxFrame is more than a server sends: a page of history has 256 KB of text.
	maxFrame = 2 << 20
	// helloTimeout is how long a server may take to let a client in.
	helloTimeout = 30 * time.Second
	// writeTimeout is how long a write may make no progress.
	writeTimeout = 10 * time.Second
)

// GoodbyeError is a server's farewell.
type GoodbyeError struct{ Goodbye *chatv1.Goodbye }

func (e *GoodbyeError) Error() string {
	return fmt.Sprintf("goodbye %s: %s", Code(e.Goodbye), e.Goodbye.GetText())
}

// Code is a Goodbye's code as people write it: "draining".
func Code(g *chatv1.Goodbye) string {
	const prefix = "GOODBYE_CODE_"
	name := g.GetCode().String()
	if len(name) > len(prefix) {
		name = name[len(prefix):]
	}
	return lower(name)
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// errSilent ends a connection whose server said nothing for two heartbeats.
var errSilent = errors.New("the server is silent")

// Handler is told what arrives on a connection. Its methods are called from the
// goroutine in Serve.
type Handler interface {
	// Frame gets every frame but Pong and Goodbye. It must not keep f.
	Frame(f *chatv1.ServerFrame)
	// Drained follows when all that had arrived was handed out.
	Drained()
}

// Conn is a connection that was let in. Write and Close may be called from any
// goroutine; Call and Serve are for one, Call before Serve.
type Conn struct {
	// Instance and UserID are what Welcome told.
	Instance string
	UserID   uint64

	nc        net.Conn
	heartbeat time.Duration
	keeper    *keeper
	slot      int          // the keeper's
	heard     atomic.Int64 // Unix nanoseconds of the last sign of life

	writing sync.Mutex // owns the right to write
	// cause is why the connection was closed, the first reason.
	cause atomic.Pointer[error]
}

// introduce says Hello on a fresh socket and waits for the answer.
func introduce(ctx context.Context, nc net.Conn, hello *chatv1.Hello) (*Conn, error) {
	deadline := time.Now().Add(helloTimeout)
	if limit, ok := ctx.Deadline(); ok && limit.Before(deadline) {
		deadline = limit
	}
	if err := nc.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &Conn{nc: nc}
	f, err := c.call(&chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_Hello{Hello: hello}}, func(f *chatv1.ServerFrame) bool {
		return f.GetWelcome() != nil
	})
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if !stop() {
		return nil, ctx.Err()
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	w := f.GetWelcome()
	c.Instance, c.UserID = w.GetInstance(), w.GetUserId()
	c.heartbeat = time.Duration(w.GetHeartbeatMs()) * time.Millisecond
	c.heard.Store(time.Now().UnixNano())
	return c, nil
}

// Call makes one request and waits for its answer; what is pushed meanwhile is
// dropped. A Failure is returned as *errs.Error.
func (c *Conn) Call(ctx context.Context, request *chatv1.ClientFrame) (*chatv1.ServerFrame, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(helloTimeout)
	}
	if err := c.nc.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	id := request.GetRequestId()
	f, err := c.call(request, func(f *chatv1.ServerFrame) bool { return f.GetRequestId() == id })
	if err != nil {
		return nil, err
	}
	if failure := f.GetFailure(); failure != nil {
		return nil, errs.New(errs.Known(errs.Code(failure.GetCode())), "%s", failure.GetText())
	}
	c.heard.Store(time.Now().UnixNano())
	return f, c.nc.SetReadDeadline(time.Time{})
}

// call reads exactly as far as the frame that is wanted.
func (c *Conn) call(request *chatv1.ClientFrame, wanted func(*chatv1.ServerFrame) bool) (*chatv1.ServerFrame, error) {
	encoded, err := frame.Append(nil, request)
	if err != nil {
		return nil, err
	}
	if _, err := c.nc.Write(encoded); err != nil {
		return nil, err
	}
	f := &chatv1.ServerFrame{}
	for {
		if _, err := frame.Read(c.nc, maxFrame, nil, f); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if g := f.GetGoodbye(); g != nil {
			return nil, &GoodbyeError{g}
		}
		if wanted(f) {
			return f, nil
		}
	}
}

// Serve hands what arrives to h until the connection ends, closes it, and says
// why: a *GoodbyeError, errSilent, net.ErrClosed after Close, or what the network
// said. It never returns nil.
func (c *Conn) Serve(h Handler) error {
	var f chatv1.ServerFrame
	err := Scan(c.nc, maxFrame, func(body []byte) error {
		if err := proto.Unmarshal(body, &f); err != nil {
			return err
		}
		switch b := f.GetBody().(type) {
		case *chatv1.ServerFrame_Pong:
		case *chatv1.ServerFrame_Goodbye:
			return &GoodbyeError{b.Goodbye}
		default:
			h.Frame(&f)
		}
		return nil
	}, func() {
		c.heard.Store(time.Now().UnixNano())
		h.Drained()
	})
	return c.end(err)
}

// Write writes encoded frames, all of them or none that the server will act on:
// after an error the connection is of no use, and Serve ends.
func (c *Conn) Write(frames []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.write(frames)
}

// write needs the lock.
func (c *Conn) write(frames []byte) error {
	err := c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = c.nc.Write(frames)
	}
	if err != nil {
		_ = c.nc.Close() // what was written in part must not be followed by more
	}
	return err
}

// Close ends the connection; Serve then returns net.ErrClosed.
func (c *Conn) Close() { _ = c.end(net.ErrClosed) }

// end closes the socket, which also frees a write that is stuck, and returns the
// first cause.
func (c *Conn) end(cause error) error {
	if c.cause.CompareAndSwap(nil, &cause) && c.keeper != nil {
		c.keeper.forget(c)
	}
	_ = c.nc.Close()
	return *c.cause.Load()
}

// Address is the server's, as it was dialled.
func (c *Conn) Address() string { return c.nc.RemoteAddr().String() }
