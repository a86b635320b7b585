package tui

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// chat is one conversation, open or not. How the open one is shown is in view.
type chat struct {
	// id is 0 from a Reset until the new one is known.
	id   uint64
	name string    // what it is called, clean
	last time.Time // when something happened here; the list is sorted by it

	peer    client.Peer // who is at the other end of a direct conversation
	peerKey string      // what makes two spellings of the peer's name the same

	hist history
	// The greatest known sequence number, and the ordinal there.
	head, headOrdinal uint64
	// own is how far the user has read; its draft is not used: that is draft.
	own    client.OwnState
	draft  draft
	stored bool // own and draft are what the store has; until then they are empty

	searched bool // see kept.answered
}

// unread is how many messages the user has not read.
func (c *chat) unread() int {
	return client.Cached{HeadOrdinal: c.headOrdinal, Own: c.own}.Unread()
}

// reach notes that the log reaches up to an event.
func (c *chat) reach(seq, ordinal uint64) {
	c.head, c.headOrdinal = max(c.head, seq), max(c.headOrdinal, ordinal)
}

// read takes over a read mark; it never falls.
func (c *chat) read(seq, ordinal uint64) {
	if seq >= c.own.Read {
		c.own.Read, c.own.ReadOrdinal = seq, ordinal
	}
}

// provisional says that no server knows the conversation yet.
func (c *chat) provisional() bool { return c.id == 0 || client.Provisional(c.id) }

// touch moves the chat up in the list.
func (c *chat) touch(at time.Time) {
	if at.After(c.last) {
		c.last = at
	}
}

// call names the chat after its peer.
func (c *chat) call(peer client.Peer) {
	if peer.Name != "" && peer != c.peer {
		c.peer, c.peerKey, c.name = peer, store.PeerKey(peer.Name), cleanLine(peer.Name)
	}
}

// Of a chat that is not open the newest trimTo messages are held once there are
// more than trimAt; of the open one, while nobody scrolls in it, more.
const (
	trimAt     = 1_000
	trimTo     = 200
	trimOpenAt = 100_000
	trimOpenTo = 50_000
)

// roster is all chats. Its fields change only with its methods.
type roster struct {
	sorted []*chat // the newest first
	byID   map[uint64]*chat
	stale  bool // sorted is to be sorted
}

func newRoster() *roster { return &roster{byID: map[uint64]*chat{}} }

// get returns a conversation's chat, and creates it if needed.
func (r *roster) get(id uint64, peer client.Peer) *chat {
	c := r.byID[id]
	if c == nil {
		if c = r.lost(peer); c == nil {
			c = &chat{}
			r.sorted = append(r.sorted, c)
			r.stale = true
		}
		r.identify(c, id)
	}
	c.call(peer)
	return c
}

// lost returns the chat with a person that has no id since a Reset.
func (r *roster) lost(peer client.Peer) *chat {
	if peer.Name == "" {
		return nil
	}
	key := store.PeerKey(peer.Name)
	for _, c := range r.sorted {
		if c.id == 0 && c.peerKey == key {
			return c
		}
	}
	return nil
}

// identify gives a chat its id.
func (r *roster) identify(c *chat, id uint64) {
	c.id = id
	r.byID[id] = c
	if c.name == "" {
		c.name = "conversation #" + strconv.FormatUint(id, 10)
	}
}

// live is the chat that c is now: itself, or the one that it was merged into. It is
// nil if c was removed.
func (r *roster) live(c *chat) *chat {
	if c.id != 0 {
		return r.byID[c.id]
	}
	if r.index(c) < 0 {
		return nil
	}
	return c
}

// resolve gives the chat of a provisional conversation the id of the real one, and
// returns the chat that has it then: if there was one already, c is merged into it.
func (r *roster) resolve(c *chat, to uint64) *chat {
	delete(r.byID, c.id)
	c.id = to
	r.stale = true
	stays := r.byID[to]
	if stays == nil {
		r.identify(c, to)
		return c
	}
	r.sorted = slices.DeleteFunc(r.sorted, func(o *chat) bool { return o == c })
	stays.hist.adopt(c.hist.pending)
	stays.draft.adopt(c.draft)
	stays.touch(c.last)
	return stays
}

func (r *roster) remove(c *chat) {
	if r.byID[c.id] == c {
		delete(r.byID, c.id)
	}
	r.sorted = slices.DeleteFunc(r.sorted, func(o *chat) bool { return o == c })
}

// sort sorts the list if it is stale.
func (r *roster) sort() {
	if !r.stale {
		return
	}
	r.stale = false
	slices.SortStableFunc(r.sorted, func(a, b *chat) int {
		if d := b.last.Compare(a.last); d != 0 {
			return d
		}
		return cmp.Or(cmp.Compare(a.peerKey, b.peerKey), cmp.Compare(a.id, b.id))
	})
}

func (r *roster) index(c *chat) int { return slices.Index(r.sorted, c) }

// unread is how many messages are not read, in all chats.
func (r *roster) unread() (n int) {
	for _, c := range r.sorted {
		n += c.unread()
	}
	return n
}

// reset drops what came from the servers, ids included: a chat gets its new one from
// the conversation with the same person. Drafts and unsent messages stay.
func (r *roster) reset() {
	clear(r.byID)
	for _, c := range r.sorted {
		c.id, c.head, c.headOrdinal, c.own, c.stored = 0, 0, 0, client.OwnState{}, false
		c.draft.sets, c.draft.writing = 0, nil
		c.hist.reset()
	}
}
