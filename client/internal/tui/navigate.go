package tui

import (
	tea "charm.land/bubbletea/v2"
)

// openChat shows a chat; what is being written in the one before stays there.
func (m *Model) openChat(c *chat) {
	if c == nil || m.open.shows(c) {
		return
	}
	m.leaveChat()
	m.open, m.selected = newView(c), c
	m.drop()
}

// closeChat goes back to the list.
func (m *Model) closeChat() {
	m.leaveChat()
	m.drop()
}

// leaveChat ends the view of the open chat, if there is one.
func (m *Model) leaveChat() {
	m.keepDraft()
	if c := m.open; c != nil {
		c.hist.trim(trimAt, trimTo)
		c.hist.problem = ""
	}
	m.open = nil
}

func neighbour(by int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd {
		all := m.chats.sorted
		if m.open == nil {
			m.selectBy(by)
			return nil
		}
		if i := m.chats.index(m.open.chat) + by; i >= 0 && i < len(all) {
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
	all, at := m.chats.sorted, -1
	if m.open != nil {
		at = m.chats.index(m.open.chat)
	}
	for n := range all {
		if c := all[(at+1+n)%len(all)]; c.unread() > 0 && !m.open.shows(c) {
			m.openChat(c)
			return nil
		}
	}
	m.say("nothing is unread")
	return nil
}

// beginChat opens a chat that somebody asked for, and moves it to the top.
func (m *Model) beginChat(c *chat) {
	c.touch(m.clock)
	m.chats.stale = true
	m.openChat(c)
}
