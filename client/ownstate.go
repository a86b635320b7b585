package client

import (
	"context"
	"errors"
	"strings"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
)

// Own states: how far the user has read, and drafts. What is set here is kept in
// the store at once, for all processes of the profile, and is unsent until a server
// has answered to it; store.OwnState has the rules. Servers send the numbers of own
// states with the heads, at every connect those of all conversations, so a device
// that was away for a month does the same as one that missed a push.

const (
	// maxOwnFlying bounds the unanswered SetOwnState requests, one a conversation.
	maxOwnFlying = 16
	// ownPage is how many own states are read at once, from the store or from a
	// server that names no limit.
	ownPage = 50
)

// ownSync is the owner's view of own states.
type ownSync struct {
	// shown is what the application has set or learnt, or will learn from an event:
	// the store as it was at order.
	shown map[uint64]OwnState
	order int64
	owed  map[uint64]bool   // events that did not fit into the queue
	sets  map[uint64]uint64 // calls of SetDraft by the application

	// Reading. newer are numbers from servers that are greater than those in shown.
	newer   map[uint64]uint64
	reading bool
	readAt  time.Time // not before; zero if at once
	readN   int       // refused in a row

	// Sending, by the process that holds the sender's lock.
	maybe    bool                // the store may have unsent states that are not in flight
	nextAt   time.Time           // when to look again; zero if at once
	flying   map[uint64]bool     // asked on this link, not answered
	held     map[uint64]*delayed // after a temporary refusal
	rejected map[uint64]rejected // refused for good on this link
}

// rejected is what a server has refused of an own state: the read mark, and the draft
// by OwnState.Edits. 0 is none.
type rejected struct{ read, edits uint64 }

// delayed is a conversation whose state a server refused for a while.
type delayed struct {
	until    time.Time
	refusals int // in a row
}

// initOwn loads what the store has.
func (o *owner) initOwn() error {
	all, err := o.opt.Store.OwnStates(o.disk, 0)
	if err != nil {
		return err
	}
	o.own = ownSync{
		shown: map[uint64]OwnState{}, owed: map[uint64]bool{}, sets: map[uint64]uint64{}, newer: map[uint64]uint64{},
	}
	o.own.connected()
	for _, own := range all {
		o.own.shown[own.Conversation], o.own.order = own.OwnState, own.Order
	}
	return nil
}

// connected starts over with another server.
func (w *ownSync) connected() {
	w.flying, w.held, w.rejected = map[uint64]bool{}, map[uint64]*delayed{}, map[uint64]rejected{}
	w.reading, w.readAt, w.readN = false, time.Time{}, 0
	w.look()
}

// move forgets a provisional conversation.
func (w *ownSync) move(from, to uint64) {
	w.sets[to] += w.sets[from]
	delete(w.shown, from)
	delete(w.owed, from)
	delete(w.sets, from)
}

// look has the unsent states read again.
func (w *ownSync) look() { w.maybe, w.nextAt = true, time.Time{} }

// followOwn reports what others or a server changed in the store, except in
// conversations that the application has not learnt of yet: see notifyOwnLater.
func (o *owner) followOwn() {
	w := &o.own
	changed, err := o.opt.Store.OwnStates(o.disk, w.order)
	if err != nil {
		o.log.Error("own states not read", "err", err)
		return
	}
	var tell []uint64
	for _, own := range changed {
		id, before := own.Conversation, w.shown[own.Conversation]
		w.order, w.shown[id] = own.Order, own.OwnState
		if w.newer[id] <= own.Number {
			delete(w.newer, id)
		}
		if !own.Same(before) && o.knows(id) {
			tell = append(tell, id)
		}
	}
	if len(tell) > 0 && o.readMoves() {
		w.look()
	}
	for _, id := range tell {
		o.notifyOwn(id)
	}
}

// knows says whether the application has learnt of a conversation.
func (o *owner) knows(id uint64) bool {
	if o.opt.SendOnly || Provisional(id) || o.sync.convs[id] != nil {
		return true
	}
	_, there, err := o.opt.Store.Conversation(o.disk, id)
	return err == nil && there
}

// notifyOwnLater reports an own state that was there before its conversation.
func (o *owner) notifyOwnLater(id uint64) {
	if own := o.own.shown[id]; !own.Same(OwnState{}) {
		o.own.owed[id] = true
	}
}

// notifyOwn reports one state, now or later.
func (o *owner) notifyOwn(id uint64) {
	if o.opt.SendOnly {
		return
	}
	w := &o.own
	if !o.notify(OwnStateChanged{Conversation: id, Own: w.shown[id], Sets: w.sets[id]}) {
		w.owed[id] = true
	}
}

// notifyOwed reports the states that did not fit into the queue before.
func (o *owner) notifyOwed() {
	for id := range o.own.owed {
		delete(o.own.owed, id)
		if o.notifyOwn(id); o.own.owed[id] {
			return
		}
	}
}

// SetRead raises the read mark of a conversation. It is kept here at once and sent to
// a server when there is one.
func (c *Client) SetRead(ctx context.Context, conversation, seq uint64) error {
	_, err := c.In(c.Epoch()).SetRead(ctx, conversation, seq)
	return err
}

// SetDraft keeps an unfinished text; "" removes it. It is kept here at once and sent
// to a server when there is one; one that is longer than a message may be is not sent.
// A draft that another window has set meanwhile is not lost: the text goes below it,
// and OwnStateChanged says so.
func (c *Client) SetDraft(ctx context.Context, conversation uint64, draft string) error {
	_, err := c.setDraft(ctx, c.Epoch(), conversation, draft, func(o *owner, id uint64) string {
		return o.own.shown[id].Draft
	})
	return err
}

// setDraft replaces the known draft, and puts the new one below any other.
func (c *Client) setDraft(
	ctx context.Context, epoch, conversation uint64, draft string, known func(o *owner, conversation uint64) string,
) (OwnState, error) {
	draft = strings.ToValidUTF8(draft, "\uFFFD")
	return c.setOwn(ctx, epoch, conversation, func(o *owner, conv Cached) func(*OwnState) {
		before := known(o, conv.ID)
		o.own.sets[conv.ID]++
		return func(own *OwnState) {
			text := draft
			if own.Draft != before {
				text = store.JoinDrafts(own.Draft, draft)
			}
			own.SetDraft(text, now())
		}
	})
}

// now is the time as the store keeps it.
func now() time.Time { return time.UnixMilli(time.Now().UnixMilli()) }

// prepare returns the change that the application wants for a conversation as it is.
type prepare func(o *owner, conv Cached) (change func(*OwnState))

// setOwn changes an own state and returns it as it is right afterwards.
func (c *Client) setOwn(ctx context.Context, epoch, conversation uint64, prepare prepare) (OwnState, error) {
	reply := make(chan OwnState, 1) // not a variable: ctx may end before the owner is done
	err := c.onOwner(ctx, func(o *owner) error {
		own, err := o.setOwn(epoch, conversation, prepare)
		reply <- own
		return err
	})
	if err != nil {
		return OwnState{}, err
	}
	return <-reply, nil
}

func (o *owner) setOwn(epoch, id uint64, prepare prepare) (OwnState, error) {
	if !Provisional(id) && o.inEpoch(epoch) != o.sync.epoch {
		return OwnState{}, store.ErrStale
	}
	o.checkMoves()
	conv, there, err := o.opt.Store.Conversation(o.disk, id)
	if err != nil {
		return OwnState{}, err
	}
	if !there {
		conv.ID = id
	}
	w := &o.own
	before, after := w.shown[conv.ID], OwnState{}
	others := false // the state has changes by others, too
	sets := w.sets[conv.ID]
	change := prepare(o, conv)
	fn := func(_ uint64, own *OwnState) {
		others = !own.Same(before)
		change(own)
		after = *own
	}
	err = o.opt.Store.ChangeOwn(o.disk, o.sync.epoch, []uint64{conv.ID}, fn)
	if errors.Is(err, store.ErrStale) && o.sync.epoch == 0 {
		o.followEpoch() // another process was the first to connect
		err = o.opt.Store.ChangeOwn(o.disk, o.sync.epoch, []uint64{conv.ID}, fn)
	}
	if err != nil {
		w.sets[conv.ID] = sets // it was not set
		return OwnState{}, err
	}
	w.shown[conv.ID] = after
	if others {
		o.notifyOwn(conv.ID)
	}
	w.look()
	return after, nil
}

// ordinalOf returns a message's number, at most the head's, and its ordinal. If the
// message is not stored, that is the least possible one; the server corrects it.
func (o *owner) ordinalOf(c Cached, seq uint64) (uint64, uint64) {
	if Provisional(c.ID) {
		return 0, 0
	}
	if c.Head != 0 {
		seq = min(seq, c.Head)
	}
	switch {
	case c.Last != nil && c.Last.Seq == seq:
		return seq, c.Last.Ordinal
	case c.Head == 0:
		return seq, seq
	case c.Head == seq:
		return seq, c.HeadOrdinal
	}
	page, err := o.opt.Store.Messages(o.disk, c.ID, seq+1, 1)
	if err == nil && len(page) == 1 && page[0].Seq == seq {
		return seq, page[0].Ordinal
	}
	return seq, max(c.Own.ReadOrdinal, c.HeadOrdinal-min(c.HeadOrdinal, c.Head-seq))
}

// OwnStates asks the server for the user's own states in conversations, and returns
// all that are then stored here. With a server that keeps none those are this
// machine's only.
func (c *Client) OwnStates(ctx context.Context, conversations []uint64) (map[uint64]OwnState, error) {
	for left := conversations; len(left) > 0; {
		ids := left[:min(len(left), ownPage)]
		f, err := c.request(ctx, readOwnStates(ids), func(o *owner, f *chatv1.ServerFrame) error {
			states, err := asOwnStates(f, ids)
			if err == nil {
				o.takeOwn(states...)
			}
			return err
		})
		if errors.Is(err, errOldServer) {
			break
		}
		if err != nil {
			return nil, err
		}
		left = left[len(f.GetOwnStates().GetStates()):]
	}
	all, err := c.opt.Store.OwnStates(ctx, 0)
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]OwnState, len(all))
	for _, own := range all {
		out[own.Conversation] = own.OwnState
	}
	return out, nil
}
