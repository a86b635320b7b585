package tui

import (
	"errors"
	"slices"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// errEnded: the client stopped telling events, which it does when it is closed.
var errEnded = errors.New("the connection to msrChat was closed")

// onEvents takes what the client told, in order.
func (m *Model) onEvents(batch eventsMsg) tea.Cmd {
	var snapshot, unsent bool
	for _, e := range batch {
		switch e := e.(type) {
		case client.LinkChanged:
			snapshot = m.onLink(e.Link) || snapshot
		case client.Received:
			m.onReceived(e)
		case client.SendChanged:
			m.onOutgoing(e.Outgoing)
		case client.OutboxChanged:
			unsent = true
		case client.ConversationChanged:
			snapshot = true
			if c := m.chats.byConv[e.Conversation]; c != nil {
				c.t.problem = "" // older messages came
			}
		case client.Reset:
			m.chats.reset()
			m.open.reset()
			m.say("the server's history was restored; loading it again")
			snapshot = true
		}
	}
	return tea.Batch(m.snapshot(snapshot), m.unsent(unsent && !snapshot))
}

// onLink says whether the state of all chats is to be looked at again.
func (m *Model) onLink(l client.Link) bool {
	online := l.State == client.Online && m.link.State != client.Online
	m.link = l
	if online {
		for _, c := range m.chats.sorted {
			c.t.problem = ""
		}
	}
	return online
}

func (m *Model) onReceived(e client.Received) {
	c := m.chats.get(e.Message.Conversation, e.Peer)
	c.t.received(e.Message, m.me.ID)
	if !m.open.shows(c) {
		c.trim(trimAt, trimTo)
	} else if m.open.scroll.following() {
		c.trim(trimOpenAt, trimOpenTo)
	}
	if seq := e.Message.Seq; seq > c.known {
		c.known = seq
		switch {
		case e.Mine:
			c.read, c.unread = max(c.read, seq), 0
		case seq > c.read:
			if c.unread == 0 && m.open.shows(c) && !m.reading() {
				m.open.divider = seq
			}
			c.unread++
		}
	}
	c.touch(e.Message.At)
	m.chats.stale = true
}

// onOutgoing takes news of one message of the outbox.
func (m *Model) onOutgoing(o client.Outgoing) {
	c := m.chats.addressee(o)
	if c == nil {
		return // of a conversation that the next snapshot tells
	}
	if o.Conversation != 0 && c.conv == 0 {
		c = m.chats.get(o.Conversation, c.peer)
	}
	m.loads.order = max(m.loads.order, o.Order)
	c.t.outgoing(o, m.me.ID)
	c.touch(o.At)
	m.chats.stale = true
}

// markRead notes what was read.
func (m *Model) markRead() {
	c := m.open
	if !m.reading() || c.jump {
		return
	}
	hi := c.t.hi()
	if hi == 0 || hi < c.known {
		return // the newest are still to be loaded
	}
	c.unread = 0
	if hi > c.read {
		c.read = hi
		m.writes.reads[c.key] = c.chat
	}
}

// merge takes over what is kept on this machine, as it was when the newest
// message known in the outbox had the order upTo. At the start that includes
// the drafts.
func (m *Model) merge(s snapshot, upTo int64, start bool) {
	for _, k := range s.chats {
		c := m.chats.get(k.ID, k.Peer)
		if c.known == 0 && k.Last != nil {
			c.known, c.read, c.unread = k.Last.Seq, max(c.read, k.read), k.unread
		}
		if k.Last != nil {
			c.touch(k.Last.At)
		}
	}
	if start {
		for key, draft := range s.drafts {
			c := m.chats.byKey[key]
			if c == nil {
				if key == "" || key[0] == '#' {
					continue // of a conversation that is gone
				}
				c = m.chats.get(0, client.Peer{Name: key})
			}
			c.draft.text = clean(draft)
		}
	}
	m.mergeUnsent(s.unsent, upTo)
	m.chats.stale = true
}

// mergeUnsent takes over the outbox as it was when the newest message known had
// the order upTo.
func (m *Model) mergeUnsent(all []client.Outgoing, upTo int64) {
	byChat := map[*chat][]client.Outgoing{}
	for _, o := range all {
		if c := m.chats.addressee(o); c != nil {
			byChat[c] = append(byChat[c], o)
			c.touch(o.At)
		}
		m.loads.order = max(m.loads.order, o.Order)
	}
	for _, c := range m.chats.sorted {
		if len(byChat[c]) > 0 || len(c.t.pending) > 0 {
			c.t.unsent(byChat[c], upTo, m.me.ID)
		}
	}
	m.chats.stale = true
}

// drop removes chats that nothing holds any more.
func (m *Model) drop() {
	for _, c := range slices.Clone(m.chats.sorted) {
		if c.conv == 0 && !m.open.shows(c) && c.draft.text == "" && len(c.t.pending) == 0 {
			m.chats.remove(c)
		}
	}
}
