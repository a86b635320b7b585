package conn

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/retry"
)

// handler serves one kind of request.
type handler struct {
	// waits: it may wait for the database, at most requestTimeout. Meanwhile the
	// client gets Pongs. page: its answer may be long; see Conn.wait.
	waits, page bool
	// serve answers the request, now or later, or returns why it is refused.
	serve func(c *Conn, ctx context.Context, f *chatv1.ClientFrame) error
}

// handlers has a row for each request of chat.proto, by the number of its field
// in ClientFrame.
var handlers = map[protoreflect.FieldNumber]handler{
	3: {serve: (*Conn).ping},
	4: {serve: (*Conn).send},
	5: {waits: true, serve: (*Conn).openDirect},
	6: {waits: true, page: true, serve: (*Conn).history},
	7: {waits: true, page: true, serve: (*Conn).listConversations},
	8: {waits: true, serve: (*Conn).setOwnState},
	9: {waits: true, page: true, serve: (*Conn).readOwnStates},
}

// requests is the oneof of ClientFrame.
var requests = (&chatv1.ClientFrame{}).ProtoReflect().Descriptor().Oneofs().ByName("body")

// Fields of requests that have rules of their own: Hello comes once, and a Ping
// needs no request id.
const (
	helloField = 2
	pingField  = 3
)

var errUnknownRequest = errs.New(errs.CodeInvalid, "this server does not know that request")

// handle answers one request. An error ends the connection.
func (c *Conn) handle(ctx context.Context, f *chatv1.ClientFrame) error {
	if c.leaving.Load() != nil {
		return nil // the connection drains: the client repeats this elsewhere
	}
	var number protoreflect.FieldNumber
	if field := f.ProtoReflect().WhichOneof(requests); field != nil {
		number = field.Number()
	}
	switch {
	case f.GetRequestId() == 0 && number != pingField:
		return protocolError{errors.New("a request needs an id other than 0")}
	case number == helloField:
		return protocolError{errors.New("a second Hello")}
	}
	h, ok := handlers[number]
	var err error
	switch {
	case !ok:
		err = errUnknownRequest
	case h.waits:
		err = c.wait(ctx, h.page, func(ctx context.Context) error { return h.serve(c, ctx, f) })
	default:
		err = h.serve(c, ctx, f)
	}
	if err != nil {
		c.refuse(f.GetRequestId(), err)
	}
	return nil
}

func (c *Conn) ping(_ context.Context, f *chatv1.ClientFrame) error {
	c.answer(f.GetRequestId(), pong())
	return nil
}

func pong() *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}}
}

// waitMemory is about what a request holds while it waits: stacks and timers.
const waitMemory = 16 << 10

var (
	errHoldsTooMuch = errs.New(errs.CodeExhausted,
		"your connections wait for too many answers, or do not read those they got").Retry(time.Second)
	errTooManyWait = errs.New(errs.CodeExhausted, "too many requests wait for the database").Retry(time.Second)
)

// wait runs fn, which may wait for the database, when it is this user's turn, for at
// most requestTimeout, and sends Pongs meanwhile. Of all who wait those go first who had
// the fewest turns lately. A page also waits until the client has read those before, and
// is refused to a user who read too many.
func (c *Conn) wait(ctx context.Context, page bool, fn func(context.Context) error) error {
	turns := c.server.requests
	if page {
		turns = c.server.pages
		if err := c.mayRead(ctx); err != nil {
			return c.slowDown(ctx, err)
		}
	}
	if !c.in.take(waitMemory) {
		return c.slowDown(ctx, errHoldsTooMuch)
	}
	defer c.in.give(waitMemory)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	every := min(keepAliveInterval, c.server.opts.Heartbeat/2)
	defer time.AfterFunc(every, func() { c.keepAlive(ctx, every) }).Stop()
	turn, err := turns.Enter(ctx, c.session.UserID)
	if err != nil {
		return errTooManyWait
	}
	defer turn.End(false)
	return fn(ctx)
}

// mayRead waits until the client has read its other pages, and says whether it may have
// one more. A client that never reads ends by the write queue's limit.
func (c *Conn) mayRead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := c.out.waitRead(ctx); err != nil || !c.out.share.Room(maxPageBytes) {
		return errHoldsTooMuch
	}
	if wait := c.server.read.Take(c.session.UserID, 1); wait > 0 {
		return errs.New(errs.CodeRateLimited, "you read too much at once; wait a moment").Retry(wait)
	}
	return nil
}

// slowDownTime is how long nothing is read from a connection after such a refusal. A
// client that does not wait as it was told costs little then.
const slowDownTime = time.Second

func (c *Conn) slowDown(ctx context.Context, err error) error {
	retry.Sleep(ctx, slowDownTime)
	return err
}

// keepAlive sends Pongs until ctx ends. The client's pings wait behind a request
// that waits for the database. A database that hangs must not look like a server
// that hangs: the client would leave for a server that waits as well.
func (c *Conn) keepAlive(ctx context.Context, every time.Duration) {
	encoded, err := frame.Append(nil, pong())
	if err != nil {
		c.server.log.Error("encode pong", "err", err)
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		c.Push(encoded)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
