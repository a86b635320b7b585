package tui

import (
	"cmp"
	"slices"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/timeline"
)

// history is what is loaded of a chat's messages: a part of the log that has no
// gap and ends with the newest event that came, as rows, and after these what is
// on its way to the log.
type history struct {
	log     timeline.Log
	rows    []*entry // of log, one for one
	pending []*entry // acknowledged but not received, queued, failed: in order typed
	ordinal uint64   // of log's last event

	complete bool   // log begins with the conversation's first event
	loading  bool   // a page is being fetched
	problem  string // why the last page was not fetched
	gen      int    // answers to requests of an earlier one are dropped
}

// place names an entry for as long as there is one: by its event's number, or by
// the message's id while it has none.
type place struct {
	seq uint64
	id  client.MessageID
}

func (h *history) len() int { return len(h.rows) + len(h.pending) }

func (h *history) at(i int) *entry {
	if i < len(h.rows) {
		return h.rows[i]
	}
	return h.pending[i-len(h.rows)]
}

// find returns the index of an entry, or -1.
func (h *history) find(p place) int {
	if i, there := h.log.Index(p.seq); there {
		return i
	}
	if i := h.pendingByID(p.id); i >= 0 {
		return len(h.rows) + i
	}
	if p.seq == 0 {
		return h.logged(p.id)
	}
	return -1
}

// first is the first row of the events from seq on, nil where those are not all
// loaded or have no row.
func (h *history) first(seq uint64) *entry {
	i, _ := h.log.Index(seq)
	if lo := h.log.Lo(); lo == 0 || seq < lo || i == len(h.rows) {
		return nil
	}
	return h.rows[i]
}

// received adds the newest event of the log.
func (h *history) received(m client.Message, me uint64) {
	h.arrived(m, me)
	hi := h.log.Hi()
	if hi != 0 && m.Seq <= hi {
		return
	}
	if hi != 0 && m.Seq != hi+1 {
		h.log, h.rows = timeline.Log{}, nil // what lies between is fetched on demand
	}
	h.append(me, m)
	h.complete = h.log.Lo() == 1
}

// page adds a page that was loaded: before the log where it touches or overlaps
// it, in its place where there is none. A page elsewhere is dropped.
func (h *history) page(messages []client.Message, me uint64) {
	if len(messages) == 0 {
		return
	}
	first, last := messages[0].Seq, messages[len(messages)-1].Seq
	lo, hi := h.log.Lo(), h.log.Hi()
	if lo != 0 && last+1 < lo {
		return
	}
	if lo != 0 && first > hi+1 {
		h.log, h.rows = timeline.Log{}, nil
	}
	for _, m := range messages {
		h.arrived(m, me)
	}
	added := h.log.Prepend(messages...)
	older := make([]*entry, 0, added+len(h.rows))
	for _, r := range h.log.Rows()[:added] {
		older = append(older, rowEntry(r, me))
	}
	h.rows = append(older, h.rows...)
	h.append(me, messages...)
	h.complete = h.log.Lo() == 1
}

// append adds the events that follow the log.
func (h *history) append(me uint64, messages ...client.Message) {
	for _, r := range h.log.Append(messages...) {
		if i, there := h.log.Index(r.Event.Seq); there && i < len(h.rows) {
			h.rows[i].show(r)
		}
	}
	for _, r := range h.log.Rows()[len(h.rows):] {
		h.rows = append(h.rows, rowEntry(r, me))
	}
	if last := messages[len(messages)-1]; last.Seq == h.log.Hi() {
		h.ordinal = last.Ordinal
	}
}

// trim forgets the oldest rows but to, where there are more than at.
func (h *history) trim(at, to int) {
	if len(h.rows) <= at {
		return
	}
	h.log.Trim(to)
	h.rows = slices.Clone(h.rows[len(h.rows)-len(h.log.Rows()):])
	h.complete = h.log.Lo() == 1
}

// arrived takes a message of the log off the pending ones.
func (h *history) arrived(m client.Message, me uint64) {
	if m.Sender == me {
		h.forget(m.ID)
	}
}

func (h *history) pendingByID(id client.MessageID) int {
	return slices.IndexFunc(h.pending, func(e *entry) bool { return e.id == id })
}

// forget takes an entry off the pending ones.
func (h *history) forget(id client.MessageID) {
	if i := h.pendingByID(id); i >= 0 {
		h.pending = slices.Delete(h.pending, i, i+1)
	}
}

// lookBack bounds the search for an own message in the log by its id: it was sent
// from here, a moment ago.
const lookBack = 1000

// logged is the index of a row by its message's id, or -1.
func (h *history) logged(id client.MessageID) int {
	for i := len(h.rows) - 1; i >= max(0, len(h.rows)-lookBack); i-- {
		if e := h.rows[i]; e.mine && e.id == id {
			return i
		}
	}
	return -1
}

// outgoing takes news of an outgoing message.
func (h *history) outgoing(o client.Outgoing, me uint64) {
	if i := h.pendingByID(o.ID); i >= 0 {
		h.pending[i].settle(o)
		return
	}
	if h.logged(o.ID) >= 0 || o.State == client.Acknowledged && o.Seq <= h.log.Hi() {
		return
	}
	h.adopt([]*entry{outgoingEntry(o, me)})
}

// adopt adds entries to the pending ones, each in its place.
func (h *history) adopt(entries []*entry) {
	for _, e := range entries {
		if h.pendingByID(e.id) >= 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(h.pending, e, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })
		h.pending = slices.Insert(h.pending, at, e)
	}
}

// unsent takes the outbox's whole content for this chat, as it was when upTo was
// the greatest order that was seen. What has left the outbox since was
// acknowledged: it comes with the log.
func (h *history) unsent(all []client.Outgoing, upTo int64, me uint64) {
	there := make(map[client.MessageID]bool, len(all))
	for _, o := range all {
		there[o.ID] = true
		h.outgoing(o, me)
	}
	h.pending = slices.DeleteFunc(h.pending, func(e *entry) bool {
		if there[e.id] || e.order > upTo {
			return false
		}
		if e.state == client.Queued {
			e.state, e.blockFor = client.Acknowledged, look{}
		}
		return e.state == client.Failed // discarded elsewhere
	})
}

// failed is the oldest message that failed, nil if none did.
func (h *history) failed() *entry {
	for _, e := range h.pending {
		if e.state == client.Failed {
			return e
		}
	}
	return nil
}

// waiting counts what is queued.
func (h *history) waiting() (n int) {
	for _, e := range h.pending {
		if e.state == client.Queued {
			n++
		}
	}
	return n
}

// reset forgets the log: the servers have another one.
func (h *history) reset() {
	*h = history{pending: h.pending, gen: h.gen + 1}
	h.pending = slices.DeleteFunc(h.pending, func(e *entry) bool { return e.state == client.Acknowledged })
}
