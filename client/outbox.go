package client

import (
	"errors"
	"strconv"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

// Who sends: the outbox is one queue for all processes of a profile, and the
// store's lock makes one of them the sender. The rule is: a client holds the
// lock while it is online and there is something to send, and no longer. So
// whoever has a connection sends what anybody queued; nobody has to be elected,
// an offline program never stands in the way of one that has a connection, and
// a program that ends or dies frees the lock. The next sender begins with the
// oldest unacknowledged message; the server knows those that it has already.

const (
	// window is how many unsettled messages are held in memory.
	window = 256
	// defaultOutstanding is used where the server names no limit.
	defaultOutstanding = 32
)

// row is an unsettled message.
type row struct {
	store.Outgoing
	inFlight bool
}

// lane keeps the order of messages that may be for the same conversation. A
// message is sent only after all earlier ones of its lane have been sent on
// this link; the server keeps their order from there.
type lane struct {
	inFlight  int
	resolving bool // OpenDirect is under way
	// After a refusal that may pass, the lane is held until the time; then
	// messages are tried one by one until one is acknowledged.
	held     bool
	until    time.Time
	refusals int // in a row
}

// outboxState is the sending side.
type outboxState struct {
	maybe  bool // the store may have queued messages
	more   bool // the store may have some above loaded
	locked bool
	rows   []*row // in order
	loaded int64  // the greatest order that was loaded
	lanes  map[string]*lane
	flying int       // rows in flight
	nextAt time.Time // when sendOutbox has something to do again; zero if unknown

	settled []store.Settlement // by flush
	gone    map[MessageID]Outgoing

	waiters map[MessageID][]chan Outgoing
	lookAt  time.Time // when the store is looked at again
	again   bool      // a look-up for waiters failed
	owed    bool      // an OutboxChanged did not fit into the queue
}

func (b *outboxState) init() {
	b.maybe, b.more = true, true
	b.lanes, b.gone, b.waiters = map[string]*lane{}, map[MessageID]Outgoing{}, map[MessageID][]chan Outgoing{}
}

// laneOf names the lane: by peer, since a message to a name and one to the
// conversation with that peer must not overtake each other.
func laneOf(o Outgoing) string {
	if o.PeerKey != "" {
		return o.PeerKey
	}
	return "#" + strconv.FormatUint(o.Conversation, 10) // no name has a #
}

func (b *outboxState) lane(o Outgoing) *lane {
	l := b.lanes[laneOf(o)]
	if l == nil {
		l = &lane{}
		b.lanes[laneOf(o)] = l
	}
	return l
}

// sendOutbox sends what may be sent now.
func (o *owner) sendOutbox(now time.Time) {
	b := &o.outbox
	b.nextAt = time.Time{}
	if !b.locked && (!b.maybe || !o.lock(now)) {
		return
	}
	o.load()
	if len(b.rows) == 0 {
		o.unlock()
		b.maybe = b.more // more is left set where the store failed
		if b.more {
			b.nextAt = now.Add(pollSeldom)
		}
		return
	}
	limit := int(o.live.Welcome.GetLimits().GetMaxUnacknowledged())
	if limit <= 0 {
		limit = defaultOutstanding
	}
	if o.opt.Outstanding > 0 {
		limit = min(limit, o.opt.Outstanding)
	}
	limit = min(limit, window)
	for _, r := range b.rows {
		if b.flying >= limit {
			return
		}
		l := b.lane(r.Outgoing)
		// What stops a message stops all later ones of its lane.
		switch {
		case r.inFlight, l.resolving:
		case l.held && (now.Before(l.until) || l.inFlight > 0):
			if now.Before(l.until) {
				b.nextAt = earliest(b.nextAt, l.until)
			}
		case r.Conversation == 0:
			o.resolve(l, r.Outgoing)
		default:
			o.send(l, r)
		}
	}
}

// lock makes this client the sender, if there is something to send and nobody
// else is.
func (o *owner) lock(now time.Time) bool {
	b := &o.outbox
	queued, err := o.opt.Store.Queued(o.disk, 0, 1)
	if err != nil {
		o.log.Error("outbox not read", "err", err)
		b.nextAt = now.Add(pollSeldom)
		return false
	}
	if len(queued) == 0 {
		b.maybe = false
		return false
	}
	ok, err := o.opt.Store.TryLock()
	if err != nil {
		o.log.Error("outbox not locked", "err", err)
		b.nextAt = now.Add(pollSeldom)
		return false
	}
	if !ok {
		b.nextAt = now.Add(pollOften)
		return false
	}
	b.locked, b.more, b.loaded = true, true, 0
	return true
}

// unlock lets others send. Rows are loaded again with the next lock.
func (o *owner) unlock() {
	b := &o.outbox
	b.rows, b.flying, b.loaded = nil, 0, 0
	clear(b.lanes)
	if !b.locked {
		return
	}
	b.locked = false
	if err := o.opt.Store.Unlock(); err != nil {
		o.log.Error("outbox not unlocked", "err", err)
	}
}

// load fills the window from the store.
func (o *owner) load() {
	b := &o.outbox
	if !b.more || len(b.rows) >= window {
		return
	}
	want := window - len(b.rows)
	page, err := o.opt.Store.Queued(o.disk, b.loaded, want)
	if err != nil {
		o.log.Error("outbox not read", "err", err)
		b.nextAt = time.Now().Add(pollSeldom)
		return
	}
	b.more = len(page) == want
	for _, out := range page {
		b.loaded = out.Order
		b.rows = append(b.rows, &row{Outgoing: out})
	}
}

// send puts a message on the wire.
func (o *owner) send(l *lane, r *row) {
	b := &o.outbox
	r.inFlight = true
	l.inFlight++
	b.flying++
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
		ConversationId: r.Conversation, ClientMsgId: r.ID[:], Text: r.Text,
	}}}, func(f *chatv1.ServerFrame, err error) {
		if errors.Is(err, errLost) {
			return // unlock follows; the next sender sends it again
		}
		r.inFlight = false
		l.inFlight--
		b.flying--
		switch {
		case err != nil && passing(err):
			o.hold(l, err)
		case err != nil && errs.CodeOf(err) == errs.CodeUnauthenticated:
			o.hold(l, err) // a Goodbye follows; the message is not at fault
		case err != nil:
			o.refused(r, err)
		default:
			o.sent(l, r, f.GetSent())
		}
	})
}

// hold makes a lane wait after a refusal that may pass.
func (o *owner) hold(l *lane, err error) {
	if l.held && time.Now().Before(l.until) {
		return // sent before the first refusal was known: one and the same
	}
	l.held = true
	l.refusals++
	l.until = time.Now().Add(retryIn(err, l.refusals))
	o.log.Warn("sending delayed", "err", err, "until", l.until)
}

// sent takes an acknowledgement.
func (o *owner) sent(l *lane, r *row, s *chatv1.Sent) {
	if s.GetConversationId() != r.Conversation || !validID(s.GetSeq()) {
		o.violate("it acknowledged another message")
		return
	}
	l.held, l.refusals = false, 0
	at := time.UnixMilli(s.GetCreatedAtMs())
	o.settle(r, store.Settlement{
		ID: r.ID, State: store.Acknowledged, Seq: s.GetSeq(), LoggedAt: at, Existing: s.GetExisting(),
	})
	// The acknowledgement is as good as the push of the same message.
	c := o.sync.convs[r.Conversation]
	own := Message{
		Conversation: r.Conversation, Seq: s.GetSeq(), ID: r.ID, Sender: o.opt.Session.User.ID,
		Kind: store.KindText, Text: r.Text, At: at,
	}
	if c == nil || !o.sync.listed || !o.accept(c, own) {
		o.learn(r.Conversation, s.GetSeq())
	}
}

// refused takes a refusal that will not pass.
func (o *owner) refused(r *row, err error) {
	e := errs.From(err)
	o.log.Warn("message refused", "id", r.ID.String(), "code", string(e.Code))
	o.settle(r, store.Settlement{ID: r.ID, State: store.Failed, Code: e.Code, Reason: e.Message})
}

// settle ends a message's stay in the queue. flush stores and tells it.
func (o *owner) settle(r *row, s store.Settlement) {
	b := &o.outbox
	for i := range b.rows {
		if b.rows[i] == r {
			b.rows = append(b.rows[:i], b.rows[i+1:]...)
			break
		}
	}
	b.settled = append(b.settled, s)
	out := r.Outgoing
	out.State, out.Seq, out.LoggedAt, out.Existing = s.State, s.Seq, s.LoggedAt, s.Existing
	out.Code, out.Reason = s.Code, s.Reason
	b.gone[out.ID] = out
}

// resolve asks for the conversation with a peer who was named.
func (o *owner) resolve(l *lane, out Outgoing) {
	l.resolving = true
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: out.Peer},
	}}, func(f *chatv1.ServerFrame, err error) {
		if errors.Is(err, errLost) {
			return
		}
		l.resolving = false
		var c Conversation
		if err == nil {
			c, err = asConversation(f.GetConversation())
		}
		switch {
		case err == nil:
			l.held, l.refusals = false, 0
			o.resolved(out.PeerKey, c)
		case passing(err) || errs.CodeOf(err) == errs.CodeUnauthenticated:
			o.hold(l, err)
		default:
			o.unresolvable(out.PeerKey, err)
		}
	})
}

func (o *owner) resolved(peerKey string, c Conversation) {
	for _, r := range o.outbox.rows {
		if r.PeerKey == peerKey && r.Conversation == 0 {
			r.Conversation = c.ID
		}
	}
	o.opened(peerKey, c)
}

// unresolvable refuses all loaded messages to a peer; later ones come to it
// when they are loaded.
func (o *owner) unresolvable(peerKey string, err error) {
	for _, r := range append([]*row(nil), o.outbox.rows...) {
		if r.PeerKey == peerKey && r.Conversation == 0 {
			o.refused(r, err)
		}
	}
}

// flush stores and tells what the last frames brought: first what was settled,
// then the messages.
func (o *owner) flush() {
	b := &o.outbox
	if len(b.settled) > 0 {
		if err := o.opt.Store.Settle(o.disk, b.settled); err != nil {
			// They are sent again some day, and are found in the log.
			o.log.Error("outcomes not stored", "err", err)
		}
		for _, s := range b.settled {
			o.settledOne(b.gone[s.ID])
			delete(b.gone, s.ID)
		}
		b.settled = b.settled[:0]
	}
	o.flushMessages()
}

// settledOne tells everybody who waits.
func (o *owner) settledOne(out Outgoing) {
	for _, reply := range o.outbox.waiters[out.ID] {
		reply <- out
	}
	delete(o.outbox.waiters, out.ID)
	if !o.notify(SendChanged{out}) {
		o.outbox.owed = true
	}
}
