package tui

import (
	"slices"

	"github.com/msrchat/msrchat/client"
)

// timeline is what is loaded of a chat's messages: a part of the log that has
// no gap and ends with the newest message known, and after it what is on its
// way there.
type timeline struct {
	log     []*entry // by seq
	pending []*entry // acknowledged but not received, queued, failed: in order typed

	complete bool   // log begins with the conversation's first message
	loading  bool   // a page is being fetched
	problem  string // why the last page was not fetched
	gen      int    // answers to requests of an earlier one are dropped
}

func (t *timeline) len() int { return len(t.log) + len(t.pending) }

func (t *timeline) at(i int) *entry {
	if i < len(t.log) {
		return t.log[i]
	}
	return t.pending[i-len(t.log)]
}

// index finds an entry, or -1.
func (t *timeline) index(e *entry) int {
	if e == nil {
		return -1
	}
	if len(t.log) > 0 && e.seq >= t.log[0].seq {
		if i := int(e.seq - t.log[0].seq); i < len(t.log) && t.log[i] == e {
			return i
		}
	}
	if i := slices.Index(t.pending, e); i >= 0 {
		return len(t.log) + i
	}
	return -1
}

func (t *timeline) lo() uint64 {
	if len(t.log) == 0 {
		return 0
	}
	return t.log[0].seq
}

func (t *timeline) hi() uint64 {
	if len(t.log) == 0 {
		return 0
	}
	return t.log[len(t.log)-1].seq
}

// bySeq is the entry of a sequence number, nil where it is not loaded.
func (t *timeline) bySeq(seq uint64) *entry {
	if lo := t.lo(); lo == 0 || seq < lo || seq > t.hi() {
		return nil
	}
	return t.log[seq-t.lo()]
}

// received adds the newest message of the log. false: it was there already.
func (t *timeline) received(m client.Message, me uint64) bool {
	if hi := t.hi(); hi != 0 && m.Seq <= hi {
		t.forget(m.ID)
		return false
	}
	if hi := t.hi(); hi != 0 && m.Seq != hi+1 {
		t.log = nil // what lies between is fetched on demand
	}
	t.log = append(t.log, t.take(m, me))
	t.complete = t.lo() == 1
	return true
}

// take makes the entry of a message of the log, out of the pending one if it was
// sent from here.
func (t *timeline) take(m client.Message, me uint64) *entry {
	e := loggedEntry(m, me)
	i := t.pendingByID(m.ID)
	if i < 0 || !e.mine {
		return e
	}
	p := t.pending[i]
	t.pending = slices.Delete(t.pending, i, i+1)
	*p = *e
	return p
}

// page adds a page that was loaded: before the log where it touches or overlaps
// it, in its place where there is none. A page elsewhere is dropped.
func (t *timeline) page(messages []client.Message, me uint64) {
	for i := len(messages) - 1; i >= 0; i-- { // only up to a gap, which a server must not have
		if i+1 < len(messages) && messages[i].Seq+1 != messages[i+1].Seq {
			messages = messages[i+1:]
			break
		}
	}
	if len(messages) == 0 {
		return
	}
	if len(t.log) > 0 {
		if last := messages[len(messages)-1].Seq; last+1 < t.lo() {
			return
		}
		if first := messages[0].Seq; first > t.hi()+1 {
			t.log = nil
		}
	}
	var older, newer []*entry
	for _, m := range messages {
		switch {
		case len(t.log) == 0 || m.Seq < t.lo():
			older = append(older, t.take(m, me))
		case m.Seq > t.hi():
			newer = append(newer, t.take(m, me))
		default:
			t.forget(m.ID)
		}
	}
	t.log = slices.Concat(older, t.log, newer)
	t.complete = t.lo() == 1
}

func (t *timeline) pendingByID(id client.MessageID) int {
	return slices.IndexFunc(t.pending, func(e *entry) bool { return e.id == id })
}

// forget takes an entry off the pending ones.
func (t *timeline) forget(id client.MessageID) {
	if i := t.pendingByID(id); i >= 0 {
		t.pending = slices.Delete(t.pending, i, i+1)
	}
}

// lookBack bounds the search for a message in the log by its id: it can only be
// there when it overtook the word that it was sent, by milliseconds.
const lookBack = 1000

func (t *timeline) logged(id client.MessageID) bool {
	for i := len(t.log) - 1; i >= max(0, len(t.log)-lookBack); i-- {
		if t.log[i].id == id {
			return true
		}
	}
	return false
}

// outgoing takes news of an outgoing message.
func (t *timeline) outgoing(o client.Outgoing, me uint64) {
	if i := t.pendingByID(o.ID); i >= 0 {
		t.pending[i].settle(o)
		return
	}
	if t.logged(o.ID) || o.State == client.Acknowledged && o.Seq <= t.hi() {
		return
	}
	e := outgoingEntry(o, me)
	at, _ := slices.BinarySearchFunc(t.pending, e, func(a, b *entry) int { return int(a.order - b.order) })
	t.pending = slices.Insert(t.pending, at, e)
}

// unsent takes the outbox's whole content for this chat, as it was when the last
// message known had the order upTo. What left the outbox since was acknowledged:
// the log will tell it.
func (t *timeline) unsent(all []client.Outgoing, upTo int64, me uint64) {
	there := make(map[client.MessageID]bool, len(all))
	for _, o := range all {
		there[o.ID] = true
		t.outgoing(o, me)
	}
	t.pending = slices.DeleteFunc(t.pending, func(e *entry) bool {
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
func (t *timeline) failed() *entry {
	for _, e := range t.pending {
		if e.state == client.Failed {
			return e
		}
	}
	return nil
}

// waiting counts what is queued.
func (t *timeline) waiting() (n int) {
	for _, e := range t.pending {
		if e.state == client.Queued {
			n++
		}
	}
	return n
}

// reset forgets the log: the servers' one is another.
func (t *timeline) reset() {
	*t = timeline{pending: t.pending, gen: t.gen + 1}
	t.pending = slices.DeleteFunc(t.pending, func(e *entry) bool { return e.state == client.Acknowledged })
}
