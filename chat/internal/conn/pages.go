package conn

import (
	"context"
	"runtime"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"

	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

func (c *Conn) openDirect(ctx context.Context, f *chatv1.ClientFrame) error {
	conversation, _, err := c.server.opts.Directory.OpenDirect(ctx, c.session.UserID, f.GetOpenDirect().GetPeerName())
	if err != nil {
		return err
	}
	c.answer(f.GetRequestId(), &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Conversation{Conversation: conversation}})
	return nil
}

func (c *Conn) listConversations(ctx context.Context, f *chatv1.ClientFrame) error {
	l := f.GetListConversations()
	page, more, err := c.server.opts.Directory.List(ctx, c.session.UserID, l.GetAfterId(), pageLimit(l.GetLimit()))
	if err != nil {
		return err
	}
	c.page(f.GetRequestId(), &chatv1.ServerFrame{Body: &chatv1.ServerFrame_ConversationList{
		ConversationList: &chatv1.ConversationList{Conversations: page, More: more},
	}})
	return nil
}

const (
	// maxPageBytes keeps a page of long messages well below the outgoing queue.
	maxPageBytes = 256 << 10
	// maxPages is what a user may read at once, some fifty thousand short messages, and
	// pageBytesPerSecond in the long run.
	maxPages           = 8 << 20
	pageBytesPerSecond = 256 << 10
)

// pagesAtOnce are made at a time, on half of the cores: they take these as much as the
// database, and messages go first.
func pagesAtOnce() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// page queues a long answer, which counts against what the user may read.
func (c *Conn) page(request uint64, f *chatv1.ServerFrame) {
	c.server.read.Add(c.session.UserID, -proto.Size(f)>>10)
	c.answer(request, f)
}

func (c *Conn) history(ctx context.Context, f *chatv1.ClientFrame) error {
	h := f.GetHistory()
	id := h.GetConversationId()
	if err := c.server.opts.Directory.Check(ctx, id, c.session.UserID); err != nil {
		return err
	}
	// The head is read first: a page that is not cut off then reaches at least to it.
	heads, err := c.server.opts.History.Heads(ctx, []uint64{id})
	if err != nil {
		return unavailable(err)
	}
	limit := pageLimit(h.GetLimit())
	var events []msglog.Event
	if h.GetBefore() > 0 {
		events, err = c.server.opts.History.Before(ctx, id, h.GetBefore(), limit)
		events = cutOldest(events)
	} else {
		events, err = c.server.opts.History.After(ctx, id, h.GetAfter(), limit)
		events = cutNewest(events)
	}
	if err != nil {
		return unavailable(err)
	}
	page := &chatv1.HistoryPage{ConversationId: id, Head: heads[id].Seq}
	for i := range events {
		page.Events = append(page.Events, encode.Event(&events[i]))
		page.Head = max(page.Head, events[i].Seq)
	}
	c.page(f.GetRequestId(), &chatv1.ServerFrame{Body: &chatv1.ServerFrame_HistoryPage{HistoryPage: page}})
	return nil
}

// setOwnState changes the user's own state and pushes the change to the user's
// other connections.
func (c *Conn) setOwnState(ctx context.Context, f *chatv1.ClientFrame) error {
	state, changed, err := c.server.opts.OwnStates.Set(ctx, c.session.UserID, f.GetSetOwnState())
	if err != nil {
		return err
	}
	c.answer(f.GetRequestId(), &chatv1.ServerFrame{Body: &chatv1.ServerFrame_OwnState{OwnState: state}})
	if changed {
		c.server.opts.OwnStateChanged(ctx, c.session.UserID, state, c.id)
	}
	return nil
}

var errTooManyStates = errs.New(errs.CodeTooLarge, "at most %d conversations at once", MaxPage).In("conversation_ids")

func (c *Conn) readOwnStates(ctx context.Context, f *chatv1.ClientFrame) error {
	ids := f.GetReadOwnStates().GetConversationIds()
	if len(ids) > MaxPage {
		return errTooManyStates
	}
	states, err := c.server.opts.OwnStates.Read(ctx, c.session.UserID, ids)
	if err != nil {
		return err
	}
	c.page(f.GetRequestId(), &chatv1.ServerFrame{Body: &chatv1.ServerFrame_OwnStates{
		OwnStates: &chatv1.OwnStates{States: states},
	}})
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

// cutNewest drops events from the end of a page that is too long in bytes. It
// keeps the first, so that a reader always makes progress.
func cutNewest(events []msglog.Event) []msglog.Event {
	size := 0
	for i := range events {
		if size += len(events[i].Body); size > maxPageBytes && i > 0 {
			return events[:i]
		}
	}
	return events
}

// cutOldest drops events from the beginning instead, and keeps the last.
func cutOldest(events []msglog.Event) []msglog.Event {
	size := 0
	for i := len(events) - 1; i >= 0; i-- {
		if size += len(events[i].Body); size > maxPageBytes && i < len(events)-1 {
			return events[i+1:]
		}
	}
	return events
}
