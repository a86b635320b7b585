package tui

import (
	tea "charm.land/bubbletea/v2"
)

// help is the list of keys, scrolled down by top lines.
type help struct{ top int }

func (m *Model) openHelp() tea.Cmd {
	m.help = &help{}
	return nil
}

func (m *Model) onHelpKey(name string) {
	page := max(1, m.layout().list-1)
	switch name {
	case "esc", "f1", "enter", "q", "ctrl+k":
		m.help = nil
		return
	case "up":
		m.help.top--
	case "down":
		m.help.top++
	case "pgup":
		m.help.top -= page
	case "pgdown", "space":
		m.help.top += page
	}
	m.help.top = max(0, m.help.top)
}

func (m *Model) helpPane(l layout) []string {
	title := m.measure.spread(m.styles.title.Render("Keys"), m.styles.faint.Render("↑ ↓ Esc "), l.chatW-1)
	lines := m.titled(l, l.chatW, title)
	text := m.helpLines(l.chatW)
	rows := max(1, l.content-len(lines))
	m.help.top = min(m.help.top, max(0, len(text)-rows))
	return append(lines, text[m.help.top:min(len(text), m.help.top+rows)]...)
}

// helpLines is every binding, and the signs on the screen.
func (m *Model) helpLines(width int) []string {
	type pair struct{ label, help string }
	var all []pair
	for _, b := range bindings() {
		all = append(all, pair{b.label, b.help})
	}
	all = append(all,
		pair{"Ctrl+C twice", "leave, also /quit; drafts and unsent messages are kept"},
		pair{"", ""},
		pair{"◌ ✓ ✗", "waiting to be sent; sent: on the server for good; not sent"},
		pair{"✎ (2)", "a draft; messages that are not read yet"},
		pair{"", ""},
		pair{"Ctrl+A E U W", "in a text: to its line's begin and end, erase to the begin, erase a word"},
	)
	column := 0
	for _, p := range all {
		column = max(column, m.measure.width(p.label))
	}
	beside := width >= column+30 // else below one another
	var out []string
	for _, p := range all {
		room := width - 5
		if beside {
			room = width - column - 5
		}
		text := m.measure.lines(p.help, max(room, 8))
		switch {
		case p.label == "":
			out = append(out, "")
		case beside:
			for i, line := range text {
				label := ""
				if i == 0 {
					label = p.label
				}
				out = append(out, " "+m.styles.key.Render(m.measure.fit(label, column))+"  "+line)
			}
		default:
			out = append(out, " "+m.styles.key.Render(p.label))
			for _, line := range text {
				out = append(out, "   "+line)
			}
		}
	}
	return out
}

func (m *Model) switcherPane(l layout) ([]string, *tea.Cursor) {
	s := m.switcher
	lines := m.titled(l, l.chatW, m.measure.spread(m.styles.title.Render("Find or start a chat"), m.styles.faint.Render("Esc "), l.chatW-1))
	y := len(lines)
	query, x := s.query.line(m.measure, l.inputIn)
	if s.query.value == "" {
		query = m.styles.faint.Render(m.measure.fit("type a name", l.inputIn))
	}
	lines = append(lines, m.styles.title.Render(m.measure.fit(" ❯", l.promptW))+query)
	if l.titleRule {
		lines = append(lines, "")
	}
	lines = append(lines, m.answers(l)...)
	rows := max(0, l.content-len(lines))
	from := min(max(0, s.at-rows/2), max(0, s.choices()-rows))
	for i := from; i < min(s.choices(), from+rows); i++ {
		sign, text := "   ", "+ start a chat with “"+m.shown(cleanLine(s.person))+"”"
		if i < len(s.found) {
			text = m.shown(s.found[i].name)
			if n := s.found[i].unread; n > 0 {
				text += "  (" + count(n) + ")"
			}
		}
		if i == s.at {
			sign = " ▸ "
			lines = append(lines, m.styles.selected.Render(m.measure.fit(sign+text, l.chatW)))
			continue
		}
		lines = append(lines, sign+text)
	}
	return lines, tea.NewCursor(l.promptW+x, y)
}

// answers is what the switcher has to say besides its choices.
func (m *Model) answers(l layout) []string {
	s := m.switcher
	switch {
	case s.asking != "":
		return m.prose("looking for “"+m.shown(cleanLine(s.asking))+"”…", l.chatW, 2)
	case s.problem != "":
		lines := m.prose("✗ "+m.shown(s.problem), l.chatW, 3)
		for i := range lines {
			lines[i] = m.styles.bad.Render(lines[i])
		}
		return lines
	case s.choices() == 0 && s.query.value == "":
		return m.prose("Type the name of somebody you know; Enter starts a chat.", l.chatW, 3)
	case s.choices() == 0:
		return m.prose("No chat of that name. A new one needs a whole name, of 2 to 32 letters and digits.", l.chatW, 4)
	}
	return nil
}
