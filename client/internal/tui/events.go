package tui

import (
	"errors"
	"slices"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// errEnded: the client closed its events, as it does when it is closed.
var errEnded = errors.New("the connection to msrChat was closed")

// onEvents takes the client's events, in order.
func (m *Model) onEvents(batch eventsMsg) tea.Cmd {
	var snapshot, unsent bool
	for _, e := range batch {
		switch e := e.(type) {
		case client.LinkChanged:
			snapshot = m.onLink(e.Link) || snapshot
		case client.Received:
			m.onReceived(e)
		case client.SendChanged:
			m.outgoing(nil, e.Outgoing)
		case client.OutboxChanged:
			unsent = true
		case client.ConversationChanged:
			snapshot = true
			if c := m.chats.byID[e.Conversation]; c != nil {
				c.hist.problem = "" // older messages came
			}
		case client.ConversationResolved:
			m.onResolved(e.From, e.To)
		case client.OwnStateChanged:
			m.onOwnState(e)
		case client.Reset:
			m.onReset(e.Epoch)
			snapshot = true
		}
	}
	return tea.Batch(m.snapshot(snapshot), m.unsent(unsent && !snapshot))
}

// onLink says whether all chats are to be read again.
func (m *Model) onLink(l client.Link) bool {
	online := l.State == client.Online && m.link.State != client.Online
	m.link = l
	if online {
		for _, c := range m.chats.sorted {
			c.hist.problem = ""
		}
	}
	return online
}

func (m *Model) onReceived(e client.Received) {
	if e.Message.Conversation == 0 {
		return // no client sends this
	}
	c := m.chats.get(e.Message.Conversation, e.Peer)
	c.hist.received(e.Message, m.me.ID)
	if !m.open.shows(c) {
		c.hist.trim(trimAt, trimTo)
	} else if m.open.scroll.following() {
		c.hist.trim(trimOpenAt, trimOpenTo)
	}
	all := c.unread() == 0 // everything before was read
	c.reach(e.Message.Seq, e.Message.Ordinal)
	switch {
	case e.Mine:
		m.markRead(c, e.Message.Seq, e.Message.Ordinal)
	case all && c.unread() > 0 && m.open.shows(c) && !m.reading():
		m.open.divider = e.Message.Seq
	}
	c.touch(e.Message.At)
	m.chats.stale = true
}

// outgoing takes the state of one message of the outbox. If its conversation is not
// here, as just before ConversationResolved, the message is in c, which may be nil.
func (m *Model) outgoing(c *chat, o client.Outgoing) {
	m.loads.order = max(m.loads.order, o.Order)
	if there := m.chats.byID[o.Conversation]; there != nil {
		c = there
	}
	if c == nil {
		return // it comes with the next snapshot
	}
	c.hist.outgoing(o, m.me.ID)
	c.touch(o.At)
	m.chats.stale = true
}

// onResolved gives a chat the id of the real conversation.
func (m *Model) onResolved(from, to uint64) {
	c := m.chats.byID[from]
	if c == nil {
		return
	}
	stays := m.chats.resolve(c, to)
	if m.open.shows(c) {
		m.open.chat = stays
	}
	if m.selected == c {
		m.selected = stays
	}
	delete(m.writes.drafts, c)
	m.showDraft(stays)
}

// onOwnState takes over what the user has set elsewhere. Its draft may be older than
// one that was set here, or be that one.
func (m *Model) onOwnState(e client.OwnStateChanged) {
	c := m.chats.byID[e.Conversation]
	if c == nil {
		return // it comes with the next snapshot
	}
	if e.Sets < c.draft.sets {
		c.read(e.Own.Read, e.Own.ReadOrdinal)
		return
	}
	c.draft.written()
	m.takeOwn(c, e.Own)
}

// takeOwn takes over what the library has of the user's own state.
func (m *Model) takeOwn(c *chat, own client.OwnState) {
	c.stored = true
	c.read(own.Read, own.ReadOrdinal)
	c.draft.take(own, m.open.shows(c) && m.clock.Sub(m.open.typed) < typingTime)
	m.showDraft(c)
}

// showDraft puts a chat's draft into the composer, and has it kept if the library has
// another.
func (m *Model) showDraft(c *chat) {
	if m.open.shows(c) && m.open.composer.value != c.draft.text {
		m.open.composer.update(c.draft.text)
	}
	if c.draft.unkept() {
		m.writes.drafts[c] = true
	}
}

func (m *Model) onReset(epoch uint64) {
	m.epoch, m.writes.paused = epoch, false
	m.chats.reset()
	m.open.reset()
	clear(m.writes.reads)
	m.writes.queue = slices.DeleteFunc(m.writes.queue, func(w write) bool { return w.kind == reading })
	m.say("the server's history was restored; loading it again")
}

// markRead notes that the user has read up to an event.
func (m *Model) markRead(c *chat, seq, ordinal uint64) {
	if seq > c.own.Read {
		c.read(seq, ordinal)
		m.writes.reads[c] = true
	}
}

// markAnswered marks as read what is above one of the user's own messages.
func (m *Model) markAnswered(c *chat, messages []client.Message) {
	if a := lastOwn(messages, c.own.Read, m.me.ID); a != nil {
		m.markRead(c, a.Seq, a.Ordinal)
	}
}

// read marks as read what is on the screen.
func (m *Model) read() {
	v := m.open
	if m.reading() && !v.jump {
		m.markRead(v.chat, v.hist.log.Hi(), v.hist.ordinal)
	}
}

// merge takes over what is kept on this machine, as it was when upTo was the
// greatest order of the outbox that was seen.
func (m *Model) merge(s snapshot, upTo int64) {
	for _, k := range s.chats {
		c := m.chats.get(k.ID, k.Peer)
		c.reach(k.Head, k.HeadOrdinal)
		if k.Last != nil {
			c.touch(k.Last.At)
		}
		if c.stored || c.draft.sets > 0 { // since then events and answers tell it, which may be newer
			c.read(k.Own.Read, k.Own.ReadOrdinal)
		} else {
			m.takeOwn(c, k.Own)
		}
		c.searched = c.searched || k.Last != nil
		if a := k.answered; a != nil {
			m.markRead(c, a.Seq, a.Ordinal)
		}
	}
	m.mergeUnsent(s.unsent, upTo)
	m.chats.stale = true
}

// mergeUnsent takes over the outbox as it was when upTo was the greatest order
// that was seen. It says whether the chats of all messages are there.
func (m *Model) mergeUnsent(all []client.Outgoing, upTo int64) (complete bool) {
	complete = true
	byChat := map[*chat][]client.Outgoing{}
	for _, o := range all {
		if c := m.chats.byID[o.Conversation]; c != nil {
			byChat[c] = append(byChat[c], o)
			c.touch(o.At)
		} else {
			complete = false
		}
		m.loads.order = max(m.loads.order, o.Order)
	}
	for _, c := range m.chats.sorted {
		if len(byChat[c]) > 0 || len(c.hist.pending) > 0 {
			c.hist.unsent(byChat[c], upTo, m.me.ID)
		}
	}
	m.chats.stale = true
	return complete
}

// drop removes provisional chats with nothing in them.
func (m *Model) drop() {
	for _, c := range slices.Clone(m.chats.sorted) {
		if c.provisional() && !m.open.shows(c) && c.draft.text == "" && len(c.hist.pending) == 0 {
			m.chats.remove(c)
		}
	}
}
