package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// View implements tea.Model. It reads the model and changes nothing but caches.
func (m *Model) View() tea.View {
	lines, cursor := m.frame()
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	v.ReportFocus = true
	v.Cursor = cursor
	return v
}

// frame is the screen: as many lines as it is high, each exactly as wide.
func (m *Model) frame() ([]string, *tea.Cursor) {
	if m.width <= 0 || m.height <= 0 {
		return nil, nil
	}
	l, top := m.layout(), m.layers.top()
	left, right := top.title(m, l.main.w)
	main := m.titled(l, l.main.w, m.measure.spread(left, right, l.main.w-1), top.draw(m, l.main))
	lines := main.lines
	if l.side.w > 0 {
		left, right := m.listTitle(l.side.w)
		side := m.titled(l, l.side.w, m.measure.spread(left, right, l.side.w-1), m.list(l.side))
		lines = m.beside(side, main)
	}
	if l.status {
		lines = append(lines, m.status(m.width))
	}
	cursor := main.cursor
	if cursor != nil {
		cursor.X = min(cursor.X+l.mainX(), m.width-1)
		cursor.Y = min(cursor.Y, m.height-1)
	}
	return lines, cursor
}

// panel is a drawing with its title, as a rectangle.
type panel struct {
	lines  []string
	rules  []bool // which lines are rules
	cursor *tea.Cursor
}

// titled puts a title and its rule above a drawing, as far as there is room.
func (m *Model) titled(l layout, width int, title string, d drawing) panel {
	head := []string{" " + title, m.styles.faint.Render(rule(width))}[:l.head]
	p := panel{
		lines: m.pad(append(head, d.lines...), width, l.content()), rules: make([]bool, l.content()), cursor: d.cursor,
	}
	if l.head == 2 {
		p.rules[1] = true
	}
	if y := l.head + d.rule; d.rule >= 0 && y < len(p.rules) {
		p.rules[y] = true
	}
	if p.cursor != nil {
		p.cursor.Y += l.head
	}
	return p
}

// beside joins two panels by a border that their rules meet.
func (m *Model) beside(a, b panel) []string {
	signs := map[[2]bool]string{{}: "│", {true, false}: "┤", {false, true}: "├", {true, true}: "┼"}
	for on, sign := range signs {
		signs[on] = m.styles.faint.Render(sign)
	}
	out := make([]string, len(a.lines))
	for i := range out {
		out[i] = a.lines[i] + signs[[2]bool{a.rules[i], b.rules[i]}] + b.lines[i]
	}
	return out
}

// pad makes lines a rectangle.
func (m *Model) pad(lines []string, width, height int) []string {
	out := make([]string, height)
	for i := range out {
		if i < len(lines) {
			out[i] = m.measure.fit(lines[i], width)
		} else {
			out[i] = spaces(width)
		}
	}
	return out
}

// prose is a text of the program, indented, at most height lines.
func (m *Model) prose(s string, width, height int) []string {
	lines := m.measure.lines(s, max(width-4, 8))
	for i := range lines {
		lines[i] = "  " + lines[i]
	}
	return lines[:min(len(lines), height)]
}

// shown is a clean text as this terminal can show it.
func (m *Model) shown(s string) string { return m.measure.show(s) }
