package tui

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// The names of keys that texts on the screen mention.
const (
	keyHelp    = "F1"
	keySwitch  = "Ctrl+K"
	keyNow     = "Ctrl+R"
	keyRetry   = "Ctrl+T"
	keyDiscard = "Ctrl+X"
	keyNewest  = "Ctrl+End"
)

// binding is what keys do. The help shows every binding.
type binding struct {
	keys  []string // as tea.Key.Keystroke has them
	label string
	help  string
	when  func(*Model) bool // nil: always
	do    func(*Model) tea.Cmd
}

// bindings are the keys that work wherever one is but in the help and the
// switcher. Everything else goes to the composer or, without an open chat, to
// the list.
func bindings() []binding {
	return []binding{
		{keys: []string{"ctrl+k"}, label: keySwitch, help: "find a chat, or start one with a person by name", do: (*Model).openSwitcher},
		{keys: []string{"alt+down", "ctrl+n"}, label: "Alt+↓  Ctrl+N", help: "next chat", do: neighbour(1)},
		{keys: []string{"alt+up", "ctrl+p"}, label: "Alt+↑  Ctrl+P", help: "previous chat", do: neighbour(-1)},
		{keys: []string{"alt+a"}, label: "Alt+A", help: "next chat with unread messages", do: (*Model).nextUnread},
		{keys: []string{"enter", "kpenter"}, label: "Enter", help: "send; in the list: open", do: (*Model).enter},
		{keys: newlineKeys, label: "Alt+Enter  Ctrl+J", help: "new line (Shift+Enter too where the terminal tells it apart)", when: hasOpen, do: newline},
		{keys: []string{"pgup", "shift+pgup"}, label: "PgUp", help: "older messages", when: hasOpen, do: scrollPages(-1)},
		{keys: []string{"pgdown", "shift+pgdown"}, label: "PgDn", help: "newer messages", when: hasOpen, do: scrollPages(1)},
		{keys: []string{"ctrl+home"}, label: "Ctrl+Home", help: "the oldest message loaded", when: hasOpen, do: (*Model).scrollTop},
		{keys: []string{"ctrl+end"}, label: keyNewest, help: "the newest message (End too while nothing is typed)", when: hasOpen, do: (*Model).scrollEnd},
		{keys: []string{"ctrl+t"}, label: keyRetry, help: "send a failed message again", when: hasFailed, do: func(m *Model) tea.Cmd { return m.discard(true) }},
		{keys: []string{"ctrl+x"}, label: keyDiscard, help: "discard a failed message", when: hasFailed, do: func(m *Model) tea.Cmd { return m.discard(false) }},
		{keys: []string{"ctrl+r"}, label: keyNow, help: "while offline: connect now", when: isOffline, do: (*Model).retryNow},
		{keys: []string{"esc"}, label: "Esc", help: "back; it never erases text", do: (*Model).back},
		{keys: []string{"f1"}, label: keyHelp, help: "this help, also /help", do: (*Model).openHelp},
		{keys: []string{"ctrl+l"}, label: "Ctrl+L", help: "draw the screen anew", do: func(*Model) tea.Cmd { return tea.ClearScreen }},
	}
}

// newlineKeys: terminals without keyboard enhancements send Enter for
// Shift+Enter.
var newlineKeys = []string{"shift+enter", "alt+enter", "ctrl+j", "ctrl+enter"}

func hasOpen(m *Model) bool   { return m.open != nil }
func hasFailed(m *Model) bool { return m.open != nil && m.open.t.failed() != nil }
func isOffline(m *Model) bool { return m.link.State == client.Offline }

// onKey handles a key press: the topmost layer has it.
func (m *Model) onKey(k tea.KeyPressMsg) tea.Cmd {
	name := k.Keystroke()
	if k.Code == tea.KeyExtended {
		name = "" // an input method's text, whatever key it is called like
	}
	if name == "ctrl+c" {
		return m.mayLeave()
	}
	switch {
	case m.help != nil:
		m.onHelpKey(name)
		return nil
	case m.switcher != nil:
		return m.onSwitcherKey(k)
	}
	for _, b := range bindings() {
		if slices.Contains(b.keys, name) && (b.when == nil || b.when(m)) {
			return b.do(m)
		}
	}
	if m.open == nil {
		return m.onListKey(k)
	}
	return m.onComposerKey(k)
}

// mayLeave ends the program at the second Ctrl+C.
func (m *Model) mayLeave() tea.Cmd {
	if m.clock.Before(m.leave) {
		return tea.Quit
	}
	m.leave = m.clock.Add(leaveTime)
	m.say("press Ctrl+C again to leave; drafts and unsent messages are kept")
	m.notice.until = m.leave
	return nil
}

func (m *Model) onComposerKey(k tea.KeyPressMsg) tea.Cmd {
	name := k.Keystroke()
	if name == "end" && m.composer.value == "" {
		return m.scrollEnd()
	}
	if m.composer.key(k, m.measure, m.layout().inputWidth()) {
		m.keepDraft()
		return nil
	}
	switch name { // beyond the first and last row of what is typed
	case "up":
		m.scroll(-1)
	case "down":
		m.scroll(1)
	}
	return nil
}

func (m *Model) onListKey(k tea.KeyPressMsg) tea.Cmd {
	switch k.Keystroke() {
	case "up":
		m.selectBy(-1)
	case "down":
		m.selectBy(1)
	case "pgup":
		m.selectBy(-m.layout().list)
	case "pgdown":
		m.selectBy(m.layout().list)
	case "home":
		m.selectBy(-len(m.chats.sorted))
	case "end":
		m.selectBy(len(m.chats.sorted))
	default:
		if k.Text == "" || strings.TrimSpace(k.Text) == "" {
			return nil
		}
		// Whoever starts typing a name wants to find somebody.
		m.openSwitcher()
		return m.onSwitcherKey(k)
	}
	return nil
}

// onPaste puts a pasted text where one types. It is never sent by itself.
func (m *Model) onPaste(s string) {
	field := &m.composer
	switch {
	case m.help != nil || m.open == nil && m.switcher == nil:
		return
	case m.switcher != nil:
		field, s = &m.switcher.query, cleanLine(strings.TrimSpace(s))
	}
	if !field.insert(s) {
		m.say(fmt.Sprintf("not pasted: the text has %d KB, there is room for %d", (len(s)+1023)/1024, maxDraft/1024))
		m.notice.bad = true
		return
	}
	if m.switcher != nil {
		m.switcher.changed(m)
		return
	}
	m.keepDraft()
}

// command runs a line that begins with a slash; false if it is none.
func (m *Model) command(line string) (cmd tea.Cmd, is bool) {
	word, _, _ := strings.Cut(line, " ")
	if !strings.HasPrefix(word, "/") || word == "/" || strings.ContainsAny(line, "\n") || strings.ContainsAny(word[1:], "/.") {
		return nil, false
	}
	switch line {
	case "/quit", "/exit":
		m.clearComposer()
		return tea.Quit, true
	case "/help":
		m.clearComposer()
		return m.openHelp(), true
	}
	m.say(fmt.Sprintf("there is no command %s; /help tells them, and two slashes begin a text with one", word))
	return nil, true
}

func (m *Model) enter() tea.Cmd {
	if m.open == nil {
		m.openChat(m.selected)
		return nil
	}
	return m.submit()
}

func newline(m *Model) tea.Cmd {
	m.composer.insert("\n")
	m.keepDraft()
	return nil
}

// back closes one layer.
func (m *Model) back() tea.Cmd {
	switch {
	case m.open == nil:
	case !m.open.s.following():
		m.open.s.follow()
	case !m.layout().both:
		m.closeChat()
	}
	return nil
}

func (m *Model) retryNow() tea.Cmd {
	ctx, b := m.ctx, m.b
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = b.Reconnect(ctx) // what comes of it is told as an event
		return nil
	}
}

func (m *Model) scroll(lines int) {
	m.column(m.open).move(&m.open.s, lines, m.layout().body)
}

func scrollPages(n int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd {
		body := m.layout().body
		if n < 0 && m.column(m.open).above(&m.open.s, body, 1) == 0 {
			m.open.t.problem = "" // whoever insists wants another try
		}
		m.scroll(n * max(1, body-2))
		return nil
	}
}

func (m *Model) scrollTop() tea.Cmd {
	m.open.t.problem = ""
	m.column(m.open).hold(&m.open.s, spot{i: -1}, m.layout().body)
	return nil
}

func (m *Model) scrollEnd() tea.Cmd {
	m.open.s.follow()
	return nil
}
