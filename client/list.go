package client

import (
	"errors"
	"maps"
	"slices"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
)

// list asks for the conversations: all of them once, later those that were pushed
// and not listed yet.
func (o *owner) list(now time.Time) {
	s := &o.sync
	if s.listing || s.listed && len(s.unknown) == 0 {
		return
	}
	if now.Before(s.listAt) {
		s.nextAt = earliest(s.nextAt, s.listAt)
		return
	}
	s.listing = true
	after := uint64(0)
	if s.listed {
		after = slices.Min(slices.Collect(maps.Keys(s.unknown))) - 1
	}
	o.listPage(after)
}

func (o *owner) listPage(after uint64) {
	s := &o.sync
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_ListConversations{
		ListConversations: &chatv1.ListConversations{AfterId: after, Limit: listPage},
	}}, func(f *chatv1.ServerFrame, err error) {
		if errors.Is(err, errLost) {
			s.listing = false
			return
		}
		var page []Conversation
		more := false
		if err == nil {
			page, more, err = asList(f.GetConversationList(), after)
		}
		if err == nil {
			err = o.takeList(page)
		}
		if err != nil {
			o.log.Warn("listing failed", "err", err)
			s.listing = false
			s.listN++
			s.listAt = time.Now().Add(retryIn(err, s.listN))
			return
		}
		if more && (!s.listed || o.wanted(page[len(page)-1].ID)) {
			o.listPage(page[len(page)-1].ID)
			return
		}
		o.listedAll()
	})
}

// wanted says whether a conversation above id is still unknown.
func (o *owner) wanted(id uint64) bool {
	for unknown := range o.sync.unknown {
		if unknown > id {
			return true
		}
	}
	return false
}

// takeList takes a page of the list.
func (o *owner) takeList(page []Conversation) error {
	s := &o.sync
	keep := make([]Cached, 0, len(page))
	var fresh []uint64
	for _, c := range page {
		have := s.convs[c.ID]
		isNew := have == nil
		if isNew {
			have = &conv{id: c.ID}
			fresh = append(fresh, c.ID)
		}
		have.peer, have.kept = c.Peer, max(have.kept, c.Head)
		stored := Cached{ID: c.ID, Peer: c.Peer, Head: c.Head, HeadOrdinal: c.Ordinal}
		switch {
		case s.listed && isNew:
			stored.Stored = &store.Range{Lo: 1, Hi: 0}
		case !s.listed:
			if stored.Stored = o.start(have, isNew, c.Head); stored.Stored != nil && o.opt.FirstPage > 0 && c.Head > 0 {
				s.first = append(s.first, c.ID)
			}
		}
		s.convs[c.ID] = have
		keep = append(keep, stored)
		if seq, ok := s.unknown[c.ID]; ok {
			delete(s.unknown, c.ID)
			o.learn(c.ID, seq, 0)
		}
		o.learn(c.ID, c.Head, c.Ordinal)
	}
	if err := o.opt.Store.PutConversations(o.disk, s.epoch, keep); err != nil {
		return err
	}
	o.checkMoves()
	for _, id := range fresh {
		o.notify(ConversationChanged{id})
		o.notifyOwnLater(id)
	}
	return nil
}

// start decides, at the first listing of an epoch, where receiving begins, and which
// empty range the store begins with.
func (o *owner) start(c *conv, isNew bool, head uint64) *store.Range {
	s := &o.sync
	switch {
	case s.before && isNew:
		c.hi = 0 // it was created while the epoch changed
	case s.before:
		c.hi = min(c.hi, head) // the tail that was received may be lost
	case isNew || o.opt.FromNow:
		c.hi = head
	default:
		c.hi = min(c.hi, head)
	}
	if s.stored.Listed {
		return nil
	}
	return &store.Range{Lo: head + 1, Hi: head}
}

// listedAll ends a listing.
func (o *owner) listedAll() {
	s := &o.sync
	s.listing, s.listN = false, 0
	if s.listed {
		if len(s.unknown) > 0 {
			// Pushed, but not ours by the list; the next push asks again.
			o.log.Debug("pushed but not listed", "conversations", len(s.unknown))
			clear(s.unknown)
		}
		return
	}
	s.listed = true
	if !s.stored.Listed {
		if err := o.opt.Store.SetListed(o.disk, s.epoch); err != nil {
			o.log.Error("listing not recorded", "err", err)
			return
		}
		s.stored.Listed = true
	}
}
