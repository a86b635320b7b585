package tui

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/text"
)

// switcher is the layer that finds a chat by a few letters of its name, or starts
// one with a person whose name is typed whole.
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
	s := &switcher{query: editor{goal: -1}}
	s.changed(m)
	m.layers.open(s)
	return nil
}

// changed repeats the search after a change of the query.
func (s *switcher) changed(m *Model) {
	query := strings.TrimSpace(s.query.value)
	s.found, s.person, s.at, s.asking, s.problem = nil, "", 0, "", ""
	type hit struct {
		c     *chat
		score int
	}
	var hits []hit
	exact := false
	_, key, err := text.FindName(query)
	for _, c := range m.chats.sorted {
		if score := match(query, c.name); score > 0 {
			hits = append(hits, hit{c, score})
		}
		exact = exact || err == nil && c.peerKey == key
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

func (s *switcher) update(m *Model, msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		return s.key(m, msg)
	case tea.PasteMsg:
		if m.paste(&s.query, cleanLine(strings.TrimSpace(msg.Content))) {
			s.changed(m)
		}
	case openedMsg:
		s.opened(m, msg)
	}
	return nil
}

func (s *switcher) key(m *Model, k tea.KeyPressMsg) tea.Cmd {
	switch keyName(k) {
	case "ctrl+k":
		m.layers.close(s)
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
		return s.choose(m)
	default:
		before := s.query.value
		s.query.key(k, m.measure, switcherWidth)
		if s.query.value != before {
			s.changed(m)
		}
	}
	return nil
}

// choose opens the chat of the chosen line.
func (s *switcher) choose(m *Model) tea.Cmd {
	switch query := strings.TrimSpace(s.query.value); {
	case s.asking != "":
		return nil
	case query == "/quit" || query == "/exit":
		return tea.Quit
	case query == "/help":
		m.layers.close(s)
		return m.openHelp()
	case s.at < len(s.found):
		m.layers.close(s)
		m.openChat(s.found[s.at])
		return nil
	case s.person != "":
		return s.talkTo(m, s.person)
	case query != "":
		s.problem = "this is your own name"
		if _, _, err := text.FindName(query); err != nil {
			s.problem = cleanLine(err.Error())
		}
	}
	return nil
}

// openedMsg answers the question gen for the chat with a person.
type openedMsg struct {
	gen  int
	conv client.Cached
	err  error
}

// talkTo opens the chat with a person who may be new here. Without a connection the
// chat opens even if there is no such person: the server's answer to the first message
// says so.
func (s *switcher) talkTo(m *Model, name string) tea.Cmd {
	s.asking, s.problem = name, ""
	s.gen++
	ctx, b, online, msg := m.ctx, m.b, m.link.State == client.Online, openedMsg{gen: s.gen}
	return answerTo(s, func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, netTime)
		defer cancel()
		if !online {
			msg.conv, msg.err = b.Contact(ctx, name)
			return msg
		}
		var conv client.Conversation
		conv, msg.err = b.OpenDirect(ctx, name)
		msg.conv = client.Cached{ID: conv.ID, Peer: conv.Peer, Head: conv.Head, HeadOrdinal: conv.Ordinal}
		return msg
	})
}

func (s *switcher) opened(m *Model, msg openedMsg) {
	if s.asking == "" || msg.gen != s.gen {
		return // the query was changed meanwhile
	}
	s.asking = ""
	if msg.err != nil {
		s.problem = cleanLine(client.Describe(msg.err))
		return
	}
	m.layers.close(s)
	c := m.chats.get(msg.conv.ID, msg.conv.Peer)
	c.reach(msg.conv.Head, msg.conv.HeadOrdinal)
	m.beginChat(c)
	if c.provisional() {
		m.say("whether there is a " + c.name + " shows with the connection")
	}
}

func (s *switcher) title(m *Model, _ int) (left, right string) {
	return m.styles.title.Render("Find or start a chat"), m.styles.faint.Render("Esc ")
}

func (s *switcher) draw(m *Model, a area) drawing {
	sign, width := prompt(a.w)
	query, x := s.query.line(m.measure, width)
	if s.query.value == "" {
		query = m.styles.faint.Render(m.measure.fit("type a name", width))
	}
	lines := []string{m.styles.title.Render(m.measure.fit(" ❯", sign)) + query}
	if m.layout().head == 2 { // else there is little room
		lines = append(lines, "")
	}
	lines = append(lines, s.answers(m, a.w)...)
	rows := max(0, a.h-len(lines))
	from := min(max(0, s.at-rows/2), max(0, s.choices()-rows))
	for i := from; i < min(s.choices(), from+rows); i++ {
		lines = append(lines, s.row(m, i, a.w))
	}
	return drawing{lines: lines, cursor: tea.NewCursor(sign+x, 0), rule: -1}
}

// row is one of the choices.
func (s *switcher) row(m *Model, i, width int) string {
	text := "+ start a chat with “" + m.shown(cleanLine(s.person)) + "”"
	if i < len(s.found) {
		text = m.shown(s.found[i].name)
		if n := s.found[i].unread(); n > 0 {
			text += fmt.Sprintf("  (%d)", n)
		}
	}
	if i == s.at {
		return m.styles.selected.Render(m.measure.fit(" ▸ "+text, width))
	}
	return "   " + text
}

// answers is what the switcher says besides its choices.
func (s *switcher) answers(m *Model, width int) []string {
	switch {
	case s.asking != "":
		return m.prose("looking for “"+m.shown(cleanLine(s.asking))+"”…", width, 2)
	case s.problem != "":
		lines := m.prose("✗ "+m.shown(s.problem), width, 3)
		for i := range lines {
			lines[i] = m.styles.bad.Render(lines[i])
		}
		return lines
	case s.choices() == 0 && s.query.value == "":
		return m.prose("Type the name of somebody you know; Enter starts a chat.", width, 3)
	case s.choices() == 0:
		say := "No chat of that name. A new one needs a whole name, of 2 to 32 letters and digits."
		return m.prose(say, width, 4)
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
