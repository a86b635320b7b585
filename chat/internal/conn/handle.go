package conn

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
)

// handler serves one kind of request.
type handler struct {
	// waits: it may wait for the database, for as long as a request may take; the
	// client hears signs of life meanwhile.
	waits bool
	// serve answers the request, now or later, or returns why it is refused.
	serve func(c *Conn, ctx context.Context, f *chatv1.ClientFrame) error
}

// handlers has a row for each request of chat.proto, by the field's number in
// ClientFrame.
var handlers = map[protoreflect.FieldNumber]handler{
	3: {serve: (*Conn).ping},
	4: {serve: (*Conn).send},
	5: {waits: true, serve: (*Conn).openDirect},
	6: {waits: true, serve: (*Conn).history},
	7: {waits: true, serve: (*Conn).listConversations},
	8: {waits: true, serve: (*Conn).setOwnState},
	9: {waits: true, serve: (*Conn).readOwnStates},
}

// The fields of ClientFrame's oneof, and two that are no requests.
var requests = (&chatv1.ClientFrame{}).ProtoReflect().Descriptor().Oneofs().ByName("body")

const (
	helloField = 2
	pingField  = 3
)

var errUnknownRequest = errs.New(errs.CodeInvalid, "this server does not know that request")

// handle answers one request. An error ends the connection.
func (c *Conn) handle(ctx context.Context, f *chatv1.ClientFrame) error {
	if c.leaving.Load() != nil {
		return nil // said goodbye, or about to: the client repeats this elsewhere
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
	h, there := handlers[number]
	var err error
	switch {
	case !there:
		err = errUnknownRequest
	case h.waits:
		err = c.wait(ctx, func(ctx context.Context) error { return h.serve(c, ctx, f) })
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

// wait runs what may wait for the database, for as long as a request may take,
// and gives signs of life meanwhile.
func (c *Conn) wait(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	every := min(signOfLife, c.server.opts.Heartbeat/2)
	defer time.AfterFunc(every, func() { c.live(ctx, every) }).Stop()
	return fn(ctx)
}

// live gives signs of life until ctx ends. While a request waits for the database
// its client's pings wait behind it, and a database that hangs must not look like
// a server that does: the client would leave, to one that waits as well.
func (c *Conn) live(ctx context.Context, every time.Duration) {
	sign, err := frame.Append(nil, pong())
	if err != nil {
		c.server.log.Error("encode pong", "err", err)
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		c.Push(sign)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
