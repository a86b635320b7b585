package tui

import "fmt"

// listPane is the chats, the ones with the latest messages first.
func (m *Model) listPane(l layout) []string {
	me := m.shown(cleanLine(m.me.Name))
	title := m.styles.own.Render(m.measure.cut(me, l.listW-2))
	if n := m.chats.unread(); n > 0 {
		title = m.measure.spread(title, m.styles.unread.Render(fmt.Sprintf("%d unread ", n)), l.listW-1)
	}
	lines := m.titled(l, l.listW, title)
	all := m.chats.sorted
	if len(all) == 0 {
		say := "No chats yet."
		if !l.both {
			say += " Press " + keySwitch + " and type somebody's name."
		}
		for _, line := range m.measure.lines(say, max(l.listW-2, 8)) {
			lines = append(lines, " "+m.styles.faint.Render(line))
		}
		return lines
	}
	from := m.listTop(l)
	for _, c := range all[from:min(len(all), from+l.list)] {
		lines = append(lines, m.listRow(c, l.listW))
	}
	return lines
}

// listTop is the first chat shown: the chosen one is in the middle of a list
// that is too long.
func (m *Model) listTop(l layout) int {
	at := m.chats.index(m.selected)
	return min(max(at-l.list/2, 0), max(len(m.chats.sorted)-l.list, 0))
}

// listRow is one chat: its name and, at the end, what there is to know.
func (m *Model) listRow(c *chat, width int) string {
	chosen := c == m.selected
	sign := "  "
	if chosen {
		sign = "▸ "
	}
	var plain, styled string // the end of the row, its parts from left to right
	add := func(s string, render func(...string) string) {
		plain += " " + s
		styled += " " + render(s)
	}
	if c.t.failed() != nil {
		add("✗", m.styles.bad.Render)
	} else if c.t.waiting() > 0 {
		add("◌", m.styles.warn.Render)
	}
	if c.draft != "" && c != m.open {
		add("✎", m.styles.warn.Render)
	}
	if at := shortTime(c.last, m.clock); at != "" {
		add(at, m.styles.faint.Render)
	}
	if c.unread > 0 {
		add("("+count(c.unread)+")", m.styles.unread.Render)
	}
	room := width - 2 - 1 - m.measure.width(plain) // the sign before, a blank after
	if room < 6 {
		plain, styled, room = "", "", width-3
	}
	name := m.measure.fit(m.shown(c.name), room)
	if chosen && m.open == nil {
		return m.styles.selected.Render(m.measure.fit(sign+name+plain, width))
	}
	switch {
	case c.unread > 0 || chosen:
		name = m.styles.key.Render(name)
	}
	return sign + name + styled + " "
}
