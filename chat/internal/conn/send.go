package conn

import (
	"context"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"

	"github.com/msrchat/msrchat/chat/internal/kind"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

var (
	errTooManySends = errs.New(errs.CodeRateLimited,
		"more than %d messages wait for their acknowledgement", MaxUnacknowledged).Retry(100 * time.Millisecond)
	errMessageID = errs.New(errs.CodeInvalid, "client_msg_id must have 16 bytes, not all zero").In("client_msg_id")
)

// send hands a message to its conversation's lane, which calls Sent.
func (c *Conn) send(ctx context.Context, f *chatv1.ClientFrame) error {
	s := f.GetSend()
	k, err := kind.Of(s.GetKind())
	if err != nil {
		return err
	}
	e := msglog.Event{
		Conversation: s.GetConversationId(),
		Sender:       c.session.UserID,
		Kind:         k.Number,
		Body:         s.GetBody(),
		Uncounted:    k.Uncounted,
		Connection:   c.id,
	}
	if n := len(s.GetClientMsgId()); copy(e.ID[:], s.GetClientMsgId()) != n || n != len(e.ID) || e.ID == [16]byte{} {
		return errMessageID
	}
	if err := k.Check(s.GetBody()); err != nil {
		return err
	}
	if err := c.refusals.check(e.Conversation, e.ID); err != nil {
		return err
	}
	err = c.enqueue(ctx, f.GetRequestId(), e)
	c.refusals.add(e.Conversation, e.ID, err)
	return err
}

func (c *Conn) enqueue(ctx context.Context, request uint64, e msglog.Event) error {
	if !c.server.opts.Directory.Knows(e.Conversation, e.Sender) {
		err := c.wait(ctx, false, func(ctx context.Context) error {
			return c.server.opts.Directory.Check(ctx, e.Conversation, e.Sender)
		})
		if err != nil {
			return err
		}
	}
	if c.unacknowledged.Add(1) > MaxUnacknowledged {
		c.unacknowledged.Add(-1)
		return errTooManySends
	}
	err := c.server.opts.Lanes.Send(e, c, request)
	if err != nil {
		c.settled(1)
	}
	return err
}

// Sent acknowledges messages, together in one write. It is for the lanes.
func (c *Conn) Sent(answers []lane.Answer) {
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	*buf = (*buf)[:0]
	for i := range answers {
		a := &answers[i]
		c.server.metrics.sendSeconds.Observe(a.Waited.Seconds())
		f := acknowledgement(a)
		if a.Result.Err != nil {
			f = c.failure(a.Result.Err)
		}
		*buf = c.encode(*buf, a.Request, f)
	}
	c.Push(*buf)
	c.settled(int32(len(answers)))
}

func acknowledgement(a *lane.Answer) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Sent{Sent: &chatv1.Sent{
		ConversationId: a.Conversation,
		Seq:            a.Result.Seq,
		Ordinal:        a.Result.Ordinal,
		CreatedAtMs:    a.Result.CreatedAt,
		Existing:       a.Result.Existing,
	}}}
}

// settled counts n sends as answered. The last one ends a connection that drains.
func (c *Conn) settled(n int32) {
	if c.unacknowledged.Add(-n) == 0 {
		if g := c.leaving.Load(); g != nil {
			c.Bye(g)
		}
	}
}

// Drain ends the connection as soon as its messages under way are acknowledged.
// Requests that arrive from now on are dropped; the client repeats them at the
// next server.
func (c *Conn) Drain(g *chatv1.Goodbye) {
	c.leaving.Store(g)
	if c.unacknowledged.Load() == 0 {
		c.Bye(g)
	}
}

// Leaving says that Drain was called.
func (c *Conn) Leaving() bool { return c.leaving.Load() != nil }
