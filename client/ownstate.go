package client

import (
	"context"
	"errors"
	"strings"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Own states: how far the user has read, and drafts. What is set here is kept in
// the store at once, for all processes of the profile, and is unsent until a server
// has answered to it; store.OwnState has the rules. Servers tell the numbers of own
// states where they tell heads, at every connect those of all conversations, so
// that a device that was away for a month does the same as one that missed a push.

const (
	// maxOwnFlying bounds the unanswered SetOwnState requests, one a conversation.
	maxOwnFlying = 16
	// ownPage is how many own states are read at once, from the store or from a
	// server that names no limit.
	ownPage = 50
)

// ownSync is what the owner knows of own states.
type ownSync struct {
	// shown is what the application was told or set itself, or will be told: the
	// store as it was at order.
	shown map[uint64]OwnState
	order int64
	owed  map[uint64]bool // changes that did not fit into the queue

	// Reading. heard are the numbers that were told and are greater than those in
	// shown.
	heard   map[uint64]uint64
	reading bool
	readAt  time.Time // not before; zero if at once
	readN   int       // refused in a row

	// Telling the server, by the process that holds the sender's lock.
	maybe  bool                // the store may have unsent states that are not in flight
	nextAt time.Time           // when to look again; zero if at once
	flying map[uint64]bool     // asked on this link, not answered
	held   map[uint64]*delayed // after a refusal that may pass
	spoilt map[uint64]spoilt   // refused for good on this link
}

// spoilt is what a server will not take of an own state: the read mark, and that
// edit of the draft. 0 is none.
type spoilt struct{ read, edits uint64 }

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
	o.own = ownSync{shown: map[uint64]OwnState{}, owed: map[uint64]bool{}, heard: map[uint64]uint64{}}
	o.own.connected()
	for _, own := range all {
		o.own.shown[own.Conversation], o.own.order = own.OwnState, own.Order
	}
	return nil
}

// connected begins anew with another server.
func (w *ownSync) connected() {
	w.flying, w.held, w.spoilt = map[uint64]bool{}, map[uint64]*delayed{}, map[uint64]spoilt{}
	w.reading, w.readAt, w.readN = false, time.Time{}, 0
	w.look()
}

// look has the unsent states looked at.
func (w *ownSync) look() { w.maybe, w.nextAt = true, time.Time{} }

// seeOwn tells the application what changed in the store, by others or by a
// server.
func (o *owner) seeOwn() {
	w := &o.own
	changed, err := o.opt.Store.OwnStates(o.disk, w.order)
	if err != nil {
		o.log.Error("own states not read", "err", err)
		return
	}
	for _, own := range changed {
		id, before := own.Conversation, w.shown[own.Conversation]
		w.order, w.shown[id] = own.Order, own.OwnState
		if w.heard[id] <= own.Number {
			delete(w.heard, id)
		}
		if o.opt.SendOnly || own.Same(before) {
			continue
		}
		if !o.notify(OwnStateChanged{Conversation: id, Own: own.OwnState}) {
			w.owed[id] = true
		}
	}
}

// tellOwed tells the latest of what did not fit into the queue before.
func (o *owner) tellOwed() {
	for id := range o.own.owed {
		if !o.notify(OwnStateChanged{Conversation: id, Own: o.own.shown[id]}) {
			return
		}
		delete(o.own.owed, id)
	}
}

// SetRead raises the read mark of a conversation. It is kept here at once and told
// to the server when there is one.
func (c *Client) SetRead(ctx context.Context, conversation, seq uint64) error {
	return c.onOwner(ctx, func(o *owner) error {
		return o.setOwn(conversation, func(conv Cached, own *OwnState) {
			own.SetRead(o.ordinalOf(conv, seq))
		})
	})
}

// SetDraft keeps an unfinished text; "" removes it. It is kept here at once and
// told to the server when there is one; what is longer than a message may be stays
// here.
func (c *Client) SetDraft(ctx context.Context, conversation uint64, draft string) error {
	draft = strings.ToValidUTF8(draft, "\uFFFD")
	return c.onOwner(ctx, func(o *owner) error {
		return o.setOwn(conversation, func(_ Cached, own *OwnState) { own.SetDraft(draft, now()) })
	})
}

// now is the time as the store keeps it.
func now() time.Time { return time.UnixMilli(time.Now().UnixMilli()) }

// setOwn changes an own state as the application wants it.
func (o *owner) setOwn(id uint64, change func(conv Cached, own *OwnState)) error {
	if Provisional(id) {
		o.checkMoves() // or a change under the old id would look like somebody else's
	}
	conv, there, err := o.opt.Store.Conversation(o.disk, id)
	if err != nil {
		return err
	}
	if !there {
		conv.ID = id
	}
	var own OwnState
	err = o.opt.Store.ChangeOwn(o.disk, o.sync.epoch, []uint64{conv.ID}, func(_ uint64, state *OwnState) {
		change(conv, state)
		own = *state
	})
	if err != nil {
		return err
	}
	o.own.shown[conv.ID] = own
	o.own.look()
	return nil
}

// ordinalOf returns a message's number, at most the head's, and its ordinal. Where
// the message is not stored the ordinal is the least that it can be; the server
// corrects it.
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
// all that are known here then. From a server that keeps none they are this
// machine's.
func (c *Client) OwnStates(ctx context.Context, conversations []uint64) (map[uint64]OwnState, error) {
	for left := conversations; len(left) > 0; {
		ids := left[:min(len(left), ownPage)]
		f, err := c.request(ctx, readOwnStates(ids))
		if errors.Is(err, errOldServer) {
			break
		}
		var states []*chatv1.OwnState
		if err == nil {
			states, err = asOwnStates(f, ids)
		}
		if err == nil {
			err = c.onOwner(ctx, func(o *owner) error { o.takeOwn(states...); return nil })
		}
		if err != nil {
			return nil, err
		}
		left = left[len(states):]
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
