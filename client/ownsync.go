package client

import (
	"errors"
	"maps"
	"slices"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// learnOwn notes the number that an own state has at the server.
func (o *owner) learnOwn(id, number uint64) {
	w := &o.own
	if o.opt.SendOnly || !validID(id) || number > store.MaxID || number <= w.shown[id].Number {
		return
	}
	if _, there := w.newer[id]; there || o.sync.convs[id] != nil || len(w.newer) < maxUnknown {
		w.newer[id] = max(w.newer[id], number)
	}
}

// pushedOwn takes an own state that another connection has set.
func (o *owner) pushedOwn(s *chatv1.OwnState) {
	if !validOwn(s) {
		o.violate("it pushed a wrong own state")
		return
	}
	if !o.opt.SendOnly && s.GetNumber() > o.own.shown[s.GetConversationId()].Number {
		o.takeOwn(s)
	}
}

// takeOwn takes over states from a server.
func (o *owner) takeOwn(all ...*chatv1.OwnState) {
	ids := make([]uint64, 0, len(all))
	states := make(map[uint64]OwnState, len(all))
	for _, s := range all {
		ids = append(ids, s.GetConversationId())
		states[s.GetConversationId()] = asOwn(s)
	}
	o.changeOwn(ids, func(id uint64, own *OwnState) { own.Take(states[id]) })
}

// changeOwn stores what a server says, and reports it.
func (o *owner) changeOwn(ids []uint64, change func(id uint64, own *OwnState)) {
	err := o.opt.Store.ChangeOwn(o.disk, o.sync.epoch, ids, change)
	if err != nil && !errors.Is(err, store.ErrStale) {
		o.log.Error("own states not stored", "err", err)
	}
	o.followOwn()
}

// readOwn asks for the states whose numbers are newer than those here.
func (o *owner) readOwn(at time.Time) {
	w := &o.own
	if len(w.newer) == 0 || w.reading || o.revision() < ownStates || at.Before(w.readAt) {
		return
	}
	ids := slices.Sorted(maps.Keys(w.newer))
	ids = ids[:min(len(ids), o.ownPage())]
	asked := make(map[uint64]uint64, len(ids))
	for _, id := range ids {
		asked[id] = w.newer[id]
	}
	w.reading, w.readAt = true, time.Time{}
	o.ask(readOwnStates(ids), func(f *chatv1.ServerFrame, err error) {
		if errors.Is(err, errLost) {
			return // connected follows
		}
		w.reading = false
		var states []*chatv1.OwnState
		if err == nil {
			states, err = asOwnStates(f, ids)
		}
		if err != nil {
			o.log.Warn("own states not read", "err", err)
			w.readN++
			w.readAt = time.Now().Add(retryIn(err, w.readN))
		}
		for i, id := range ids {
			// Numbers that came meanwhile are asked for next, and so is what did not fit
			// into the answer.
			done := i < len(states) || err != nil && !errs.MayPass(err)
			if done && w.newer[id] == asked[id] {
				delete(w.newer, id)
			}
		}
		if len(states) > 0 {
			w.readN = 0
			o.takeOwn(states...)
		}
	})
}

// ownPage is how many own states may be asked for at once.
func (o *owner) ownPage() int {
	if n := int(o.live.Welcome.GetLimits().GetMaxPage()); n > 0 {
		return min(n, listPage)
	}
	return ownPage
}

// unsentOwn says whether there is a state to send.
func (o *owner) unsentOwn(at time.Time) bool {
	w := &o.own
	if !w.maybe || at.Before(w.nextAt) || o.revision() < ownStates {
		return false
	}
	w.nextAt = time.Time{}
	first, err := o.opt.Store.UnsentOwn(o.disk, 0, 1)
	if err != nil {
		o.log.Error("own states not read", "err", err)
		w.nextAt = at.Add(pollSeldom)
		return false
	}
	w.maybe = len(first) > 0
	return w.maybe
}

// sendOwn sends what is unsent, and says whether something is under way.
func (o *owner) sendOwn(at time.Time) bool {
	w := &o.own
	if !w.maybe || at.Before(w.nextAt) || o.revision() < ownStates {
		return len(w.flying) > 0
	}
	w.nextAt = time.Time{}
	later := false // some are held
	for after := uint64(0); len(w.flying) < maxOwnFlying; {
		page, err := o.opt.Store.UnsentOwn(o.disk, after, ownPage)
		if err != nil {
			o.log.Error("own states not read", "err", err)
			w.nextAt = at.Add(pollSeldom)
			break
		}
		for _, own := range page {
			after = own.Conversation
			switch hold := w.held[after]; {
			case w.flying[after] || len(w.flying) >= maxOwnFlying:
			case hold != nil && at.Before(hold.until):
				later, w.nextAt = true, earliest(w.nextAt, hold.until)
			default:
				o.sendOneOwn(after, own.OwnState)
			}
		}
		if len(page) < ownPage {
			// They are read again after an answer.
			w.maybe = later
			break
		}
	}
	return len(w.flying) > 0
}

// sendOneOwn sends one state, without what the server has refused or would refuse.
func (o *owner) sendOneOwn(id uint64, own OwnState) {
	w := &o.own
	set := &chatv1.SetOwnState{ConversationId: id}
	if own.Read > own.ServerRead && own.Read != w.rejected[id].read {
		set.ReadSeq = own.Read
	}
	sent := own
	sent.DraftUnsent = own.DraftUnsent && own.Edits != w.rejected[id].edits && len(own.Draft) <= o.maxDraft()
	if sent.DraftUnsent {
		set.BaseNumber, set.Draft = own.Base, &chatv1.Draft{Text: own.Draft}
		if !own.DraftEdited.IsZero() {
			set.Draft.EditedAtMs = own.DraftEdited.UnixMilli()
		}
	}
	if set.ReadSeq == 0 && set.Draft == nil {
		return
	}
	w.flying[id] = true
	o.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_SetOwnState{SetOwnState: set}},
		func(f *chatv1.ServerFrame, err error) {
			if errors.Is(err, errLost) {
				return // connected follows
			}
			delete(w.flying, id)
			w.look()
			s := f.GetOwnState()
			switch {
			case err == nil && (!validOwn(s) || s.GetConversationId() != id):
				o.violate("it answered with another own state")
			case err == nil:
				delete(w.held, id)
				o.answeredOwn(id, sent, asOwn(s))
			case errs.MayPass(err):
				o.holdOwn(id, err)
			default:
				o.rejectOwn(id, sent, err)
			}
		})
}

// maxDraft is the longest draft in bytes that the server takes.
func (o *owner) maxDraft() int {
	if n := int(o.live.Welcome.GetLimits().GetMaxTextBytes()); n > 0 {
		return n
	}
	return text.MaxMessageBytes
}

// answeredOwn takes the answer to what was sent.
func (o *owner) answeredOwn(id uint64, sent, server OwnState) {
	var before, after uint64
	o.changeOwn([]uint64{id}, func(_ uint64, own *OwnState) {
		before = own.Number
		own.Answered(sent, server, now())
		after = own.Number
	})
	if after < before {
		o.own.newer[id] = max(o.own.newer[id], before)
	}
}

// holdOwn waits after a temporary refusal.
func (o *owner) holdOwn(id uint64, err error) {
	hold := o.own.held[id]
	if hold == nil {
		hold = &delayed{}
		o.own.held[id] = hold
	}
	hold.refusals++
	hold.until = time.Now().Add(retryIn(err, hold.refusals))
	o.log.Warn("own state delayed", "conversation", id, "err", err, "until", hold.until)
}

// rejectOwn takes a permanent refusal. It is blamed on the draft if there was one.
func (o *owner) rejectOwn(id uint64, sent OwnState, err error) {
	o.log.Warn("own state refused", "conversation", id, "err", err)
	bad := o.own.rejected[id]
	if sent.DraftUnsent {
		bad.edits = sent.Edits
	} else {
		bad.read = sent.Read
	}
	o.own.rejected[id] = bad
}

func readOwnStates(ids []uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ReadOwnStates{
		ReadOwnStates: &chatv1.ReadOwnStates{ConversationIds: ids},
	}}
}

func validOwn(s *chatv1.OwnState) bool {
	return validID(s.GetConversationId()) && s.GetNumber() <= store.MaxID && s.GetReadSeq() <= store.MaxID
}

func asOwn(s *chatv1.OwnState) OwnState {
	own := OwnState{
		Number: s.GetNumber(), Read: s.GetReadSeq(), ReadOrdinal: min(s.GetReadOrdinal(), s.GetReadSeq()),
		Draft: s.GetDraft().GetText(),
	}
	if edited := s.GetDraft().GetEditedAtMs(); edited != 0 {
		own.DraftEdited = time.UnixMilli(edited)
	}
	return own
}

// asOwnStates takes the answer for ids: their states from the first one on.
func asOwnStates(f *chatv1.ServerFrame, ids []uint64) ([]*chatv1.OwnState, error) {
	states := f.GetOwnStates().GetStates()
	wrong := len(states) == 0 || len(states) > len(ids)
	for i, s := range states {
		wrong = wrong || !validOwn(s) || s.GetConversationId() != ids[i]
	}
	if wrong {
		return nil, errs.New(errs.CodeInternal, "the server answered with other own states")
	}
	return states, nil
}
