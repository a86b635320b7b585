package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// numbered is n messages of the other person.
func numbered(n int) []line {
	lines := make([]line, n)
	for i := range lines {
		lines[i] = line{false, time.Duration(n-i) * time.Minute, fmt.Sprintf("message %d.", i+1)}
	}
	return lines
}

// TestManyUnreadMessages: list, header and chat say the same number, however many
// there are and wherever they are, and the chat opens at the first of them.
func TestManyUnreadMessages(t *testing.T) {
	const all, read = 1500, 20
	for _, keep := range []int{all, 100, 0} { // of them on this machine
		f := newFake("ann")
		bob := f.conversation("bob", keep, numbered(all)...)
		_, err := f.SetRead(t.Context(), Target{f.epoch(), bob}, read)
		must(err)
		s := newScreen(t, f, 100, 20)
		s.has("(1480)", "1480 unread")
		s.hold = true
		s.goTo("bob")
		s.release()
		s.has("message 21.", " new ─", "1480 new ↓", "(1480)", "1480 unread")
		s.hasNot("message 20.")
		for n := 1480; n > 1477; n-- { // reading on clears nothing before the end
			s.keys("pgdown")
			s.has("1480 unread")
		}
		s.keys("ctrl+end")
		s.has("message 1500.")
		s.hasNot("unread", "(")
		s.fire(keepTime)
		if own := f.own(bob); own.Read != all || own.ReadOrdinal != all {
			t.Errorf("kept: %+v", own)
		}
		s = s.restart()
		s.hasNot("unread", "(")
	}
}

func TestManyMessagesWhileAway(t *testing.T) {
	f := newFake("ann")
	bob := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 100, 20)
	for i := range 3 * trimAt {
		f.say(bob, fmt.Sprintf("message %d.", i+1))
	}
	s.events()
	s.has("(3000)", "3000 unread")
	s.goTo("bob")
	s.has("message 1.", " new ─", "3000 new ↓")
}

func TestAKeyEndsTheWayToTheFirstNewMessage(t *testing.T) {
	for _, key := range []string{"pgup", "up", "ctrl+end", "ctrl+home"} {
		f := newFake("ann")
		f.conversation("bob", 100, numbered(1000)...)
		s := newScreen(t, f, 100, 20)
		s.hold = true
		s.goTo("bob")
		s.keys(key)
		s.release()
		s.hasNot("message 1.")
	}
}

func TestTheFirstNewMessageThatDoesNotCome(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 100, numbered(300)...)
	s := newScreen(t, f, 100, 20)
	f.setLink(client.Link{State: client.Offline})
	s.events()
	s.goTo("bob")
	s.has("message 201.", "300 unread")
	s.hasNot(" new ─") // the first one is further up
	f.setLink(client.Link{State: client.Online})
	s.events()
	for range 40 {
		s.keys("pgup")
	}
	s.has("message 1.", " new ─")
}

// TestAnAnswerReads: a message of one's own, from whatever device or script, is
// above what is unread.
func TestAnAnswerReads(t *testing.T) {
	lines := numbered(10)
	lines[6].mine = true
	for _, keep := range []int{10, 3, 0} {
		f := newFake("ann")
		bob := f.conversation("bob", keep, lines...)
		s := newScreen(t, f, 100, 30)
		if keep > 3 {
			s.has("(3)", "3 unread")
		}
		s.send(tea.BlurMsg{})
		s.goTo("bob")
		s.has("(3)", "3 unread", "message 8.")
		rows := strings.Join(s.body(), "\n")
		if i, j := strings.Index(rows, " new ─"), strings.Index(rows, "message 8."); i < 0 || i > j || j-i > 400 {
			t.Errorf("keeping %d: the line is not above message 8:\n%s", keep, rows)
		}
		s.fire(keepTime)
		if own := f.own(bob); own.Read != 7 {
			t.Errorf("keeping %d: %+v", keep, own)
		}
	}
}

// TestANarrowListKeepsTheNumber: the time goes first.
func TestANarrowListKeepsTheNumber(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob-of-the-long-name", 1, numbered(12345)...)
	for width := 59; width >= 1; width-- {
		s := newScreen(t, f, width, 10)
		switch frame := s.frame(); {
		case width >= 24 && !strings.Contains(frame, "14:29"):
			t.Errorf("width %d: no time:\n%s", width, frame)
		case width >= 17 && !strings.Contains(frame, "(12345)"):
			t.Errorf("width %d: no number:\n%s", width, frame)
		case width >= 6 && !strings.Contains(frame, "bo"):
			t.Errorf("width %d: no name:\n%s", width, frame)
		}
	}
}

// TestAMessageOfANewerKind has its place, and counts as its server says.
func TestAMessageOfANewerKind(t *testing.T) {
	f := newFake("ann")
	bob := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 100, 20)
	m := f.say(bob, "one")
	m.Seq, m.Kind, m.Body = 3, 77, []byte("\xff\x1b]0;x") // the ordinal is that of the one before
	f.logs[bob] = append(f.logs[bob], m)
	f.received(m, f.peers[bob])
	s.events()
	s.has("(1)", "1 unread")
	s.goTo("bob")
	s.has("one", "[a newer msrchat is needed to show this message]")
	s.hasNot("unread")
	s.fire(keepTime)
	if own := f.own(bob); own.Read != 3 {
		t.Errorf("kept: %+v", own)
	}
}
