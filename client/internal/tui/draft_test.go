package tui

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

func TestDraftsOfTwoScreensMeet(t *testing.T) {
	for _, test := range []struct {
		name             string
		text, kept       string // here
		theirs           string
		busy             bool
		want, wantKept   string
		restored, wantRe string
	}{
		{name: "theirs replaces what is kept", text: "a", kept: "a", theirs: "ab", want: "ab", wantKept: "ab"},
		{name: "theirs was sent", text: "a", kept: "a", theirs: "", want: "", wantKept: ""},
		{name: "what is typed goes below", text: "abc", kept: "ab", theirs: "x", want: "x\nabc", wantKept: "x"},
		{
			name: "what is typed goes on where it was kept", text: "abc", kept: "ab", theirs: "x\nab",
			want: "x\nabc", wantKept: "x\nab",
		},
		{name: "what is typed was sent elsewhere", text: "abc", kept: "ab", theirs: "", want: "abc", wantKept: ""},
		{
			name: "theirs has all of it", text: "abc", kept: "ab", theirs: "x abc y",
			want: "x abc y", wantKept: "x abc y",
		},
		{name: "all of theirs is here", text: "abc", kept: "ab", theirs: "bc", want: "abc", wantKept: "bc"},
		{
			name: "a person who types keeps the text", text: "a", kept: "a", theirs: "b", busy: true,
			want: "b\na", wantKept: "b",
		},
		{
			name: "nothing is new", text: "abc", kept: "ab", theirs: "ab", restored: "a",
			want: "abc", wantKept: "ab", wantRe: "a",
		},
	} {
		d := draft{text: test.text, kept: test.kept, raw: test.kept, restored: test.restored}
		d.take(client.OwnState{Draft: test.theirs}, test.busy)
		if want := (draft{text: test.want, kept: test.wantKept, raw: test.theirs, restored: test.wantRe}); d != want {
			t.Errorf("%s: %+v, want %+v", test.name, d, want)
		}
	}
	var d draft
	d.take(client.OwnState{Draft: "a\x1bb"}, false)
	if d.text != "a␛b" || d.unkept() {
		t.Errorf("theirs is cleaned: %+v", d)
	}
	if known, _ := d.set(); known != "a\x1bb" {
		t.Errorf("the library's text is %q", known)
	}
}

// TestAnOldEchoIsNotTaken: an event may be older than what was set here, and the
// answer to that older than an event.
func TestAnOldEchoIsNotTaken(t *testing.T) {
	f := newFake("ann")
	bob := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 100, 20)
	s.goTo("bob")
	tell := func(sets uint64, draft string) {
		f.events <- client.OwnStateChanged{Conversation: bob, Own: client.OwnState{Draft: draft, Read: 1}, Sets: sets}
		s.events()
	}
	has := func(text, kept string) {
		t.Helper()
		if d := s.m.open.draft; d.text != text || d.kept != kept || s.m.open.composer.value != text {
			t.Errorf("text %q, kept %q, the composer has %q; want %q and %q", d.text, d.kept, s.m.open.composer.value,
				text, kept)
		}
	}
	s.typed("a")
	s.fire(keepTime)
	s.typed("b")
	s.fire(keepTime)
	has("ab", "ab")
	tell(0, "older") // of before the first
	tell(1, "a")     // the answer to the first
	has("ab", "ab")
	s.typed("c")
	tell(2, "ab") // the server has the second
	has("abc", "ab")

	// While the third is being set: an echo of before, then an event that has it.
	s.hold = true
	s.fire(keepTime)
	s.typed("d")
	tell(2, "older")
	has("abcd", "ab")
	tell(3, "theirs\nabc")
	has("theirs\nabcd", "theirs\nabc")
	s.release()
	has("theirs\nabcd", "theirs\nabc")
	s.fire(keepTime)
	if got := f.own(bob).Draft; !strings.HasSuffix(got, "theirs\nabcd") {
		t.Errorf("kept: %q", got)
	}
}

func TestATypistIsNotOverwritten(t *testing.T) {
	f := newFake("ann")
	now := testNow
	f.clock = func() time.Time { return now }
	bob := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	carla := f.conversation("Carla", 10, line{true, 2 * time.Hour, "hello"})
	set := func(conv uint64, text string) {
		f.elsewhere(conv, func(own *client.OwnState) { own.SetDraft(text, now) })
	}
	s := newScreen(t, f, 100, 20)
	s.goTo("bob")
	s.typed("mine")
	s.keys("left", "left")
	set(bob, "theirs")
	s.events()
	at := func(want string) {
		t.Helper()
		c := s.m.open.composer
		if got := c.value[:c.caret] + "|" + c.value[c.caret:]; got != want {
			t.Errorf("the composer has %q, want %q", got, want)
		}
	}
	at("theirs\nmi|ne") // and the caret stays where it was
	s.typed("X")
	at("theirs\nmiX|ne")
	s.fire(keepTime)
	if got := f.own(bob).Draft; got != "theirs\nmiXne" {
		t.Errorf("kept: %q", got)
	}
	// Also a text that was kept is not taken from under the fingers.
	set(bob, "other")
	s.events()
	at("other\ntheirs\nmiX|ne")
	s.fire(keepTime)
	// A person who has paused sees what is written elsewhere, as it is there.
	now = now.Add(typingTime)
	set(bob, "sent and begun anew")
	s.events()
	at("sent and begun anew|")
	s.fire(keepTime)
	if got := f.own(bob).Draft; got != "sent and begun anew" {
		t.Errorf("it was changed to %q", got)
	}
	// In a chat that is not open it is in the list, and in the composer later.
	set(carla, "for carla")
	s.events()
	s.has("✎")
	s.goTo("Carla")
	at("for carla|")
	set(bob, "")
	s.events()
	s.goTo("bob")
	at("|")
	s.hasNot("“")
}

func TestWhatIsReadElsewhereIsRead(t *testing.T) {
	f := newFake("ann")
	bob := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	s := newScreen(t, f, 100, 20)
	for range 5 {
		f.say(bob, "news")
	}
	s.events()
	s.has("(5)", "5 unread")
	f.elsewhere(bob, func(own *client.OwnState) { own.SetRead(4, 4) })
	s.events()
	s.has("(2)", "2 unread")
	// The mark does not fall, and what is read here is kept.
	f.events <- client.OwnStateChanged{Conversation: bob, Own: client.OwnState{Read: 2, ReadOrdinal: 2}}
	s.events()
	s.has("(2)", "2 unread")
	s.goTo("bob")
	s.hasNot("unread")
	s.fire(keepTime)
	if own := f.own(bob); own.Read != 6 || own.ReadOrdinal != 6 {
		t.Errorf("kept: %+v", own)
	}
	// Of a conversation that is not here nothing is shown.
	f.events <- client.OwnStateChanged{Conversation: 999, Own: client.OwnState{Draft: "x"}}
	s.events()
	if len(s.m.chats.sorted) != 1 {
		t.Errorf("%d chats", len(s.m.chats.sorted))
	}
}

func TestAProvisionalChatBecomesTheRealOne(t *testing.T) {
	for _, known := range []bool{false, true} {
		f := newFake("ann")
		f.hold = true
		s := newScreen(t, f, 100, 20)
		f.setLink(client.Link{State: client.Offline})
		s.events()
		s.typed("bob")
		s.keys("enter")
		if !s.m.open.provisional() || s.m.open.id == 0 {
			t.Fatalf("the chat has the id %d", s.m.open.id)
		}
		s.typed("queued")
		s.keys("enter")
		s.typed("begun")
		s.fire(keepTime)
		s.typed(" and more")
		// The server has a conversation with 60 messages. A snapshot may tell it before
		// the event comes.
		direct := longChat(f, "bob", 60, 60)
		if known {
			s.m.chats.get(direct, f.peers[direct])
		}
		s.events()
		if len(s.m.chats.sorted) != 1 || s.m.open.id != direct || s.m.chats.byID[direct] != s.m.open.chat {
			t.Fatalf("%d chats, the open one is %d", len(s.m.chats.sorted), s.m.open.id)
		}
		if got := s.m.open.composer.value; got != "begun and more" {
			t.Errorf("the composer has %q", got)
		}
		s.has("message 60.", "queued", "▸ bob")
		if got := s.mark("queued"); got != "◌" {
			t.Errorf("the mark is %q", got)
		}
		s.keys("enter")
		f.hold = false
		f.deliver()
		s.events()
		if got := s.mark("begun and more"); got != "✓" {
			t.Errorf("the mark is %q", got)
		}
		s.fire(keepTime)
		if got := f.own(direct).Draft; got != "" {
			t.Errorf("the draft is %q", got)
		}
	}
}

func TestARestoredLogKeepsWhatWasTyped(t *testing.T) {
	for name, early := range map[string]bool{"before the write": false, "after the write was refused": true} {
		t.Run(name, func(t *testing.T) { restoredLog(t, early) })
	}
}

func restoredLog(t *testing.T, early bool) {
	t.Helper()
	f := newFake("ann")
	f.hold = true
	bob := f.conversation("bob", 10, line{true, time.Hour, "hello"})
	f.conversation("Carla", 10, line{true, 2 * time.Hour, "hello"})
	_, err := f.store.Begin(t.Context(), 1)
	must(err)
	s := newScreen(t, f, 100, 20)
	s.goTo("Carla")
	s.typed("for carla")
	s.goTo("bob")
	s.hold = !early // the disk takes its time
	if early {      // or is faster than the Reset
		_, err = f.store.Begin(t.Context(), 2)
		must(err)
	}
	s.typed("one")
	s.keys("enter")
	s.typed("two")
	s.keys("enter")
	s.typed("for bob")
	// Another conversation has bob's number now.
	_, err = f.store.Begin(t.Context(), 2)
	must(err)
	eve := f.person("Eve")
	must(f.store.PutConversations(t.Context(), 2, []client.Cached{{ID: bob, Peer: eve}}))
	f.peers[bob] = eve
	f.events <- client.Reset{Epoch: 2}
	s.events()
	s.release()
	s.fire(keepTime)
	for name, want := range map[string]string{"bob": "for bob", "Carla": "for carla", "Eve": ""} {
		if got := f.own(f.with(name)).Draft; got != want {
			t.Errorf("the draft for %s is %q, want %q", name, got, want)
		}
	}
	unsent, err := f.Unsent(t.Context())
	must(err)
	if n := len(unsent); n != 2 || unsent[0].Text() != "one" || unsent[1].Text() != "two" ||
		unsent[0].Conversation != f.with("bob") || unsent[1].Conversation != f.with("bob") {
		t.Errorf("unsent: %+v", unsent)
	}
	s.send(tea.FocusMsg{})
	s.has("for bob")
	if s.m.open.id != f.with("bob") {
		t.Errorf("the open chat is %d", s.m.open.id)
	}
}
