package tui

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/msrchat/msrchat/client"
)

// chat is one conversation, open or not. How the open one is shown is in view.
type chat struct {
	key  string
	conv uint64      // 0 until a server told it
	peer client.Peer // the name as it came
	name string      // the name, clean
	last time.Time   // when something happened here; the list is sorted by it

	t timeline

	known  uint64 // messages up to here are counted in unread or read
	read   uint64 // read up to here
	unread int

	draft draft
}

// draft is a text that is begun and not sent.
type draft struct {
	text string
	// restored is the beginning of text that came back because it could not be
	// sent.
	restored string
}

// giveBack puts a text that could not be sent to where it came from: after those
// that came back before it, and before what was typed since.
func (d *draft) giveBack(body string) {
	if !strings.HasPrefix(d.text, d.restored) {
		d.restored = "" // it was changed since
	}
	rest := strings.TrimPrefix(d.text[len(d.restored):], "\n")
	d.restored = strings.TrimPrefix(d.restored+"\n"+body, "\n")
	d.text = strings.TrimSuffix(d.restored+"\n"+rest, "\n")
}

func (c *chat) target() client.Target {
	return client.Target{Conversation: c.conv, Peer: c.peer.Name}
}

// touch moves the chat up in the list.
func (c *chat) touch(at time.Time) {
	if at.After(c.last) {
		c.last = at
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

func (c *chat) trim(at, to int) {
	if n := len(c.t.log); n > at {
		c.t.log = slices.Clone(c.t.log[n-to:])
		c.t.complete = false
	}
}

// roster is all chats. Its fields change only with its methods.
type roster struct {
	sorted []*chat // the newest first
	byKey  map[string]*chat
	byConv map[uint64]*chat
	stale  bool // sorted is to be sorted
}

func newRoster() *roster {
	return &roster{byKey: map[string]*chat{}, byConv: map[uint64]*chat{}}
}

// get returns the chat with a peer; it is made where there is none. conv may be
// 0, and so may the peer's id.
func (r *roster) get(conv uint64, peer client.Peer) *chat {
	key := chatKey(peer.Name, conv)
	c := r.byConv[conv]
	if c == nil {
		c = r.byKey[key]
	}
	if c == nil {
		c = &chat{key: key, peer: peer, name: cleanLine(peer.Name)}
		if c.name == "" {
			c.name = "conversation " + key
		}
		r.byKey[key] = c
		r.sorted = append(r.sorted, c)
		r.stale = true
	}
	if conv != 0 && c.conv != conv {
		delete(r.byConv, c.conv)
		c.conv = conv
		r.byConv[conv] = c
	}
	if peer.Name != "" && peer.Name != c.peer.Name {
		c.name = cleanLine(peer.Name) // as its owner spells it
	}
	if peer.Name != "" {
		c.peer = peer
	}
	return c
}

// addressee is the chat of an outgoing message, nil where nothing tells it.
func (r *roster) addressee(o client.Outgoing) *chat {
	if c := r.byConv[o.Conversation]; c != nil && o.Conversation != 0 {
		return c
	}
	if o.Peer != "" {
		return r.get(o.Conversation, client.Peer{Name: o.Peer})
	}
	return nil
}

func (r *roster) remove(c *chat) {
	delete(r.byKey, c.key)
	if r.byConv[c.conv] == c {
		delete(r.byConv, c.conv)
	}
	r.sorted = slices.DeleteFunc(r.sorted, func(o *chat) bool { return o == c })
}

// sort brings the list in order, if it is not.
func (r *roster) sort() {
	if !r.stale {
		return
	}
	r.stale = false
	slices.SortStableFunc(r.sorted, func(a, b *chat) int {
		if d := b.last.Compare(a.last); d != 0 {
			return d
		}
		return cmp.Compare(a.key, b.key)
	})
}

func (r *roster) index(c *chat) int { return slices.Index(r.sorted, c) }

// unread is how many messages are not read, in all chats.
func (r *roster) unread() (n int) {
	for _, c := range r.sorted {
		n += c.unread
	}
	return n
}

// reset forgets what the servers told; names, drafts and unsent messages stay.
func (r *roster) reset() {
	clear(r.byConv)
	for _, c := range r.sorted {
		c.conv, c.known, c.read, c.unread = 0, 0, 0, 0
		c.t.reset()
	}
}
