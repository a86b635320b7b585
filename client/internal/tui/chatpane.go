package tui

import (
	"fmt"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/shared/text"
)

// chatTitle is the title of the open chat; alone: no list is beside it.
func (m *Model) chatTitle(width int, alone bool) (left, right string) {
	c := m.open
	left = m.styles.title.Render(m.measure.cut(m.shown(c.name), width-2))
	if alone {
		right = m.styles.faint.Render("Esc: all chats ")
		if n := m.chats.unread(); n > c.unread() {
			right = m.styles.unread.Render(fmt.Sprintf("%d unread elsewhere ", n-c.unread()))
		}
	}
	return left, right
}

// chatPane is the open chat: messages, a rule, the composer.
func (m *Model) chatPane() drawing {
	l := m.chatLayout()
	d := drawing{rule: -1}
	body := m.messages(l)
	for range l.body - len(body) {
		d.lines = append(d.lines, "")
	}
	for _, line := range body {
		d.lines = append(d.lines, " "+line)
	}
	if l.rule {
		d.rule = len(d.lines)
		d.lines = append(d.lines, m.inputRule(l))
	}
	y := len(d.lines)
	input, x, row := m.open.composer.view(m.measure, l.inputW, l.input)
	for i, line := range input {
		prompt := ""
		switch {
		case i == 0 && m.open.composer.top == 0:
			prompt = " ❯"
		case i == 0:
			prompt = " ↑"
		}
		if m.open.composer.value == "" {
			line = m.styles.faint.Render(m.measure.fit("Write to "+m.shown(m.open.name), l.inputW))
		}
		d.lines = append(d.lines, m.styles.title.Render(m.measure.fit(prompt, l.prompt))+line)
	}
	d.cursor = tea.NewCursor(l.prompt+x, y+row)
	return d
}

// messages is the part of the open chat that is seen, at most the body's rows.
func (m *Model) messages(l chatLayout) []string {
	c := m.open
	if l.body == 0 {
		return nil
	}
	if c.hist.len() > 0 {
		return m.column().view(&c.scroll, l.body)
	}
	say := "No messages yet. Write the first one below."
	switch {
	case c.hist.problem != "":
		say = "Messages not loaded: " + m.shown(c.hist.problem) + "."
	case !c.provisional() && !c.hist.complete:
		say = "loading…"
	}
	lines := m.prose(say, l.w-1, l.body)
	return m.pad(lines, l.w-1, max(len(lines), (l.body+len(lines))/2)) // in the middle
}

// inputRule is the line above the composer: it says what is below the screen,
// and when the text gets too long.
func (m *Model) inputRule(l chatLayout) string {
	left, right := "", ""
	if !m.open.scroll.following() {
		left = "↓ newest: " + keyNewest
		if n := m.open.unread(); n > 0 {
			left = fmt.Sprintf("%d new ↓ %s", n, keyNewest)
		}
	}
	if n := len([]rune(m.open.composer.value)); n > text.MaxMessageRunes*9/10 {
		right = fmt.Sprintf("%d of %d characters", n, text.MaxMessageRunes)
	}
	line := m.styles.faint.Render("─")
	if left != "" {
		line += m.styles.unread.Render(" " + left + " ")
	}
	if right != "" {
		right = m.styles.warn.Render(" "+right+" ") + m.styles.faint.Render("─")
	}
	return line + m.styles.faint.Render(rule(l.w-m.measure.width(line)-m.measure.width(right))) + right
}
