package tui

import (
	"time"

	tea "charm.land/bubbletea/v2"
)

// view is how the open chat is shown, and what is being written in it. It ends
// when another chat is opened.
type view struct {
	*chat

	scroll   scroll
	composer editor
	typed    time.Time // when the composer was changed last
	// divider is the first event that was new when the chat was opened or the
	// reader went away, 0 if none.
	divider uint64
	// jump: once the divider is loaded, show it if it is far up.
	jump bool
}

// typingTime is how long after a key the user counts as typing.
const typingTime = 2 * time.Second

func newView(c *chat) *view {
	v := &view{chat: c}
	v.composer.set(c.draft.text)
	if c.unread() > 0 {
		v.divider, v.jump = c.own.Read+1, true
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
	v, h := m.open, &m.open.hist
	p := &painter{
		m: m.measure, st: &m.styles, theme: m.theme, width: m.layout().main.w - 2, now: m.clock,
		name: m.speaker, fresh: h.first(v.divider), hintEntry: h.failed(),
	}
	// Two rows, whatever they say: what is below does not move.
	head, more := "…", ""
	switch {
	case h.loading:
		head = "loading…"
	case h.problem != "":
		head, more = "older messages not loaded; PgUp tries again", m.shown(h.problem)
	case h.complete || v.provisional():
		head = "the start of the conversation"
	}
	return &column{h: h, p: p, head: []string{
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

// reading says whether the open chat's newest message is on a screen that is looked at.
func (m *Model) reading() bool {
	return m.focused && m.open != nil && m.layers.onBase() && m.open.scroll.following() &&
		m.width > 0 && m.chatLayout().body > 0
}

// jumpMost is how many messages are loaded to show the first new one.
const jumpMost = 10_000

// sought says whether the first new message is still to be loaded.
func (v *view) sought() bool {
	h := &v.hist
	lo := h.log.Lo()
	return v.jump && (lo == 0 || lo > v.divider && !h.complete && h.problem == "" && len(h.rows) < jumpMost)
}

// jump moves a chat that was just opened to the first new message, if the new
// ones do not all fit on the screen.
func (m *Model) jump() {
	v := m.open
	if v == nil || !v.jump || m.width == 0 {
		return
	}
	if v.divider <= v.own.Read { // read elsewhere, or an answer of the user's own
		if v.divider, v.jump = v.own.Read+1, v.unread() > 0; !v.jump {
			v.divider = 0
			return
		}
	}
	if v.sought() {
		return
	}
	v.jump = false
	i, _ := v.hist.log.Index(v.divider)
	if i >= v.hist.len() {
		return
	}
	col, at, body := m.column(), spot{i: i}, max(m.chatLayout().body, 1)
	switch decor := col.block(i).decor; {
	case body < 2*decor:
		at.line = decor // there is room for the text only
	case i > 0:
		at.line = 1 // without the blank row
	}
	col.hold(&v.scroll, at, body)
}

func (m *Model) scroll(lines int) {
	m.open.jump = false
	m.column().move(&m.open.scroll, lines, m.chatLayout().body)
}

func scrollPages(n int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd {
		body := m.chatLayout().body
		if n < 0 && m.column().above(&m.open.scroll, body, 1) == 0 {
			m.open.hist.problem = "" // the same key again repeats it
		}
		m.scroll(n * max(1, body-2))
		return nil
	}
}

func (m *Model) scrollTop() tea.Cmd {
	m.open.jump, m.open.hist.problem = false, ""
	m.column().hold(&m.open.scroll, spot{i: -1}, m.chatLayout().body)
	return nil
}

func (m *Model) scrollEnd() tea.Cmd {
	m.open.jump = false
	m.open.scroll.follow()
	return nil
}
