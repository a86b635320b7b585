package tui

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// base is the lowest layer: the open chat and what is written in it or, without
// one, the list of chats. Its state is the Model's.
type base struct{}

func (base) update(m *Model, msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		return m.onBaseKey(msg)
	case tea.PasteMsg:
		m.pasteText(msg.Content)
	}
	return nil
}

func (base) title(m *Model, width int) (left, right string) {
	switch alone := m.layout().side.w == 0; {
	case m.open != nil:
		return m.chatTitle(width, alone)
	case alone:
		return m.listTitle(width)
	}
	return m.styles.title.Render("Welcome"), ""
}

func (base) draw(m *Model, a area) drawing {
	switch alone := m.layout().side.w == 0; {
	case m.open != nil:
		return m.chatPane()
	case alone:
		return m.list(a)
	}
	return m.welcome(a)
}

func (m *Model) welcome(a area) drawing {
	say := "Choose a chat with ↑ ↓ and Enter.\nOr type a name to find somebody, or to start a new chat."
	if len(m.chats.sorted) == 0 {
		say = "No chats yet.\nPress " + keySwitch + " and type the name of somebody you know: Enter starts a chat."
	}
	say += "\n\n" + keyHelp + " shows all keys. Ctrl+C twice leaves."
	return drawing{lines: append([]string{""}, m.prose(say, a.w, a.h)...), rule: -1}
}

func (m *Model) onBaseKey(k tea.KeyPressMsg) tea.Cmd {
	if b := bound(m, keyName(k)); b != nil {
		return b.do(m)
	}
	if m.open == nil {
		return m.onListKey(k)
	}
	return m.onComposerKey(k)
}

func (m *Model) onComposerKey(k tea.KeyPressMsg) tea.Cmd {
	name := keyName(k)
	if name == "end" && m.open.composer.value == "" {
		return m.scrollEnd()
	}
	if m.open.composer.key(k, m.measure, m.chatLayout().inputW) {
		m.keepDraft()
		return nil
	}
	switch name { // from the first or last row of the composer
	case "up":
		m.scroll(-1)
	case "down":
		m.scroll(1)
	}
	return nil
}

func (m *Model) onListKey(k tea.KeyPressMsg) tea.Cmd {
	switch keyName(k) {
	case "up":
		m.selectBy(-1)
	case "down":
		m.selectBy(1)
	case "pgup":
		m.selectBy(-m.layout().main.h)
	case "pgdown":
		m.selectBy(m.layout().main.h)
	case "home":
		m.selectBy(-len(m.chats.sorted))
	case "end":
		m.selectBy(len(m.chats.sorted))
	default:
		if k.Text == "" || strings.TrimSpace(k.Text) == "" {
			return nil
		}
		// Typing in the list searches for a person.
		m.openSwitcher()
		return m.layers.top().update(m, k)
	}
	return nil
}

// pasteText puts a pasted text into the composer. It is never sent by itself.
func (m *Model) pasteText(s string) {
	if m.open != nil && m.paste(&m.open.composer, s) {
		m.keepDraft()
	}
}

// paste puts a pasted text into a field; if it does not fit it says so.
func (m *Model) paste(field *editor, s string) bool {
	if field.insert(s) {
		return true
	}
	m.say(fmt.Sprintf("not pasted: the text has %d KB, there is room for %d", (len(s)+1023)/1024, maxDraft/1024))
	m.notice.bad = true
	return false
}

// command runs a line that begins with a slash; false if it is none.
func (m *Model) command(line string) (cmd tea.Cmd, is bool) {
	word, _, _ := strings.Cut(line, " ")
	if !strings.HasPrefix(word, "/") || word == "/" || strings.Contains(line, "\n") ||
		strings.ContainsAny(word[1:], "/.") {
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
	m.say(fmt.Sprintf("there is no command %s, see /help; to send a text that begins with a slash, type two", word))
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
	m.open.composer.insert("\n")
	m.keepDraft()
	return nil
}

func (m *Model) retryNow() tea.Cmd {
	ctx, b := m.ctx, m.b
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = b.Reconnect(ctx) // its outcome comes as an event
		return nil
	}
}
