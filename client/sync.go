package client

import (
	"errors"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// maxPulls bounds the logs that are pulled at once: enough to fill the time
	// of a round trip, few enough to leave the server to others.
	maxPulls = 4
	// maxUnknown bounds the conversations that were pushed but not yet listed.
	maxUnknown = 10_000
	// maxFruitless is after how many pulls without progress a head is ignored until
	// the server sends it again.
	maxFruitless = 5
)

// conv is how far one conversation's log was received.
type conv struct {
	id        uint64
	peer      Peer
	hi        uint64 // received: all up to here, from the start of this client on
	head      uint64 // the greatest sequence number that a server named
	ordinal   uint64 // of head, 0 if unknown
	kept      uint64 // head as the store has it, at least
	pulling   bool
	retryAt   time.Time // not before
	fruitless int       // pulls in a row without progress
}

// syncState is the receiving side.
//
// A conversation that is not in convs is either new, and received from its
// first message on, or was never listed. listed says which: it is set once all
// conversations of this epoch were listed, by this client or, as the store says, by
// an earlier one.
type syncState struct {
	epoch   uint64
	listed  bool
	stored  store.State // what the store said at the last Begin
	before  bool        // the conversations were listed in an earlier epoch
	convs   map[uint64]*conv
	behind  map[uint64]*conv  // those with hi < head
	ahead   map[uint64]*conv  // those whose head is to be kept by flush
	unknown map[uint64]uint64 // pushed, not listed: the greatest sequence number
	first   []uint64          // conversations whose newest page is to be fetched
	pulls   int               // under way
	listing bool
	listAt  time.Time // not before
	listN   int       // failed in a row
	fresh   []Message // accepted; flush stores and reports them
	nextAt  time.Time // when pull has something to do again; zero if unknown
}

// initSync loads what the store has.
func (o *owner) initSync() error {
	s := &o.sync
	s.convs, s.behind, s.unknown = map[uint64]*conv{}, map[uint64]*conv{}, map[uint64]uint64{}
	s.ahead = map[uint64]*conv{}
	var err error
	if s.stored, err = o.opt.Store.State(o.ctx); err != nil {
		return err
	}
	s.epoch, s.listed = s.stored.Epoch, s.stored.Listed && !o.opt.FromNow
	if o.opt.SendOnly {
		return nil
	}
	all, err := o.opt.Store.Conversations(o.ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		switch {
		case store.Provisional(c.ID):
		case c.Stored != nil:
			s.convs[c.ID] = &conv{id: c.ID, peer: c.Peer, hi: c.Stored.Hi, kept: c.Head}
		case s.stored.Listed:
			s.convs[c.ID] = &conv{id: c.ID, peer: c.Peer, kept: c.Head}
		}
	}
	return nil
}

// beginEpoch takes over the epoch of a Welcome. In a new one nothing is known of the
// logs but how far they were received; see start.
func (o *owner) beginEpoch(epoch uint64) error {
	st, err := o.opt.Store.Begin(o.ctx, epoch)
	if err != nil {
		return err
	}
	s := &o.sync
	if s.epoch != 0 && s.epoch != epoch {
		o.log.Warn("log epoch changed", "from", s.epoch, "to", epoch)
		s.before = s.before || s.listed
		s.listed = false
		s.behind, s.unknown, s.first = map[uint64]*conv{}, map[uint64]uint64{}, nil
		s.ahead = map[uint64]*conv{}
		for _, c := range s.convs {
			c.head, c.ordinal, c.kept = 0, 0, 0
		}
		o.first = append(o.first, Reset{epoch})
		o.outbox.again, o.outbox.owed = true, true // the store may have failed some
		if err := o.initOwn(); err != nil {
			return err
		}
	}
	s.epoch, s.stored = epoch, st
	o.setEpoch(epoch)
	s.listing, s.listAt = false, time.Time{}
	o.own.connected()
	return nil
}

// notify queues an event if there is room beside the accepted messages.
func (o *owner) notify(e Event) bool { return o.notifyFirst() && o.queue(e) }

// notifyFirst queues what comes before all other events, and says whether all of it
// fitted.
func (o *owner) notifyFirst() bool {
	for len(o.first) > 0 {
		if !o.queue(o.first[0]) {
			return false
		}
		o.first = o.first[1:]
	}
	return true
}

func (o *owner) queue(e Event) bool {
	if len(o.events)+len(o.sync.fresh) >= cap(o.events) {
		return false
	}
	o.events <- e // does not wait: only the owner sends
	return true
}

// room is how many more messages may be accepted.
func (o *owner) room() int {
	if len(o.first) > 0 {
		return 0 // it must come before them
	}
	return o.opt.EventBuffer - len(o.events) - len(o.sync.fresh)
}

// learn notes that a log reaches up to seq; ordinal is 0 if unknown.
func (o *owner) learn(id, seq, ordinal uint64) {
	if o.opt.SendOnly || !validID(id) || seq > store.MaxID {
		return
	}
	c := o.sync.convs[id]
	if c == nil {
		if _, ok := o.sync.unknown[id]; ok || len(o.sync.unknown) < maxUnknown {
			o.sync.unknown[id] = max(o.sync.unknown[id], seq)
		}
		return
	}
	if seq > c.head {
		c.head, c.ordinal = seq, 0
	}
	if seq == c.head {
		c.ordinal = max(c.ordinal, min(ordinal, seq))
	}
	if c.head > c.hi {
		o.sync.behind[id] = c
		if c.head > c.kept {
			o.sync.ahead[id] = c
		}
	}
}

// pushed takes an event that was pushed: the next one, or a hint. One without its
// ordinal, which a server of another release wrote, is a hint, too: the log has it.
func (o *owner) pushed(ev *chatv1.Event) {
	m, err := asMessage(ev)
	if err != nil {
		o.violate("%v", err)
		return
	}
	o.acceptOrLearn(m)
}

func (o *owner) acceptOrLearn(m Message) {
	if c := o.sync.convs[m.Conversation]; c == nil || !o.sync.listed || m.Ordinal == 0 || !o.accept(c, m) {
		o.learn(m.Conversation, m.Seq, m.Ordinal)
	}
}

// accept takes a message if it is the next one and there is room.
func (o *owner) accept(c *conv, m Message) bool {
	if m.Seq != c.hi+1 || o.room() <= 0 {
		return false
	}
	c.hi, c.fruitless = m.Seq, 0
	if m.Seq >= c.head {
		c.head, c.ordinal, c.kept = m.Seq, m.Ordinal, m.Seq
	}
	o.sync.fresh = append(o.sync.fresh, m)
	return true
}

// flushMessages stores and reports what was accepted. It reports messages even if the
// store fails: the log has them.
func (o *owner) flushMessages() {
	s := &o.sync
	if len(s.fresh) == 0 {
		return
	}
	byConv := map[uint64][]Message{}
	for _, m := range s.fresh {
		byConv[m.Conversation] = append(byConv[m.Conversation], m)
	}
	for _, run := range byConv {
		o.keep(run)
	}
	for _, m := range s.fresh {
		// There is room: accept counted, and nobody else fills the queue.
		o.events <- Received{Message: m, Peer: s.convs[m.Conversation].peer, Mine: m.Sender == o.opt.Session.User.ID}
	}
	s.fresh = s.fresh[:0]
}

// flushHeads stores the heads of logs that are not received that far yet, so that
// unread messages are counted at once.
func (o *owner) flushHeads() {
	var ahead []Cached
	for id, c := range o.sync.ahead {
		if c.head > c.hi && c.head > c.kept {
			ahead = append(ahead, Cached{ID: id, Head: c.head, HeadOrdinal: c.ordinal})
			c.kept = c.head
		}
	}
	clear(o.sync.ahead)
	if len(ahead) == 0 {
		return
	}
	if err := o.opt.Store.PutConversations(o.disk, o.sync.epoch, ahead); err != nil {
		if !errors.Is(err, store.ErrStale) {
			o.log.Error("heads not stored", "err", err)
		}
		return
	}
	for _, c := range ahead {
		o.notify(ConversationChanged{c.ID})
	}
}

// keep stores a run if it adjoins what is stored.
func (o *owner) keep(run []Message) {
	_, err := o.opt.Store.Append(o.disk, o.sync.epoch, run)
	if err != nil && !errors.Is(err, store.ErrStale) {
		o.log.Error("messages not stored", "err", err)
	}
}

// pull asks for what is missing: first the list of conversations, then their
// logs.
func (o *owner) pull(now time.Time) {
	s := &o.sync
	s.nextAt = time.Time{}
	if o.opt.SendOnly {
		return
	}
	o.list(now)
	if !s.listed {
		return // it does not know yet where to begin
	}
	for id, c := range s.behind {
		if c.hi >= c.head {
			delete(s.behind, id)
			continue
		}
		if c.pulling {
			continue
		}
		if now.Before(c.retryAt) {
			s.nextAt = earliest(s.nextAt, c.retryAt)
			continue
		}
		if s.pulls >= maxPulls {
			return
		}
		if o.room() < min(pullPage, o.opt.EventBuffer)/2 {
			s.nextAt = earliest(s.nextAt, now.Add(pollOften)) // the application reads slowly
			return
		}
		o.pullNext(c)
	}
	for len(s.first) > 0 && s.pulls < maxPulls {
		id := s.first[0]
		s.first = s.first[1:]
		o.pullFirst(id)
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// pullNext asks for the page after what was received.
func (o *owner) pullNext(c *conv) {
	s := &o.sync
	s.pulls++
	c.pulling = true
	limit := min(pullPage, o.room())
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{History: &chatv1.History{
		ConversationId: c.id, After: c.hi, Limit: uint32(limit),
	}}}, func(f *chatv1.ServerFrame, err error) {
		s.pulls--
		c.pulling = false
		if errors.Is(err, errLost) {
			return
		}
		if err == nil {
			err = o.pulled(c, f.GetHistoryPage())
		}
		if err != nil {
			o.log.Warn("pull refused", "conversation", c.id, "err", err)
			c.fruitless++
			if !errs.MayPass(err) {
				c.fruitless = maxFruitless
			}
		}
		if c.fruitless > 0 {
			c.retryAt = time.Now().Add(retryIn(err, c.fruitless))
		}
		if c.fruitless >= maxFruitless && err != nil && !errs.MayPass(err) || c.fruitless >= 2*maxFruitless {
			c.head, c.fruitless = c.hi, 0
		}
	})
}

// pulled takes a page of messages after what was received.
func (o *owner) pulled(c *conv, p *chatv1.HistoryPage) error {
	page, err := asPage(p, c.id)
	if err != nil {
		return err
	}
	before, full := c.hi, false
	for _, m := range page.Messages {
		if m.Seq <= c.hi {
			continue // pushed meanwhile
		}
		if !o.accept(c, m) {
			full = o.room() <= 0
			break
		}
	}
	o.learn(c.id, min(page.Head, store.MaxID), 0)
	switch {
	case c.hi > before || full || c.hi >= c.head:
		c.fruitless = 0
	default:
		c.fruitless++
		if page.Head <= c.hi && c.fruitless >= maxFruitless {
			c.head = c.hi // the server has nothing more; a push was wrong
		}
	}
	return nil
}

// pullFirst fetches the newest page of a conversation for the store.
func (o *owner) pullFirst(id uint64) {
	s := &o.sync
	c := s.convs[id]
	if c == nil || c.hi == 0 {
		return
	}
	s.pulls++
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{History: &chatv1.History{
		ConversationId: id, Before: c.hi + 1, Limit: uint32(o.opt.FirstPage),
	}}}, func(f *chatv1.ServerFrame, err error) {
		s.pulls--
		var page Page
		if err == nil {
			page, err = asPage(f.GetHistoryPage(), id)
		}
		if err != nil {
			// The application asks with Messages when somebody wants to read it.
			o.log.Debug("first page not fetched", "conversation", id, "err", err)
			return
		}
		o.keep(page.Messages)
		o.notify(ConversationChanged{id})
	})
}

// opened takes the answer to OpenDirect for a name.
func (o *owner) opened(peerKey string, c Conversation) error {
	stored := Cached{ID: c.ID, Peer: c.Peer, Head: c.Head, HeadOrdinal: c.Ordinal}
	known := o.sync.convs[c.ID]
	isNew := known == nil && !o.opt.SendOnly && o.sync.listed
	if isNew { // since the listing
		stored.Stored = &store.Range{Lo: 1, Hi: 0}
	}
	if err := o.opt.Store.Resolve(o.disk, o.sync.epoch, peerKey, stored); err != nil {
		o.log.Error("conversation not stored", "err", err)
		return err
	}
	o.checkMoves()
	switch {
	case known != nil:
		known.peer = c.Peer
	case isNew:
		o.sync.convs[c.ID] = &conv{id: c.ID, peer: c.Peer, kept: c.Head}
		delete(o.sync.unknown, c.ID)
		o.notify(ConversationChanged{c.ID})
		o.notifyOwnLater(c.ID)
	}
	o.learn(c.ID, c.Head, c.Ordinal)
	return nil
}
