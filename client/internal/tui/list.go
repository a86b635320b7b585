package tui

import (
	"fmt"

	"charm.land/lipgloss/v2"
)

// listTitle is the user's name, and how much is unread.
func (m *Model) listTitle(width int) (left, right string) {
	left = m.styles.own.Render(m.measure.cut(m.shown(cleanLine(m.me.Name)), width-2))
	if n := m.chats.unread(); n > 0 {
		right = m.styles.unread.Render(fmt.Sprintf("%d unread ", n))
	}
	return left, right
}

// list is the chats, the ones with the latest messages first.
func (m *Model) list(a area) drawing {
	d := drawing{rule: -1}
	all := m.chats.sorted
	if len(all) == 0 {
		say := "No chats yet."
		if m.layout().side.w == 0 {
			say += " Press " + keySwitch + " and type somebody's name."
		}
		for _, line := range m.measure.lines(say, max(a.w-2, 8)) {
			d.lines = append(d.lines, " "+m.styles.faint.Render(line))
		}
		return d
	}
	from := m.listTop(a.h)
	for _, c := range all[from:min(len(all), from+a.h)] {
		d.lines = append(d.lines, m.listRow(c, a.w))
	}
	return d
}

// listTop is the first chat shown: the chosen one is in the middle of a list
// that is too long.
func (m *Model) listTop(rows int) int {
	at := m.chats.index(m.selected)
	return min(max(at-rows/2, 0), max(len(m.chats.sorted)-rows, 0))
}

// listRow is one chat: its name and, at the end, its notes. What does not fit beside a
// short name is left out, the time first.
func (m *Model) listRow(c *chat, width int) string {
	chosen := c == m.selected
	sign := "  "
	if chosen {
		sign = "▸ "
	}
	least := min(m.measure.width(m.shown(c.name)), 6)
	plain, styled := m.listNotes(c, true)
	if width-3-m.measure.width(plain) < least {
		plain, styled = m.listNotes(c, false)
	}
	room := width - 3 - m.measure.width(plain) // the sign before, a blank after
	if room < least {
		plain, styled, room = "", "", width-3
	}
	name := m.measure.fit(m.shown(c.name), room)
	if chosen && m.open == nil {
		return m.styles.selected.Render(m.measure.fit(sign+name+plain, width))
	}
	if c.unread() > 0 || chosen {
		name = m.styles.key.Render(name)
	}
	return sign + name + styled + " "
}

// listNotes is the end of a chat's row, plain and styled.
func (m *Model) listNotes(c *chat, timed bool) (plain, styled string) {
	add := func(s string, style lipgloss.Style) {
		plain += " " + s
		styled += " " + style.Render(s)
	}
	if c.hist.failed() != nil {
		add("✗", m.styles.bad)
	} else if c.hist.waiting() > 0 {
		add("◌", m.styles.warn)
	}
	if c.draft.text != "" && !m.open.shows(c) {
		add("✎", m.styles.warn)
	}
	if at := shortTime(c.last, m.clock); at != "" && timed {
		add(at, m.styles.faint)
	}
	if n := c.unread(); n > 0 {
		add(fmt.Sprintf("(%d)", n), m.styles.unread)
	}
	return plain, styled
}
