package conn

import (
	"context"
	"errors"
	"slices"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/lane"
)

// handle answers one request. An error ends the connection.
func (c *Conn) handle(ctx context.Context, f *chatv1.ClientFrame) error {
	if c.leaving.Load() != nil {
		return nil // said goodbye, or about to: the client repeats this elsewhere
	}
	request := f.GetRequestId()
	if _, ping := f.GetBody().(*chatv1.ClientFrame_Ping); request == 0 && !ping {
		return protocolError{errors.New("a request needs an id other than 0")}
	}
	var err error
	switch body := f.GetBody().(type) {
	case *chatv1.ClientFrame_Ping:
		c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}})
	case *chatv1.ClientFrame_Send:
		err = c.send(ctx, request, body.Send)
	case *chatv1.ClientFrame_OpenDirect:
		err = c.wait(ctx, func(ctx context.Context) error { return c.openDirect(ctx, request, body.OpenDirect) })
	case *chatv1.ClientFrame_History:
		err = c.wait(ctx, func(ctx context.Context) error { return c.history(ctx, request, body.History) })
	case *chatv1.ClientFrame_ListConversations:
		err = c.wait(ctx, func(ctx context.Context) error { return c.listConversations(ctx, request, body.ListConversations) })
	case *chatv1.ClientFrame_Hello:
		return protocolError{errors.New("a second Hello")}
	default:
		err = errs.New(errs.CodeInvalid, "this server does not know that request")
	}
	if err != nil {
		c.refuse(request, err)
	}
	return nil
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

var pong = &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}}

// live gives signs of life until ctx ends. While a request waits for the database
// its client's pings wait behind it, and a database that hangs must not look like
// a server that does: the client would leave, to one that waits as well.
func (c *Conn) live(ctx context.Context, every time.Duration) {
	sign, err := frame.Append(nil, pong)
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

var (
	errTooManySends = errs.New(errs.CodeRateLimited, "more than %d messages wait for their acknowledgement", MaxUnacknowledged).Retry(100 * time.Millisecond)
	errMessageID    = errs.New(errs.CodeInvalid, "client_msg_id must have 16 bytes, not all zero").In("client_msg_id")
)

// send hands a message to its lane; the answer comes from there.
func (c *Conn) send(ctx context.Context, request uint64, s *chatv1.Send) error {
	entry := msglog.Entry{
		SenderID: c.session.UserID, Kind: uint8(chatv1.EventKind_EVENT_KIND_TEXT), Body: []byte(s.GetText()), Connection: c.id,
	}
	if copy(entry.ClientMsgID[:], s.GetClientMsgId()) != len(s.GetClientMsgId()) ||
		len(s.GetClientMsgId()) != len(entry.ClientMsgID) || entry.ClientMsgID == [16]byte{} {
		return errMessageID
	}
	if err := text.Message(s.GetText()); err != nil {
		return err
	}
	if err := c.turns.before(s.GetConversationId(), entry.ClientMsgID); err != nil {
		return err
	}
	err := c.enqueue(ctx, request, s.GetConversationId(), entry)
	c.turns.refused(s.GetConversationId(), entry.ClientMsgID, err)
	return err
}

func (c *Conn) enqueue(ctx context.Context, request, conversation uint64, entry msglog.Entry) error {
	audience := c.server.opts.Directory.Known(conversation)
	if !slices.Contains(audience, c.session.UserID) {
		err := c.wait(ctx, func(ctx context.Context) (err error) {
			audience, err = c.server.opts.Directory.Audience(ctx, conversation, c.session.UserID)
			return err
		})
		if err != nil {
			return err
		}
	}
	if c.unacknowledged.Add(1) > MaxUnacknowledged {
		c.unacknowledged.Add(-1)
		return errTooManySends
	}
	started := time.Now()
	err := c.server.opts.Lanes.Send(conversation, audience, lane.Send{Entry: entry, Done: func(r msglog.Result) {
		c.server.metrics.sendSeconds.Observe(time.Since(started).Seconds())
		c.sent(request, conversation, r)
	}})
	if err != nil {
		c.settled()
	}
	return err
}

// sent acknowledges a message. It is called from the message's lane.
func (c *Conn) sent(request, conversation uint64, r msglog.Result) {
	defer c.settled()
	if r.Err != nil {
		c.refuse(request, r.Err)
		return
	}
	c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Sent{Sent: &chatv1.Sent{
		ConversationId: conversation, Seq: r.Seq, CreatedAtMs: r.CreatedAt, Existing: r.Existing,
	}}})
}

// settled counts a send as answered; the last one lets a leaving connection go.
func (c *Conn) settled() {
	if c.unacknowledged.Add(-1) == 0 {
		if g := c.leaving.Load(); g != nil {
			c.Bye(g)
		}
	}
}

// Drain ends the connection as soon as the messages that it has under way are
// acknowledged. Requests that arrive from now on are dropped; the client makes
// them again where it goes next.
func (c *Conn) Drain(g *chatv1.Goodbye) {
	c.leaving.Store(g)
	if c.unacknowledged.Load() == 0 {
		c.Bye(g)
	}
}

func (c *Conn) openDirect(ctx context.Context, request uint64, o *chatv1.OpenDirect) error {
	conversation, _, err := c.server.opts.Directory.OpenDirect(ctx, c.session.UserID, o.GetPeerName())
	if err != nil {
		return err
	}
	c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Conversation{Conversation: conversation}})
	return nil
}

// maxPageBytes keeps a page of long messages well below the outgoing queue.
const maxPageBytes = 256 << 10

func (c *Conn) history(ctx context.Context, request uint64, h *chatv1.History) error {
	if _, err := c.server.opts.Directory.Audience(ctx, h.GetConversationId(), c.session.UserID); err != nil {
		return err
	}
	// The head first: a page then never reaches beyond it unseen.
	heads, err := c.server.opts.History.Heads(ctx, []uint64{h.GetConversationId()})
	if err != nil {
		return unavailable(err)
	}
	limit := pageLimit(h.GetLimit())
	var events []msglog.Event
	if h.GetBefore() > 0 {
		events, err = c.server.opts.History.Before(ctx, h.GetConversationId(), h.GetBefore(), limit)
		events = cutOldest(events)
	} else {
		events, err = c.server.opts.History.After(ctx, h.GetConversationId(), h.GetAfter(), limit)
		events = cutNewest(events)
	}
	if err != nil {
		return unavailable(err)
	}
	page := &chatv1.HistoryPage{ConversationId: h.GetConversationId(), Head: heads[h.GetConversationId()]}
	for i := range events {
		page.Events = append(page.Events, Event(&events[i]))
		page.Head = max(page.Head, events[i].Seq)
	}
	c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_HistoryPage{HistoryPage: page}})
	return nil
}

func unavailable(err error) error {
	return errs.Wrap(errs.CodeUnavailable, err, "the database does not answer").Retry(time.Second)
}

func pageLimit(asked uint32) int {
	if asked == 0 {
		return MaxPage
	}
	return int(min(asked, MaxPage))
}

// cutNewest drops events from the end of a page that is too long in bytes, but
// never the first: a reader always gets on.
func cutNewest(events []msglog.Event) []msglog.Event {
	size := 0
	for i := range events {
		if size += len(events[i].Body); size > maxPageBytes && i > 0 {
			return events[:i]
		}
	}
	return events
}

// cutOldest does the same from the beginning.
func cutOldest(events []msglog.Event) []msglog.Event {
	size := 0
	for i := len(events) - 1; i >= 0; i-- {
		if size += len(events[i].Body); size > maxPageBytes && i < len(events)-1 {
			return events[i+1:]
		}
	}
	return events
}

// Event is an entry as clients see it.
func Event(e *msglog.Event) *chatv1.Event {
	return &chatv1.Event{
		ConversationId: e.ConversationID, Seq: e.Seq, SenderId: e.SenderID, ClientMsgId: e.ClientMsgID[:],
		Kind: chatv1.EventKind(e.Kind), Text: string(e.Body), CreatedAtMs: e.CreatedAt,
	}
}

func (c *Conn) listConversations(ctx context.Context, request uint64, l *chatv1.ListConversations) error {
	page, more, err := c.server.opts.Directory.List(ctx, c.session.UserID, l.GetAfterId(), pageLimit(l.GetLimit()))
	if err != nil {
		return err
	}
	c.answer(request, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_ConversationList{
		ConversationList: &chatv1.ConversationList{Conversations: page, More: more},
	}})
	return nil
}

// Leaving says that Drain was called.
func (c *Conn) Leaving() bool { return c.leaving.Load() != nil }
