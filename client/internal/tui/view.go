package tui

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/shared/text"
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
	l := m.layout()
	front, cursor := m.pane(l)
	front = m.pad(front, l.chatW, l.content)
	if l.both {
		list := m.pad(m.listPane(l), l.listW, l.content)
		between := map[string]string{}
		for _, sign := range []string{"│", "┼", "├"} {
			between[sign] = m.styles.faint.Render(sign)
		}
		for i := range front {
			front[i] = list[i] + between[joint(l, i, m.chatIsShown())] + front[i]
		}
	}
	if l.status {
		front = append(front, m.status(m.width))
	}
	if cursor != nil {
		cursor.X = min(cursor.X+l.chatX, m.width-1)
		cursor.Y = min(cursor.Y, m.height-1)
	}
	return front, cursor
}

// pane is what has the keys: help, switcher, the open chat or, where there is
// room for one thing only, the list.
func (m *Model) pane(l layout) ([]string, *tea.Cursor) {
	switch {
	case m.help != nil:
		return m.helpPane(l), nil
	case m.switcher != nil:
		return m.switcherPane(l)
	case m.open != nil:
		return m.chatPane(l)
	case l.both:
		return m.welcomePane(l), nil
	}
	return m.listPane(l), nil
}

// joint is the sign between the panes in row i, where rules meet it.
func joint(l layout, i int, chat bool) string {
	switch {
	case l.titleRule && i == 1:
		return "┼"
	case l.inputRule && chat && i == l.content-l.input-1:
		return "├"
	}
	return "│"
}

func (m *Model) chatIsShown() bool { return m.open != nil && m.switcher == nil && m.help == nil }

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

// titled begins a pane: its title row and rule, as far as there is room.
func (m *Model) titled(l layout, width int, title string) []string {
	var lines []string
	if l.title {
		lines = append(lines, " "+title)
	}
	if l.titleRule {
		lines = append(lines, m.styles.faint.Render(rule(width)))
	}
	return lines
}

func (m *Model) chatPane(l layout) ([]string, *tea.Cursor) {
	c := m.open
	title := m.styles.title.Render(m.measure.cut(m.shown(c.name), l.chatW-2))
	if !l.both {
		right := m.styles.faint.Render("Esc: all chats ")
		if n := m.chats.unread(); n > c.unread {
			right = m.styles.unread.Render(fmt.Sprintf("%d unread elsewhere ", n-c.unread))
		}
		title = m.measure.spread(title, right, l.chatW-1)
	}
	lines := m.titled(l, l.chatW, title)
	body := m.messages(l)
	for range l.body - len(body) {
		lines = append(lines, "")
	}
	for _, line := range body {
		lines = append(lines, " "+line)
	}
	if l.inputRule {
		lines = append(lines, m.inputRule(l))
	}
	y := len(lines)
	input, x, row := m.composer.view(m.measure, l.inputIn, l.input)
	for i, line := range input {
		prompt := ""
		switch {
		case i == 0 && m.composer.top == 0:
			prompt = " ❯"
		case i == 0:
			prompt = " ↑"
		}
		if m.composer.value == "" {
			line = m.styles.faint.Render(m.measure.fit("Write to "+m.shown(c.name), l.inputIn))
		}
		lines = append(lines, m.styles.title.Render(m.measure.fit(prompt, l.promptW))+line)
	}
	return lines, tea.NewCursor(l.promptW+x, y+row)
}

// messages is the part of the open chat that is seen, at most the body's rows.
func (m *Model) messages(l layout) []string {
	c := m.open
	if l.body == 0 {
		return nil
	}
	if c.t.len() > 0 {
		return m.column(c).view(&c.s, l.body)
	}
	say := "No messages yet. Write the first one below."
	switch {
	case c.t.problem != "":
		say = "Messages not loaded: " + m.shown(c.t.problem) + "."
	case c.conv != 0 && !c.t.complete:
		say = "loading…"
	}
	lines := m.prose(say, l.chatW-1, l.body)
	return m.pad(lines, l.chatW-1, max(len(lines), (l.body+len(lines))/2)) // in the middle
}

// column is a chat's messages as they are shown now.
func (m *Model) column(c *chat) *column {
	p := &painter{
		m: m.measure, st: &m.styles, theme: m.theme, width: m.layout().chatW - 2, now: m.clock,
		me: m.shown(cleanLine(m.me.Name)), peer: m.shown(c.name), divider: c.divider, hintEntry: c.t.failed(),
	}
	// Two rows, whatever they say: what is below does not move.
	head, more := "…", ""
	switch {
	case c.t.loading:
		head = "loading…"
	case c.t.problem != "":
		head, more = "older messages not loaded; PgUp tries again", m.shown(c.t.problem)
	case c.t.complete || c.conv == 0:
		head = "the start of the conversation"
	}
	return &column{t: &c.t, p: p, head: []string{
		p.st.faint.Render(m.measure.fit(head, p.width)), p.st.faint.Render(m.measure.fit(more, p.width)),
	}}
}

// inputRule is the line above the composer: it says what is below the screen,
// and when the text gets too long.
func (m *Model) inputRule(l layout) string {
	c := m.open
	left, right := "", ""
	if !c.s.following() {
		left = "↓ newest: " + keyNewest
		if c.unread > 0 {
			left = fmt.Sprintf("%s new ↓ %s", count(c.unread), keyNewest)
		}
	}
	if n := len([]rune(m.composer.value)); n > text.MaxMessageRunes*9/10 {
		right = fmt.Sprintf("%d of %d characters", n, text.MaxMessageRunes)
	}
	line := m.styles.faint.Render("─")
	if left != "" {
		line += m.styles.unread.Render(" " + left + " ")
	}
	if right != "" {
		right = m.styles.warn.Render(" "+right+" ") + m.styles.faint.Render("─")
	}
	return line + m.styles.faint.Render(rule(l.chatW-m.measure.width(line)-m.measure.width(right))) + right
}

func (m *Model) welcomePane(l layout) []string {
	lines := m.titled(l, l.chatW, m.styles.title.Render("Welcome"))
	say := "Choose a chat with ↑ ↓ and Enter.\nOr type a name to find somebody, or to start a new chat."
	if len(m.chats.sorted) == 0 {
		say = "No chats yet.\nPress " + keySwitch + " and type the name of somebody you know: Enter starts a chat."
	}
	say += "\n\n" + keyHelp + " shows all keys. Ctrl+C twice leaves."
	return append(append(lines, ""), m.prose(say, l.chatW, l.content)...)
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

// count is a number of messages.
func count(n int) string {
	if n >= countMost {
		return "99+"
	}
	return fmt.Sprint(n)
}
