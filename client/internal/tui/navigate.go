package tui

import (
	"context"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// openChat shows a chat; what is being written in the one before stays there.
func (m *Model) openChat(c *chat) {
	if c == nil || c == m.open {
		return
	}
	m.keepDraft()
	if m.open != nil {
		m.open.leave()
	}
	m.open, m.selected = c, c
	m.composer.set(c.draft)
	if c.unread > 0 {
		c.divider, c.jump = c.read+1, true
	}
	m.drop()
}

// closeChat goes back to the list.
func (m *Model) closeChat() {
	m.keepDraft()
	m.open.leave()
	m.open = nil
	m.composer.set("")
	m.drop()
}

func neighbour(by int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd {
		all := m.chats.sorted
		if m.open == nil {
			m.selectBy(by)
			return nil
		}
		if i := m.chats.index(m.open) + by; i >= 0 && i < len(all) {
			m.openChat(all[i])
		}
		return nil
	}
}

func (m *Model) selectBy(by int) {
	if len(m.chats.sorted) == 0 {
		return
	}
	i := m.chats.index(m.selected) + by
	m.selected = m.chats.sorted[min(max(i, 0), len(m.chats.sorted)-1)]
}

// nextUnread opens the next chat below, or from the top on, that has something
// new.
func (m *Model) nextUnread() tea.Cmd {
	all := m.chats.sorted
	at := m.chats.index(m.open)
	for n := range all {
		if c := all[(at+1+n)%len(all)]; c.unread > 0 && c != m.open {
			m.openChat(c)
			return nil
		}
	}
	m.say("nothing is unread")
	return nil
}

// talkTo opens the chat with a person who may be unknown here. Without a
// connection nobody can say whether there is such a person: the chat opens, and
// the server's answer to the first message tells.
func (m *Model) talkTo(name string) tea.Cmd {
	if m.link.State != client.Online {
		c := m.chats.get(0, client.Peer{Name: name})
		c.touch(m.clock)
		m.chats.stale = true
		m.switcher = nil
		m.openChat(c)
		m.say("whether there is a " + c.name + " shows with the connection")
		return nil
	}
	m.switcher.asking, m.switcher.problem = name, ""
	m.switcher.gen++
	ctx, b, msg := m.ctx, m.b, openedMsg{gen: m.switcher.gen}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, netTime)
		defer cancel()
		msg.conv, msg.err = b.OpenDirect(ctx, name)
		return msg
	}
}

func (m *Model) onOpened(msg openedMsg) {
	s := m.switcher
	if s == nil || s.asking == "" || msg.gen != s.gen {
		return // closed, or another wish meanwhile
	}
	s.asking = ""
	if msg.err != nil {
		s.problem = cleanLine(client.Describe(msg.err))
		return
	}
	c := m.chats.get(msg.conv.ID, msg.conv.Peer)
	c.touch(m.clock)
	m.chats.stale = true
	m.switcher = nil
	m.openChat(c)
}
