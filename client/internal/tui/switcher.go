package tui

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/text"
)

// switcher finds a chat by a few letters of its name, or starts one with a
// person whose name is typed whole.
type switcher struct {
	query   editor
	found   []*chat
	person  string // who is offered besides what was found, "" if nobody
	at      int    // the chosen line: of found, then person
	asking  string // the person whom the server is asked for
	problem string // what it said
	gen     int    // of the newest question
}

// switcherWidth is enough for every name; the query is not wrapped.
const switcherWidth = 10_000

func (m *Model) openSwitcher() tea.Cmd {
	m.switcher = &switcher{query: editor{goal: -1}}
	m.switcher.changed(m)
	return nil
}

// changed looks again at what the query finds.
func (s *switcher) changed(m *Model) {
	query := strings.TrimSpace(s.query.value)
	s.found, s.person, s.at, s.asking, s.problem = nil, "", 0, "", ""
	type hit struct {
		c     *chat
		score int
	}
	var hits []hit
	exact := false
	_, key, err := text.Name(query)
	for _, c := range m.chats.sorted {
		if score := match(query, c.name); score > 0 {
			hits = append(hits, hit{c, score})
		}
		exact = exact || err == nil && c.key == key
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(b.score, a.score) })
	for _, h := range hits {
		s.found = append(s.found, h.c)
	}
	if err == nil && !exact && key != store.PeerKey(m.me.Name) {
		s.person = query
	}
}

func (s *switcher) choices() int {
	if s.person != "" {
		return len(s.found) + 1
	}
	return len(s.found)
}

func (m *Model) onSwitcherKey(k tea.KeyPressMsg) tea.Cmd {
	s := m.switcher
	switch k.Keystroke() {
	case "esc", "ctrl+k":
		m.switcher = nil
	case "f1":
		return m.openHelp()
	case "up", "ctrl+p", "alt+up", "shift+tab":
		s.at = max(0, s.at-1)
	case "down", "ctrl+n", "alt+down", "tab":
		s.at = max(0, min(s.at+1, s.choices()-1))
	case "pgup":
		s.at = max(0, s.at-10)
	case "pgdown":
		s.at = max(0, min(s.at+10, s.choices()-1))
	case "enter", "kpenter":
		return m.choose()
	default:
		before := s.query.value
		s.query.key(k, m.measure, switcherWidth)
		if s.query.value != before {
			s.changed(m)
		}
	}
	return nil
}

// choose goes where the chosen line says.
func (m *Model) choose() tea.Cmd {
	s := m.switcher
	switch query := strings.TrimSpace(s.query.value); {
	case s.asking != "":
		return nil
	case query == "/quit" || query == "/exit":
		return tea.Quit
	case query == "/help":
		m.switcher = nil
		return m.openHelp()
	case s.at < len(s.found):
		m.switcher = nil
		m.openChat(s.found[s.at])
		return nil
	case s.person != "":
		return m.talkTo(s.person)
	case query != "":
		s.problem = "this is your own name"
		if _, _, err := text.Name(query); err != nil {
			s.problem = cleanLine(err.Error())
		}
	}
	return nil
}

// match says how well a name fits a query: 0 not at all, more for a better fit.
// The letters must occur in order; whole beginnings are better.
func match(query, name string) int {
	q, n := []rune(strings.ToLower(query)), []rune(strings.ToLower(name))
	if len(q) == 0 {
		return 1
	}
	long := min(len(n), 99) // of two that fit as well, the shorter name
	switch at := strings.Index(string(n), string(q)); {
	case at == 0:
		return 1000 - long
	case at > 0:
		before := []rune(string(n)[:at])
		if !unicode.IsLetter(before[len(before)-1]) {
			return 700 - long // at the beginning of a part
		}
		return 500 - long
	}
	i := 0
	for _, r := range n {
		if i < len(q) && r == q[i] {
			i++
		}
	}
	if i < len(q) {
		return 0
	}
	return 200 - long
}
