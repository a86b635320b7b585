package client

import (
	"context"
	"errors"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/retry"
)

const (
	// maxPending bounds the unanswered requests on a link, sends not counted.
	maxPending = 64
	// maxCalls bounds the calls that wait for a connection.
	maxCalls = 1024
	// listPage and pullPage are how many entries are asked for at once; the
	// server may give fewer.
	listPage = 200
	pullPage = 100
)

// errLost goes to an answer whose link ended before it came.
var errLost = errors.New("the connection broke before the answer")

// answer handles the answer to a request, a Failure as an *errs.Error, or
// errLost. It is called once, by the owner.
type answer func(f *chatv1.ServerFrame, err error)

// question is an unanswered request and when it was sent.
type question struct {
	then answer
	at   time.Time
}

// call is a request of the application. It is repeated on the next link when
// one breaks: all requests but Send only read, or are idempotent.
type call struct {
	ctx   context.Context
	frame *chatv1.ClientFrame
	epoch uint64 // in which it was made; its ids hold in no other
	take  take
	reply chan result // holds one
}

// take is run by the owner as the answer comes, in the epoch that it is from. It may be
// nil.
type take func(o *owner, f *chatv1.ServerFrame) error

type result struct {
	frame *chatv1.ServerFrame
	err   error
}

// request sends a frame and waits for its answer; without a connection it waits for
// one. After a temporary refusal (unavailable, exhausted, rate limited) it asks again
// until ctx ends; then the refusal is the error.
func (c *Client) request(ctx context.Context, f *chatv1.ClientFrame, take take) (*chatv1.ServerFrame, error) {
	epoch := c.Epoch()
	for attempt := 1; ; attempt++ {
		call := &call{ctx: ctx, frame: f, epoch: epoch, take: take, reply: make(chan result, 1)}
		if err := c.do(ctx, func(o *owner) { o.addCall(call) }); err != nil {
			return nil, err
		}
		var r result
		select {
		case r = <-call.reply:
		case <-ctx.Done():
			return nil, c.gaveUp(ctx)
		case <-c.done:
			return nil, errClosed
		}
		if r.err == nil || !errs.MayPass(r.err) || errors.Is(r.err, errClosed) {
			return r.frame, r.err
		}
		wait := time.NewTimer(retryIn(r.err, attempt))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, r.err
		case <-c.done:
			wait.Stop()
			return nil, errClosed
		}
	}
}

// again are the waits after refusals in a row: a database that restarts is back
// within seconds, and people wait for it.
var again = retry.Policy{Min: 250 * time.Millisecond, Max: 5 * time.Second}

// retryIn is the wait after the nth refusal in a row: at least what the server
// asked for.
func retryIn(err error, n int) time.Duration {
	wait := again.After(n)
	var e *errs.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		wait = max(wait, retry.Asked(min(e.RetryAfter, maxWait)))
	}
	return wait
}

func (o *owner) addCall(c *call) {
	switch {
	case o.state == LoggedOut || o.state == Stopped:
		c.reply <- result{err: o.Client.Link().Cause}
	case len(o.calls) >= maxCalls:
		c.reply <- result{err: errs.New(errs.CodeInternal, "%d requests are waiting already", maxCalls)}
	default:
		o.calls = append(o.calls, c)
	}
}

// sendCalls sends what the application asked for.
func (o *owner) sendCalls() {
	for len(o.calls) > 0 && len(o.pending)-len(o.outbox.flying) < maxPending {
		c := o.calls[0]
		o.calls = o.calls[1:]
		if c.ctx.Err() != nil {
			continue // nobody waits any more
		}
		if since(c.frame) > o.revision() {
			c.reply <- result{err: errOldServer}
			continue
		}
		if namesConversation(c.frame) && o.inEpoch(c.epoch) != o.sync.epoch {
			c.reply <- result{err: store.ErrStale}
			continue
		}
		o.ask(c.frame, func(f *chatv1.ServerFrame, err error) {
			if errors.Is(err, errLost) {
				o.calls = append(o.calls, c)
				return
			}
			if err == nil && c.take != nil {
				err = c.take(o, f)
			}
			c.reply <- result{f, err}
		})
	}
}

// namesConversation says whether a request has ids of conversations in it.
func namesConversation(f *chatv1.ClientFrame) bool {
	switch f.GetBody().(type) {
	case *chatv1.ClientFrame_History, *chatv1.ClientFrame_ReadOwnStates:
		return true
	}
	return false
}

// ask sends a request. Where the link is ending, the answer comes as errLost.
func (o *owner) ask(f *chatv1.ClientFrame, then answer) {
	o.lastID++
	// Another link may send the frame again while this one still writes it, so each
	// sending has its own.
	out := &chatv1.ClientFrame{RequestId: o.lastID, Body: f.GetBody()}
	now := time.Now()
	if len(o.pending) == 0 {
		o.busySince = now
	}
	o.pending[o.lastID] = question{then, now}
	o.live.Send(out)
}

// dropPending answers everything unanswered with errLost.
func (o *owner) dropPending() {
	all := o.pending
	o.pending = map[uint64]question{}
	for _, q := range all {
		q.then(nil, errLost)
	}
}

// onFrame handles one frame from the server.
func (o *owner) onFrame(f *chatv1.ServerFrame) {
	if o.revision() == 0 {
		countAll(f)
	}
	if id := f.GetRequestId(); id != 0 {
		q, ok := o.pending[id]
		if !ok {
			o.log.Debug("answer to nothing", "request", id)
			return
		}
		delete(o.pending, id)
		if fail := f.GetFailure(); fail != nil {
			q.then(f, failure(fail))
			return
		}
		q.then(f, nil)
		return
	}
	switch body := f.GetBody().(type) {
	case *chatv1.ServerFrame_Event:
		o.pushed(body.Event)
	case *chatv1.ServerFrame_Heads:
		for _, h := range body.Heads.GetHeads() {
			o.learn(h.GetConversationId(), h.GetSeq(), h.GetOrdinal())
			o.learnOwn(h.GetConversationId(), h.GetOwnState())
		}
	case *chatv1.ServerFrame_OwnState:
		o.pushedOwn(body.OwnState)
	default:
		o.log.Debug("unknown push") // of a newer server
	}
}

func failure(f *chatv1.Failure) error {
	return errs.New(errs.Known(errs.Code(f.GetCode())), "%s", f.GetText()).
		Retry(time.Duration(f.GetRetryAfterMs()) * time.Millisecond)
}

// The checks on what a server sends. Their errors are CodeInternal: the server, not
// the caller, is at fault.

func validID(id uint64) bool { return id > 0 && id <= store.MaxID }

func asConversation(c *chatv1.Conversation) (Conversation, error) {
	if !validID(c.GetId()) || c.GetHead() > store.MaxID || c.GetPeer().GetId() > store.MaxID {
		return Conversation{}, errs.New(errs.CodeInternal, "the server described a conversation wrongly")
	}
	return Conversation{
		ID: c.GetId(), Peer: Peer{ID: c.GetPeer().GetId(), Name: c.GetPeer().GetName()},
		Head: c.GetHead(), Ordinal: min(c.GetOrdinal(), c.GetHead()),
	}, nil
}

func asList(l *chatv1.ConversationList, after uint64) (page []Conversation, more bool, err error) {
	for _, c := range l.GetConversations() {
		conv, err := asConversation(c)
		if err != nil {
			return nil, false, err
		}
		if conv.ID <= after {
			return nil, false, errs.New(errs.CodeInternal, "the server listed conversations out of order")
		}
		after = conv.ID
		page = append(page, conv)
	}
	if l == nil || l.GetMore() && len(page) == 0 {
		return nil, false, errs.New(errs.CodeInternal, "the server listed nothing")
	}
	return page, l.GetMore(), nil
}

func asPage(p *chatv1.HistoryPage, conversation uint64) (Page, error) {
	if p == nil || p.GetConversationId() != conversation {
		return Page{}, errs.New(errs.CodeInternal, "the server answered with another log")
	}
	out := Page{Head: p.GetHead()}
	for _, ev := range p.GetEvents() {
		m, err := asMessage(ev)
		if err != nil {
			return Page{}, err
		}
		n := len(out.Messages)
		if m.Conversation != conversation || n > 0 && m.Seq != out.Messages[n-1].Seq+1 {
			return Page{}, errs.New(errs.CodeInternal, "the server answered with a log that has a gap")
		}
		out.Messages = append(out.Messages, m)
	}
	return out, nil
}

func asMessage(ev *chatv1.Event) (Message, error) {
	if !validID(ev.GetConversationId()) || !validID(ev.GetSeq()) || ev.GetSenderId() > store.MaxID {
		return Message{}, errs.New(errs.CodeInternal, "the server sent a wrong event")
	}
	m := Message{
		Conversation: ev.GetConversationId(), Seq: ev.GetSeq(), Ordinal: min(ev.GetOrdinal(), ev.GetSeq()),
		Sender: ev.GetSenderId(), Kind: ev.GetKind(), Body: ev.GetBody(), At: time.UnixMilli(ev.GetCreatedAtMs()),
	}
	copy(m.ID[:], ev.GetClientMsgId())
	return m, nil
}
