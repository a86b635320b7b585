package tui

import (
	tea "charm.land/bubbletea/v2"
)

// help is the layer that lists the keys.
type help struct{ top int } // the first line shown

func (m *Model) openHelp() tea.Cmd {
	m.layers.open(&help{})
	return nil
}

func (h *help) update(m *Model, msg tea.Msg) tea.Cmd {
	k, ok := msg.(tea.KeyPressMsg)
	if !ok {
		return nil
	}
	page := max(1, m.layout().main.h-1)
	switch keyName(k) {
	case "f1", "enter", "q", "ctrl+k":
		m.layers.close(h)
	case "up":
		h.top--
	case "down":
		h.top++
	case "pgup":
		h.top -= page
	case "pgdown", "space":
		h.top += page
	}
	h.top = max(0, h.top)
	return nil
}

func (h *help) title(m *Model, _ int) (left, right string) {
	return m.styles.title.Render("Keys"), m.styles.faint.Render("↑ ↓ Esc ")
}

func (h *help) draw(m *Model, a area) drawing {
	text := m.helpLines(a.w)
	rows := max(1, a.h)
	h.top = min(h.top, max(0, len(text)-rows))
	return drawing{lines: text[h.top:min(len(text), h.top+rows)], rule: -1}
}

// helpEntry is a line of the help: a key or a sign, and what it is.
type helpEntry struct{ label, text string }

// helpEntries is every binding, and the signs on the screen.
func helpEntries() []helpEntry {
	var all []helpEntry
	for _, b := range bindings() {
		all = append(all, helpEntry{b.label, b.help})
	}
	return append(all,
		helpEntry{},
		helpEntry{"◌ ✓ ✗", "waiting to be sent; sent: on the server for good; not sent"},
		helpEntry{"✎ (2)", "a draft; messages that are not read yet"},
		helpEntry{},
		helpEntry{"Ctrl+A E U W", "in a text: to its line's begin and end, erase to the begin, erase a word"},
	)
}

func (m *Model) helpLines(width int) []string {
	all, column := helpEntries(), 0
	for _, e := range all {
		column = max(column, m.measure.width(e.label))
	}
	beside := width >= column+30 // else below one another
	var out []string
	for _, e := range all {
		room := width - 5
		if beside {
			room = width - column - 5
		}
		text := m.measure.lines(e.text, max(room, 8))
		switch {
		case e.label == "":
			out = append(out, "")
		case beside:
			for i, line := range text {
				label := ""
				if i == 0 {
					label = e.label
				}
				out = append(out, " "+m.styles.key.Render(m.measure.fit(label, column))+"  "+line)
			}
		default:
			out = append(out, " "+m.styles.key.Render(e.label))
			for _, line := range text {
				out = append(out, "   "+line)
			}
		}
	}
	return out
}
