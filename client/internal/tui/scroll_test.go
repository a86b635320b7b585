package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/errs"
)

// longChat has n messages, of which the newest keep are on this machine.
func longChat(f *fakeBackend, name string, n, keep int) uint64 {
	lines := make([]line, n)
	for i := range lines {
		text := fmt.Sprintf("message %d.", i+1)
		if i%7 == 3 {
			text += strings.Repeat(" and some more words", 6)
		}
		lines[i] = line{i%5 == 2, 400*24*time.Hour - time.Duration(i)*20*time.Minute, text}
	}
	lines[n-1].mine = true // all is read
	return f.conversation(name, keep, lines...)
}

// body is the rows of the messages.
func (s *screen) body() []string {
	l := s.m.layout()
	var out []string
	for _, line := range strings.Split(s.frame(), "\n")[l.head : l.head+s.m.chatLayout().body] {
		if l.side.w > 0 {
			_, line, _ = strings.Cut(line, "│")
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

// top is the first row of the messages that has text, with its number.
func (s *screen) top() (int, string) {
	for i, line := range s.body() {
		if strings.Contains(line, "message ") && strings.Contains(line, ".") {
			return i, strings.TrimSpace(line)
		}
	}
	return -1, ""
}

func TestNewMessagesDoNotMoveTheText(t *testing.T) {
	f := newFake("ann")
	conv := longChat(f, "bob", 300, 300)
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	s.has("message 300.")
	s.keys("pgup", "pgup")
	s.hasNot("message 300.")
	before := strings.Join(s.body(), "\n")
	for i := range 3 {
		f.say(conv, fmt.Sprint("news ", i))
		s.events()
	}
	if after := strings.Join(s.body(), "\n"); after != before {
		t.Errorf("the text moved:\n%s\n\n%s", before, after)
	}
	s.has("3 new ↓")
	if n := s.m.open.unread(); n != 3 {
		t.Errorf("%d are unread", n)
	}
	s.keys("end")
	s.has("news 0", "news 2", " new ─")
	s.hasNot("3 new ↓")
	if n := s.m.open.unread(); n != 0 {
		t.Errorf("%d are unread at the end", n)
	}
	f.say(conv, "one more") // followed, without a key
	s.events()
	s.has("one more")
}

func TestScrollingShowsEveryLineOnceAndGoesBack(t *testing.T) {
	f := newFake("ann")
	longChat(f, "bob", 120, 120)
	for _, size := range [][2]int{{100, 30}, {50, 16}, {20, 5}} {
		s := newScreen(t, f, size[0], size[1])
		s.keys("enter")
		newest := strings.Join(s.body(), "\n")
		seen := map[string]bool{}
		for range 2000 {
			for _, line := range s.body() {
				if i := strings.Index(line, "message "); i >= 0 {
					seen[strings.SplitAfter(line[i:], ".")[0]] = true
				}
			}
			if strings.Contains(s.frame(), "the start of") {
				break
			}
			s.keys("up")
		}
		for i := range 120 {
			if !seen[fmt.Sprintf("message %d.", i+1)] {
				t.Errorf("%v: message %d was never seen", size, i+1)
			}
		}
		s.keys("up", "pgup") // there is nothing above
		s.has("the start of")
		for range 2000 {
			if s.m.open.scroll.following() {
				break
			}
			s.keys("down")
		}
		if got := strings.Join(s.body(), "\n"); got != newest {
			t.Errorf("%v: back at the end:\n%s\nwant:\n%s", size, got, newest)
		}
		s.keys("ctrl+home")
		s.has("the start of")
		s.keys("ctrl+end")
		if got := strings.Join(s.body(), "\n"); got != newest {
			t.Errorf("%v: the end is another", size)
		}
	}
}

func TestOlderPagesComeWhenNeededAndHoldTheText(t *testing.T) {
	f := newFake("ann")
	longChat(f, "bob", 450, 100)
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	if f.fetched != 0 {
		t.Errorf("%d pages were fetched without need", f.fetched)
	}
	f.slow = make(chan struct{})
	close(f.slow)
	for range 200 {
		s.hold = true
		s.keys("pgup")
		loading := s.m.open.hist.loading
		if loading && s.m.column().above(&s.m.open.scroll, s.m.chatLayout().body, 1) == 0 {
			s.has("loading…")
		}
		before := s.body()
		s.release()
		after := s.body()
		for i := range before {
			if strings.Contains(before[i], "message ") && before[i] != after[i] {
				t.Fatalf("the text moved while a page came:\n%s\n\n%s",
					strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		}
		if strings.Contains(s.frame(), "the start of") {
			break
		}
	}
	s.has("the start of the conversation", "message 1.")
	if f.fetched != 4 {
		t.Errorf("%d pages were fetched, 4 have what was missing", f.fetched)
	}
	if got := len(s.m.open.hist.rows); got != 450 {
		t.Errorf("%d messages are loaded", got)
	}
	s.keys("pgup", "pgup")
	if f.fetched != 4 {
		t.Error("it asked beyond the start")
	}
}

func TestOlderPagesThatDoNotComeAreTold(t *testing.T) {
	f := newFake("ann")
	longChat(f, "bob", 300, 50)
	f.fail = errs.New(errs.CodeUnavailable, "the server did not answer in time")
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	s.keys("ctrl+home")
	s.has("older messages not loaded; PgUp tries again", "the server did not answer in time")
	tries := f.fetched
	s.keys("down", "up")
	if f.fetched != tries {
		t.Error("it tried again unasked")
	}
	f.fail = nil
	_, before := s.top()
	s.keys("pgup")
	s.hasNot("not loaded")
	if f.fetched != tries+1 {
		t.Errorf("%d tries", f.fetched-tries)
	}
	if _, after := s.top(); after == before {
		t.Error("nothing came")
	}
	// Offline it says so at once, and tries again with the connection.
	f.setLink(client.Link{State: client.Offline})
	s.events()
	s.keys("ctrl+home", "ctrl+home")
	s.has("they need a connection")
	f.setLink(client.Link{State: client.Online})
	s.events()
	s.hasNot("they need a connection")
}

func TestAChatOfWhichNothingIsHere(t *testing.T) {
	f := newFake("ann")
	longChat(f, "bob", 30, 0)
	s := newScreen(t, f, 100, 30)
	f.setLink(client.Link{State: client.Offline})
	s.events()
	s.goTo("bob")
	s.has("Messages not loaded: they need a connection.")
	s.hold = true
	f.setLink(client.Link{State: client.Online})
	s.events()
	s.has("loading…")
	s.release()
	s.has("message 30.")
}

func TestResizingKeepsTheTopMessage(t *testing.T) {
	f := newFake("ann")
	longChat(f, "bob", 200, 200)
	s := newScreen(t, f, 100, 30)
	s.goTo("bob")
	for range 4 {
		s.keys("pgup")
	}
	for s.m.open.scroll.offset > 0 {
		s.keys("up") // to the first line of a message
	}
	if s.m.open.scroll.following() {
		t.Fatal("nothing is held")
	}
	anchor := s.m.open.scroll.anchor
	number := strings.SplitAfter(s.m.open.hist.at(s.m.open.hist.find(anchor)).text, ".")[0]
	for _, size := range [][2]int{{60, 30}, {59, 20}, {30, 10}, {120, 40}, {100, 30}} {
		s.send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		if s.m.open.scroll.anchor != anchor {
			t.Fatalf("%v: another message is at the top", size)
		}
		rows := s.body()
		top := strings.Join(rows[:min(len(rows), 6)], " ")
		if s.m.open.scroll.offset <= 0 && !strings.Contains(top, number) {
			t.Errorf("%v: %s is not at the top:\n%s", size, number, strings.Join(rows, "\n"))
		}
	}
}

func TestAChatWithManyNewMessagesOpensAtTheFirst(t *testing.T) {
	f := newFake("ann")
	conv := longChat(f, "bob", 60, 60)
	for i := range 50 {
		f.say(conv, fmt.Sprintf("unread %d.", i+1))
	}
	s := newScreen(t, f, 100, 30)
	s.events()
	s.has("(50)")
	s.goTo("bob")
	s.has("unread 1.", " new ─", "50 new ↓")
	if rows := s.body(); !strings.Contains(rows[0]+rows[1], " new ") {
		t.Errorf("the line is not at the top:\n%s", strings.Join(rows, "\n"))
	}
	s.keys("ctrl+end")
	s.has("unread 50.")
	s.hasNot("(50)", "new ↓")
}

// TestEverySize: no frame is wider or higher than the screen, whatever is on it;
// newScreen and send check each one.
func TestEverySize(t *testing.T) {
	f := demoBackend(func() time.Time { return testNow })
	f.refuse = errs.New(errs.CodeForbidden, "no")
	_, err := f.Send(t.Context(), Target{f.epoch(), f.with("bob")}, "refused 你好 ❤️ text that is long enough to break")
	must(err)
	for _, method := range methods {
		for _, width := range []int{1, 2, 3, 5, 8, 11, 12, 20, 23, 24, 40, 59, 60, 61, 100, 130} {
			for _, height := range []int{1, 2, 3, 4, 5, 6, 9, 10, 16, 45} {
				s := newScreen(t, f, width, height)
				s.m.measure = method
				s.m.theme++
				s.keys("down", "enter", "pgup", "ctrl+home", "f1", "down", "pgdown", "esc", "ctrl+k", "esc")
				s.send(tea.PasteMsg{Content: "你好 👨‍👩‍👧 text\n\n\twith lines"})
				s.keys("up", "left", "ctrl+k")
				s.typed("zz")
				s.keys("enter", "esc", "esc")
				s.send(tea.WindowSizeMsg{Width: 131 - width, Height: 46 - height})
				s.keys("pgup", "pgdown")
			}
		}
	}
}

func TestHistoryDoesNotCost(t *testing.T) {
	cost := func(n int) float64 {
		f := newFake("ann")
		longChat(f, "bob", n, n)
		s := newScreen(t, f, 100, 30)
		s.keys("enter")
		for len(s.m.open.hist.rows) < n {
			s.keys("ctrl+home")
		}
		s.keys("ctrl+end")
		return testing.AllocsPerRun(50, func() {
			s.m.Update(press(t, "pgup"))
			s.m.frame()
			s.m.Update(press(t, "pgdown"))
			s.m.frame()
		})
	}
	few, many := cost(300), cost(20_000)
	if many > 2*few {
		t.Errorf("a frame with 300 messages makes %.0f allocations, with 20,000 it makes %.0f", few, many)
	}
}
