package tui

import (
	"slices"

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
	keys   []string // as keyName has them
	label  string
	help   string
	when   func(*Model) bool // nil: always
	always bool              // under every layer, not only in the base
	do     func(*Model) tea.Cmd
}

// newlineKeys insert a line break: terminals without keyboard enhancements send
// Enter for Shift+Enter.
var newlineKeys = []string{"shift+enter", "alt+enter", "ctrl+j", "ctrl+enter"}

// bindings are the keys of the base, and those that work everywhere. Every other
// key goes to the composer or, without an open chat, to the list.
func bindings() []binding {
	return slices.Concat(chatBindings(), messageBindings(), []binding{
		{
			keys: []string{"ctrl+r"}, label: keyNow, help: "while offline: connect now",
			when: isOffline, do: (*Model).retryNow,
		},
		{keys: []string{"esc"}, label: "Esc", help: "back; it never erases text", always: true, do: (*Model).back},
		{keys: []string{"f1"}, label: keyHelp, help: "this help, also /help", do: (*Model).openHelp},
		{
			keys: []string{"ctrl+l"}, label: "Ctrl+L", help: "draw the screen anew",
			do: func(*Model) tea.Cmd { return tea.ClearScreen },
		},
		{
			keys: []string{"ctrl+c"}, label: "Ctrl+C twice", always: true, do: (*Model).mayLeave,
			help: "leave, also /quit; drafts and unsent messages are kept",
		},
	})
}

func chatBindings() []binding {
	return []binding{
		{
			keys: []string{"ctrl+k"}, label: keySwitch, help: "find a chat, or start one with a person by name",
			do: (*Model).openSwitcher,
		},
		{keys: []string{"alt+down", "ctrl+n"}, label: "Alt+↓  Ctrl+N", help: "next chat", do: neighbour(1)},
		{keys: []string{"alt+up", "ctrl+p"}, label: "Alt+↑  Ctrl+P", help: "previous chat", do: neighbour(-1)},
		{keys: []string{"alt+a"}, label: "Alt+A", help: "next chat with unread messages", do: (*Model).nextUnread},
	}
}

func messageBindings() []binding {
	return []binding{
		{keys: []string{"enter", "kpenter"}, label: "Enter", help: "send; in the list: open", do: (*Model).enter},
		{
			keys: newlineKeys, label: "Alt+Enter  Ctrl+J",
			help: "new line (Shift+Enter too where the terminal tells it apart)", when: hasOpen, do: newline,
		},
		{
			keys: []string{"pgup", "shift+pgup"}, label: "PgUp", help: "older messages",
			when: hasOpen, do: scrollPages(-1),
		},
		{
			keys: []string{"pgdown", "shift+pgdown"}, label: "PgDn", help: "newer messages",
			when: hasOpen, do: scrollPages(1),
		},
		{
			keys: []string{"ctrl+home"}, label: "Ctrl+Home", help: "the oldest message loaded",
			when: hasOpen, do: (*Model).scrollTop,
		},
		{
			keys: []string{"ctrl+end"}, label: keyNewest, help: "the newest message (End too while nothing is typed)",
			when: hasOpen, do: (*Model).scrollEnd,
		},
		{
			keys: []string{"ctrl+t"}, label: keyRetry, help: "send a failed message again",
			when: hasFailed, do: func(m *Model) tea.Cmd { return m.discard(true) },
		},
		{
			keys: []string{"ctrl+x"}, label: keyDiscard, help: "discard a failed message",
			when: hasFailed, do: func(m *Model) tea.Cmd { return m.discard(false) },
		},
	}
}

func hasOpen(m *Model) bool   { return m.open != nil }
func hasFailed(m *Model) bool { return m.open != nil && m.open.hist.failed() != nil }
func isOffline(m *Model) bool { return m.link.State == client.Offline }

// bound returns what a key does now, nil if it is not bound.
func bound(m *Model, name string) *binding {
	for _, b := range bindings() {
		if slices.Contains(b.keys, name) && (b.when == nil || b.when(m)) {
			return &b
		}
	}
	return nil
}

// keyName is a key's name, "" for text from an input method, which may look like a
// key's name.
func keyName(k tea.KeyPressMsg) string {
	if k.Code == tea.KeyExtended {
		return ""
	}
	return k.Keystroke()
}
