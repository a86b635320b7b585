package client

import (
	"errors"
	"slices"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

// Who sends: the outbox and the unsent own states are one queue for all processes
// of a profile, and the store's lock makes one of them the sender. The rule is: a
// client holds the lock while it is online and there is something to send, and no
// longer. So a program that has a connection sends what any of them queued; there is
// no election, an offline program never blocks one that has a connection, and a
// program that ends or dies frees the lock. The next sender begins with the oldest
// unacknowledged message; the server recognizes those that it has already.

const (
	// window is how many unsettled messages are held in memory.
	window = 256
	// defaultOutstanding is used where the server names no limit.
	defaultOutstanding = 32
)

// lane keeps the order of a conversation's messages. A message is sent only after
// all earlier ones have been sent on this link; the server keeps their order from
// there. Those of a provisional conversation wait until it is resolved, and go on
// in the lane of the real one.
type lane struct {
	inFlight  int
	resolving bool // OpenDirect is under way
	// After a temporary refusal the lane is held until that time; then messages are
	// tried one by one until one is acknowledged.
	held     bool
	until    time.Time
	refusals int // in a row
}

// outboxState is the sending side.
type outboxState struct {
	maybe  bool // the store may have queued messages
	more   bool // the store may have some above loaded
	locked bool
	rows   []*Outgoing // unsettled, in order
	loaded int64       // the greatest order that was loaded
	lanes  map[uint64]*lane
	flying map[MessageID]bool // of rows: sent on this link, not answered
	nextAt time.Time          // when send has something to do again; zero if unknown

	settled []Outgoing // flush stores and reports them

	waiters map[MessageID][]chan Outgoing
	lookAt  time.Time // when the store is looked at again
	again   bool      // a look-up for waiters failed
	owed    bool      // an OutboxChanged did not fit into the queue
}

func (b *outboxState) init() {
	b.maybe, b.more = true, true
	b.lanes, b.flying, b.waiters = map[uint64]*lane{}, map[MessageID]bool{}, map[MessageID][]chan Outgoing{}
}

func (b *outboxState) lane(conversation uint64) *lane {
	l := b.lanes[conversation]
	if l == nil {
		l = &lane{}
		b.lanes[conversation] = l
	}
	return l
}

// move brings the messages of a provisional conversation into the real one's lane.
func (b *outboxState) move(from, to uint64) {
	for _, r := range b.rows {
		if r.Conversation == from {
			r.Conversation = to
		}
	}
	delete(b.lanes, from)
}

// send sends messages and own states; one process of the profile does so at a time.
func (o *owner) send(now time.Time) {
	b := &o.outbox
	b.nextAt = time.Time{}
	if !b.locked && !o.lock(now) {
		return
	}
	busy := o.sendOutbox(now)
	if o.sendOwn(now) || busy {
		return
	}
	o.unlock()
}

// sendOutbox sends the messages that may be sent now, and says whether there are
// any.
func (o *owner) sendOutbox(now time.Time) bool {
	b := &o.outbox
	o.load()
	if len(b.rows) == 0 {
		b.maybe = b.more // more is left set where the store failed
		if b.more {
			b.nextAt = now.Add(pollSeldom)
		}
		return false
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
		if len(b.flying) >= limit {
			break
		}
		l := b.lane(r.Conversation)
		// What stops a message stops all later ones of its lane.
		switch {
		case b.flying[r.ID], l.resolving:
		case l.held && (now.Before(l.until) || l.inFlight > 0):
			if now.Before(l.until) {
				b.nextAt = earliest(b.nextAt, l.until)
			}
		case Provisional(r.Conversation):
			if !o.resolve(l, r.Conversation) {
				b.nextAt = now
				return true // later ones wait, too
			}
		default:
			o.sendOne(l, r)
		}
	}
	return true
}

// lock makes this client the sender, if there is something to send and nobody
// else is.
func (o *owner) lock(now time.Time) bool {
	if !o.queued(now) && !o.unsentOwn(now) {
		return false
	}
	b := &o.outbox
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

// queued says whether there is a message to send.
func (o *owner) queued(now time.Time) bool {
	b := &o.outbox
	if !b.maybe {
		return false
	}
	first, err := o.opt.Store.Queued(o.disk, 0, 1)
	if err != nil {
		o.log.Error("outbox not read", "err", err)
		b.nextAt = now.Add(pollSeldom)
		return false
	}
	b.maybe = len(first) > 0
	return b.maybe
}

// unlock lets others send. Rows are loaded again with the next lock.
func (o *owner) unlock() {
	b := &o.outbox
	b.rows, b.loaded = nil, 0
	clear(b.lanes)
	clear(b.flying)
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
	for i := range page {
		b.loaded = page[i].Order
		b.rows = append(b.rows, &page[i])
	}
	if len(page) > 0 {
		// A message to a real conversation may stand behind one that was loaded while
		// the conversation was provisional.
		o.checkMoves()
	}
}

// sendOne puts a message on the wire.
func (o *owner) sendOne(l *lane, r *Outgoing) {
	b := &o.outbox
	l.inFlight++
	b.flying[r.ID] = true
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
		ConversationId: r.Conversation, ClientMsgId: r.ID[:], Kind: r.Kind, Body: r.Body,
	}}}, func(f *chatv1.ServerFrame, err error) {
		if errors.Is(err, errLost) {
			return // unlock follows; the next sender sends it again
		}
		l.inFlight--
		delete(b.flying, r.ID)
		switch {
		case err != nil && errs.MayPass(err):
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

// hold makes a lane wait after a temporary refusal.
func (o *owner) hold(l *lane, err error) {
	if l.held && time.Now().Before(l.until) {
		return // sent before the first refusal came: it counts once
	}
	l.held = true
	l.refusals++
	l.until = time.Now().Add(retryIn(err, l.refusals))
	o.log.Warn("sending delayed", "err", err, "until", l.until)
}

// sent takes an acknowledgement.
func (o *owner) sent(l *lane, r *Outgoing, s *chatv1.Sent) {
	if s.GetConversationId() != r.Conversation || !validID(s.GetSeq()) {
		o.violate("it acknowledged another message")
		return
	}
	l.held, l.refusals = false, 0
	r.State, r.Seq, r.Existing = store.Acknowledged, s.GetSeq(), s.GetExisting()
	r.LoggedAt = time.UnixMilli(s.GetCreatedAtMs())
	o.settle(r)
	ordinal := min(s.GetOrdinal(), r.Seq)
	if o.opt.SendOnly {
		o.readBySending(r, ordinal)
	}
	// The acknowledgement stands for the push of the message.
	o.acceptOrLearn(Message{
		Conversation: r.Conversation, Seq: r.Seq, Ordinal: ordinal, ID: r.ID,
		Sender: o.opt.Session.User.ID, Kind: r.Kind, Body: r.Body, At: r.LoggedAt,
	})
}

// readBySending raises the read mark to the last message that waited in a
// conversation: a person who writes has read what is above. It does not do so for each
// message, because a change of the store costs all processes of the profile a look.
func (o *owner) readBySending(r *Outgoing, ordinal uint64) {
	if slices.ContainsFunc(o.outbox.rows, func(w *Outgoing) bool { return w.Conversation == r.Conversation }) {
		return
	}
	o.changeOwn([]uint64{r.Conversation}, func(_ uint64, own *OwnState) { own.SetRead(r.Seq, ordinal) })
	o.own.look()
}

// refused takes a permanent refusal.
func (o *owner) refused(r *Outgoing, err error) {
	e := errs.From(err)
	o.log.Warn("message refused", "id", r.ID.String(), "code", string(e.Code))
	r.State, r.Code, r.Reason = store.Failed, e.Code, e.Message
	o.settle(r)
}

// settle takes a message out of the queue. flush stores and reports it.
func (o *owner) settle(r *Outgoing) {
	b := &o.outbox
	b.rows = slices.DeleteFunc(b.rows, func(other *Outgoing) bool { return other == r })
	b.settled = append(b.settled, *r)
}

// resolve asks for the real conversation of a provisional one. false means that the
// rows changed instead.
func (o *owner) resolve(l *lane, provisional uint64) bool {
	c, there, err := o.opt.Store.Conversation(o.disk, provisional)
	switch {
	case err != nil:
		o.hold(l, err)
		return true
	case !there:
		o.unresolvable(provisional, store.ErrNoConversation)
		return false
	case c.ID != provisional:
		o.checkMoves()
		return false
	}
	l.resolving = true
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: c.Peer.Name},
	}}, func(f *chatv1.ServerFrame, err error) {
		if errors.Is(err, errLost) {
			return
		}
		l.resolving = false
		var direct Conversation
		if err == nil {
			direct, err = asConversation(f.GetConversation())
		}
		if err == nil {
			err = o.opened(store.PeerKey(c.Peer.Name), direct)
		}
		switch {
		case err == nil:
			l.held, l.refusals = false, 0
		case errs.MayPass(err) || errs.CodeOf(err) == errs.CodeUnauthenticated || errors.Is(err, store.ErrStale):
			o.hold(l, err)
		default:
			o.unresolvable(provisional, err)
		}
	})
	return true
}

// unresolvable refuses all loaded messages of a provisional conversation; later
// ones come to it when they are loaded.
func (o *owner) unresolvable(provisional uint64, err error) {
	for _, r := range slices.Clone(o.outbox.rows) {
		if r.Conversation == provisional {
			o.refused(r, err)
		}
	}
}

// flush stores and reports what the last frames brought: first outcomes, then
// messages, then heads.
func (o *owner) flush() {
	b := &o.outbox
	if len(b.settled) > 0 {
		if err := o.opt.Store.Settle(o.disk, b.settled); err != nil {
			// They will be sent again, and the server finds them in the log.
			o.log.Error("outcomes not stored", "err", err)
		}
		for _, out := range b.settled {
			o.settledOne(out)
		}
		b.settled = b.settled[:0]
	}
	o.flushMessages()
	o.flushHeads()
}

// settledOne answers all who wait for a message.
func (o *owner) settledOne(out Outgoing) {
	for _, reply := range o.outbox.waiters[out.ID] {
		reply <- out
	}
	delete(o.outbox.waiters, out.ID)
	if !o.notify(SendChanged{out}) {
		o.outbox.owed = true
	}
}
