package tui

import (
	tea "charm.land/bubbletea/v2"
)

// view is how the open chat is shown, and what is being written in it. It ends
// when another chat is opened.
type view struct {
	*chat

	scroll   scroll
	composer editor
	// divider is the first message that was new when the chat was opened or the
	// reader went away, 0 if none.
	divider uint64
	// jump: once the first page is there, show the divider if it is far up.
	jump bool
}

func newView(c *chat) *view {
	v := &view{chat: c}
	v.composer.set(c.draft.text)
	if c.unread > 0 {
		v.divider, v.jump = c.read+1, true
	}
	return v
}

// shows says whether c is the open chat; v may be nil.
func (v *view) shows(c *chat) bool { return v != nil && v.chat == c }

// reset forgets places in a log that is no longer there; v may be nil.
func (v *view) reset() {
	if v != nil {
		v.scroll, v.divider, v.jump = scroll{}, 0, false
	}
}

// column is the open chat's messages as they are shown now.
func (m *Model) column() *column {
	c := m.open
	p := &painter{
		m: m.measure, st: &m.styles, theme: m.theme, width: m.layout().main.w - 2, now: m.clock,
		name: m.speaker, divider: c.divider, hintEntry: c.t.failed(),
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

// speaker is the name of who wrote a message of the open chat.
func (m *Model) speaker(e *entry) string {
	if e.mine {
		return m.shown(cleanLine(m.me.Name))
	}
	return m.shown(m.open.name) // in a direct conversation the other person
}

// reading says whether the open chat's newest message is before the reader's
// eyes.
func (m *Model) reading() bool {
	return m.focused && m.open != nil && m.layers.onBase() && m.open.scroll.following() &&
		m.width > 0 && m.chatLayout().body > 0
}

// jump moves a chat that was just opened to the first new message, if the new
// ones do not all fit on the screen.
func (m *Model) jump() {
	v := m.open
	if v == nil || !v.jump || len(v.t.log) == 0 || m.width == 0 {
		return
	}
	v.jump = false
	e := v.t.bySeq(v.divider)
	if e == nil {
		e = v.t.log[0]
	}
	col, at, body := m.column(), spot{i: v.t.index(e)}, max(m.chatLayout().body, 1)
	switch decor := col.block(at.i).decor; {
	case body < 2*decor:
		at.line = decor // there is room for the text only
	case at.i > 0:
		at.line = 1 // without the blank row
	}
	col.hold(&v.scroll, at, body)
}

func (m *Model) scroll(lines int) {
	m.column().move(&m.open.scroll, lines, m.chatLayout().body)
}

func scrollPages(n int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd {
		body := m.chatLayout().body
		if n < 0 && m.column().above(&m.open.scroll, body, 1) == 0 {
			m.open.t.problem = "" // the same key again asks for another try
		}
		m.scroll(n * max(1, body-2))
		return nil
	}
}

func (m *Model) scrollTop() tea.Cmd {
	m.open.t.problem = ""
	m.column().hold(&m.open.scroll, spot{i: -1}, m.chatLayout().body)
	return nil
}

func (m *Model) scrollEnd() tea.Cmd {
	m.open.scroll.follow()
	return nil
}
