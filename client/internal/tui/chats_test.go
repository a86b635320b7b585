package tui

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

func TestFirstSteps(t *testing.T) {
	f := newFake("ann")
	f.person("bob")
	for _, width := range []int{100, 50} {
		s := newScreen(t, f, width, 20)
		s.has("No chats yet.", "Ctrl+K")
		s.keys("enter", "up", "down", "alt+a", "alt+down", "pgup", "esc") // nothing there to act on
	}
	s := newScreen(t, f, 100, 20)
	s.keys("ctrl+k")
	s.has("Find or start a chat", "Type the name of somebody you know")
	s.typed("bob")
	s.has("+ start a chat with “bob”")
	s.keys("enter")
	s.has("No messages yet. Write the first one below.", "Write to bob")
	s.typed("hello")
	s.keys("enter")
	if got := s.mark("hello"); got != "✓" {
		t.Errorf("the mark is %q", got)
	}
	s.has("the start of the conversation", "▸ bob")
}

func TestTheSwitcher(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{false, time.Hour, "x"})
	f.conversation("Bobby", 10, line{false, 2 * time.Hour, "x"})
	f.conversation("Carla.Bo", 10, line{false, 3 * time.Hour, "x"})
	f.conversation("小林さくら", 10, line{false, 4 * time.Hour, "x"})
	s := newScreen(t, f, 100, 20)
	for _, test := range []struct {
		query string
		want  []string
	}{
		{"", []string{"bob", "Bobby", "Carla.Bo", "小林さくら"}},
		{"bo", []string{"bob", "Bobby", "Carla.Bo", "+bo"}},
		{"BOB", []string{"bob", "Bobby"}},
		{"cbo", []string{"Carla.Bo", "+cbo"}},
		{"さく", []string{"小林さくら", "+さく"}},
		{"bobb", []string{"Bobby", "+bobb"}},
		{"ann", nil}, // oneself
		{"x", nil},   // too short for a name
		{"a b", nil},
	} {
		s.keys("ctrl+k")
		s.typed(test.query)
		top := s.m.layers.top().(*switcher)
		var got []string
		for _, c := range top.found {
			got = append(got, c.name)
		}
		if top.person != "" {
			got = append(got, "+"+top.person)
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%q finds %q, want %q", test.query, got, test.want)
		}
		s.keys("esc")
	}
	s.keys("ctrl+k")
	s.typed("b")
	s.keys("down", "down", "down", "down", "up", "enter")
	if s.m.open == nil || s.m.open.name != "Bobby" {
		t.Errorf("%v opened", s.m.open)
	}
	s.keys("ctrl+k")
	s.typed("ann")
	s.keys("enter")
	s.has("✗ this is your own name")
	s.keys("ctrl+k", "ctrl+k")
	s.typed("q")
	s.keys("enter")
	s.has("✗ the name is shorter than 2 characters")
	s.typed("!")
	s.has("No chat of that name.")
	s.keys("ctrl+k", "ctrl+k")
	s.typed("/quit")
	s.keys("enter")
	if !s.quit {
		t.Error("/quit did not quit")
	}
}

func TestNobodyOfThatName(t *testing.T) {
	f := newFake("ann")
	s := newScreen(t, f, 100, 20)
	s.typed("zoe") // typing in the list finds somebody
	s.hold = true
	s.keys("enter")
	s.has("looking for “zoe”…")
	s.keys("enter") // once is enough
	s.release()
	s.has("✗ there is nobody of that name")
	if s.m.open != nil || len(s.m.chats.sorted) != 0 {
		t.Error("a chat was made")
	}
	// The answer to a question that was given up opens nothing.
	f.person("bob")
	s.keys("ctrl+k", "ctrl+k")
	s.typed("bob")
	s.hold = true
	s.keys("enter", "esc")
	s.release()
	if s.m.open != nil {
		t.Error("it opened after Esc")
	}
	f.fail = errs.New(errs.CodeUnavailable, "no connection in time")
	s.keys("ctrl+k")
	s.typed("bob")
	s.keys("enter")
	s.has("✗ no connection in time")
}

func TestANewChatWhileOffline(t *testing.T) {
	f := newFake("ann")
	f.person("Bob")
	f.hold = true
	s := newScreen(t, f, 100, 20)
	f.setLink(client.Link{State: client.Offline})
	s.events()
	s.keys("ctrl+k")
	s.typed("bob")
	s.keys("enter")
	s.has("whether there is a bob shows with the connection", "No messages yet")
	s.typed("are you there?")
	s.keys("enter")
	if got := s.mark("are you"); got != "◌" {
		t.Errorf("the mark is %q", got)
	}
	s.keys("ctrl+k")
	s.typed("zoe")
	s.keys("enter")
	s.typed("and you?")
	s.keys("enter")
	// A chat in which nothing was written does not stay.
	s.keys("ctrl+k")
	s.typed("nobody")
	s.keys("enter")
	s.has("▸ nobody")
	s = s.restart()
	s.has("bob", "zoe")
	s.hasNot("nobody")
	must(f.Reconnect(t.Context()))
	s.events()
	s.goTo("bob")
	if got := s.mark("are you"); got != "✓" {
		t.Errorf("the mark is %q", got)
	}
	if s.m.open.provisional() {
		t.Error("the conversation is not known")
	}
	s.goTo("zoe")
	s.has("✗ not sent: there is nobody of that name")
}

func TestUnreadIsWhatWasNotSeen(t *testing.T) {
	f := newFake("ann")
	bob := f.conversation("bob", 10, line{true, time.Hour, "mine"}, line{false, 30 * time.Minute, "one"},
		line{false, 20 * time.Minute, "two"})
	f.conversation("Carla", 10, line{false, 2 * time.Hour, "theirs"}, line{true, time.Hour, "answered elsewhere"})
	s := newScreen(t, f, 100, 20)
	s.has("(2)", "2 unread")
	s.keys("down", "up", "ctrl+k", "esc", "f1", "esc") // looking around reads nothing
	s.has("(2)")
	s.send(tea.BlurMsg{})
	s.keys("enter")
	s.has("one", "two", "(2)", " new ─")
	s.send(tea.FocusMsg{})
	s.hasNot("(2)", "2 unread")
	f.say(bob, "three")
	s.events()
	s.hasNot("unread")
	// While the reader is away the first new message is marked.
	s.send(tea.BlurMsg{})
	f.say(bob, "four")
	f.say(bob, "five")
	s.events()
	s.has("(2)")
	if d := s.m.open.divider; d != 5 {
		t.Errorf("the line is before message %d, want 5", d)
	}
	s.send(tea.FocusMsg{})
	s.hasNot("unread")
	s = s.restart()
	s.hasNot("unread", "(")
	// An answer of one's own, on whatever machine, reads everything.
	f.say(bob, "six")
	s.events()
	s.has("(1)")
	f.mu.Lock()
	m := f.append(bob, true, "from my other device", testNow)
	f.mu.Unlock()
	f.received(m, f.peers[bob])
	s.events()
	s.hasNot("unread")
}

func TestMovingBetweenChats(t *testing.T) {
	f := newFake("ann")
	for i, name := range []string{"one", "two", "three", "four"} {
		f.conversation(name, 10, line{i%2 == 0, time.Duration(i+1) * time.Hour, "x"})
	}
	s := newScreen(t, f, 100, 20)
	s.keys("down", "down", "enter", "alt+up") // two is read by then
	for _, step := range []struct{ key, want string }{
		{"alt+down", "three"},
		{"ctrl+p", "two"},
		{"alt+up", "one"},
		{"alt+up", "one"},
		{"alt+a", "four"},
		{"alt+down", "four"},
		{"ctrl+p", "three"},
		{"ctrl+n", "four"},
	} {
		s.keys(step.key)
		if got := s.m.open.name; got != step.want {
			t.Errorf("%s leads to %s, want %s", step.key, got, step.want)
		}
	}
	s.keys("alt+a")
	s.has("nothing is unread")
	// A message moves its chat to the top.
	f.say(f.with("three"), "new")
	s.events()
	if got := s.m.chats.sorted[0].name; got != "three" {
		t.Errorf("the first chat is %s", got)
	}
}

func TestANarrowScreenHasListOrChat(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{true, time.Hour, "hello"})
	f.conversation("Carla", 10, line{false, 2 * time.Hour, "theirs"})
	s := newScreen(t, f, 59, 20)
	s.has("bob", "Carla")
	s.hasNot("hello")
	s.keys("enter")
	s.has("hello", "1 unread elsewhere")
	s.hasNot("Carla")
	s.typed("draft")
	s.keys("esc")
	s.has("Carla", "✎")
	s.keys("enter")
	s.has("draft")
	s.send(tea.WindowSizeMsg{Width: 60, Height: 20})
	s.has("draft", "Carla", "hello")
}

func TestTheConnectionIsTold(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{true, time.Hour, "hello"})
	cause := errs.New(errs.CodeUnavailable, "the gate cannot be reached")
	for _, test := range []struct {
		link client.Link
		want string
	}{
		{client.Link{State: client.Connecting}, "◌ connecting…"},
		{client.Link{State: client.Connecting, Cause: cause}, "◌ connecting… · the gate cannot be reached"},
		{client.Link{State: client.Online, Instance: "chat-7"}, "● online · server chat-7"},
		{
			client.Link{State: client.Online, Instance: "0c9e3f1a-1111-2222-3333-444455556666"},
			"● online · server 0c9e3f1a",
		},
		{
			client.Link{State: client.Offline, Cause: cause, RetryAt: testNow.Add(3500 * time.Millisecond)},
			"○ offline · trying again in 4 s · Ctrl+R now · the gate cannot be reached",
		},
		{
			client.Link{State: client.Offline, Cause: cause, RetryAt: testNow.Add(90 * time.Second)},
			"trying again in 1:30 min · Ctrl+R now",
		},
		{
			client.Link{
				State: client.LoggedOut,
				Cause: errs.New(errs.CodeUnauthenticated, "the session has ended; log in again"),
			},
			"✗ logged out · leave (Ctrl+C twice) and run: msrchat login",
		},
		{
			client.Link{State: client.Stopped, Cause: errors.New("update the program")},
			"✗ not connected · update the program",
		},
	} {
		s := newScreen(t, f, 100, 20)
		f.setLink(test.link)
		s.events()
		s.has(test.want)
	}
}

func TestTheRetryCountsDownAndCanBeBroughtForward(t *testing.T) {
	f := newFake("ann")
	now := testNow
	f.clock = func() time.Time { return now }
	f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 50, 16)
	s.keys("ctrl+r")
	if f.reconnects != 0 {
		t.Error("it reconnects while online")
	}
	f.setLink(client.Link{
		State: client.Offline, RetryAt: now.Add(5 * time.Second),
		Cause: errs.New(errs.CodeUnavailable, "no"),
	})
	s.events()
	for _, want := range []string{"in 5 s", "in 4 s", "in 3 s"} {
		s.has(want)
		now = now.Add(time.Second)
		s.fire(time.Second)
	}
	s.keys("ctrl+r")
	if f.reconnects != 1 {
		t.Errorf("%d attempts", f.reconnects)
	}
	s.has("● online · server chat-2")
	// Afterwards nothing ticks every second.
	s.later = nil
	s.m.timer = timer{}
	s.send(tea.FocusMsg{})
	for _, w := range s.later {
		if _, ok := w.msg.(timerMsg); ok && w.d <= time.Second {
			t.Errorf("a timer of %v", w.d)
		}
	}
}

func TestCtrlCTwiceLeaves(t *testing.T) {
	f := newFake("ann")
	now := testNow
	f.clock = func() time.Time { return now }
	s := newScreen(t, f, 100, 20)
	s.keys("ctrl+c")
	s.has("press Ctrl+C again to leave")
	now = now.Add(leaveTime)
	s.fire(time.Second)
	s.hasNot("again to leave")
	s.keys("f1", "ctrl+c")
	if s.quit {
		t.Error("one Ctrl+C was enough")
	}
	s.keys("ctrl+c")
	if !s.quit {
		t.Error("it did not leave")
	}
}

func TestEscapeErasesNothing(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 100, 20)
	s.keys("enter")
	s.typed("a long thought")
	s.keys("esc", "ctrl+k", "esc", "f1", "esc", "pgup", "esc", "esc", "esc")
	if s.m.open.composer.value != "a long thought" {
		t.Errorf("left: %q", s.m.open.composer.value)
	}
}

func TestARestoredLog(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "kept"}, line{false, time.Minute, "lost"})
	_, err := f.store.Begin(t.Context(), 1)
	must(err)
	s := newScreen(t, f, 100, 20)
	s.goTo("bob")
	s.typed("my draft")
	f.hold = true
	_, err = f.Send(t.Context(), Target{f.epoch(), conv}, "still queued")
	must(err)
	f.events <- client.OutboxChanged{}
	s.events()
	// The server comes back with one message less, under another id.
	f.mu.Lock()
	f.logs[conv+500] = f.logs[conv][:1]
	f.peers[conv+500] = f.peers[conv]
	delete(f.peers, conv)
	f.mu.Unlock()
	_, err = f.store.Begin(t.Context(), 2)
	must(err)
	must(f.store.PutConversations(t.Context(), 2, []store.Conversation{{
		ID: conv + 500, Peer: f.peers[conv+500],
		Stored: &store.Range{Lo: 2, Hi: 1},
	}}))
	f.events <- client.Reset{}
	s.events()
	s.hasNot("lost")
	s.has("kept", "still queued", "my draft", "history was restored")
	if s.m.open.id != conv+500 || len(s.m.chats.sorted) != 1 {
		t.Errorf("conversation %d, %d chats", s.m.open.id, len(s.m.chats.sorted))
	}
}

func TestPeopleAndConversationsThatAreNew(t *testing.T) {
	f := newFake("ann")
	s := newScreen(t, f, 100, 20)
	conv := f.conversation("bob", 0)
	f.say(conv, "hello, I am new")
	s.events()
	s.has("bob", "(1)")
	s.goTo("bob")
	s.has("hello, I am new", "the start of the conversation")
	// Conversations that become known without a message.
	f.conversation("Carla", 10, line{true, time.Hour, "x"})
	f.events <- client.ConversationChanged{Conversation: 102}
	s.events()
	s.has("Carla")
}

func TestMemoryIsBounded(t *testing.T) {
	f := newFake("ann")
	a := f.conversation("bob", 0)
	s := newScreen(t, f, 100, 20)
	for range 5 * trimAt {
		f.say(a, "x")
	}
	s.events()
	if n := len(s.m.chats.byID[a].hist.rows); n > trimAt {
		t.Errorf("%d messages of a chat that is not open are held", n)
	}
	s.has("(5000)", "5000 unread")
	s.goTo("bob")
	for len(s.m.open.hist.rows) < 3*trimAt {
		s.keys("ctrl+home")
	}
	s.keys("ctrl+end", "ctrl+k")
	f.conversation("Carla", 10, line{true, time.Hour, "x"})
	f.events <- client.ConversationChanged{Conversation: 102}
	s.events()
	s.keys("esc")
	s.goTo("Carla")
	if n := len(s.m.chats.byID[a].hist.rows); n > trimAt {
		t.Errorf("%d messages of a chat that was left are held", n)
	}
}

func TestTheTerminalsMethodIsTaken(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{true, time.Hour, "family 👨‍👩‍👧 end"})
	s := newScreen(t, f, 100, 20)
	s.keys("enter")
	s.has("family 👨👩👧 end")
	for _, ignored := range []tea.ModeReportMsg{
		{Mode: ansi.ModeUnicodeCore, Value: ansi.ModeNotRecognized},
		{Mode: ansi.ModeUnicodeCore, Value: ansi.ModePermanentlyReset},
		{Mode: ansi.ModeSynchronizedOutput, Value: ansi.ModeReset},
	} {
		s.send(ignored)
		s.has("family 👨👩👧 end")
	}
	s.send(tea.ModeReportMsg{Mode: ansi.ModeUnicodeCore, Value: ansi.ModeReset})
	s.has("family 👨‍👩‍👧 end")
}

func TestTheHelpHasEveryKey(t *testing.T) {
	f := newFake("ann")
	s := newScreen(t, f, 100, 12)
	s.keys("f1")
	seen := ""
	for range 60 {
		seen += s.frame()
		s.keys("down")
	}
	for _, b := range bindings() {
		if !strings.Contains(seen, b.label) {
			t.Errorf("%s is not in the help", b.label)
		}
	}
	used := map[string]bool{}
	for _, b := range bindings() {
		for _, k := range b.keys {
			if used[k] {
				t.Errorf("%s has two meanings", k)
			}
			used[k] = true
			if editorKeys[k] != nil {
				t.Errorf("%s is also a key of the editor", k)
			}
		}
	}
	s.keys("up", "pgup", "pgup", "pgup", "pgup")
	s.has("Ctrl+K")
	s.keys("f1")
	s.hasNot("Keys")
}
