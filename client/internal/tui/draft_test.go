package tui

import (
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

func TestDraftsOfTwoScreensMeet(t *testing.T) {
	for _, test := range []struct {
		name             string
		text, kept       string // here
		edits            uint64
		theirs           string
		theirEdits       uint64
		busy             bool
		want             string
		wantKept         string
		wantEdits        uint64
		restored, wantRe string
	}{
		{
			name: "theirs replaces what is kept", text: "a", kept: "a", edits: 1, theirs: "ab", theirEdits: 1,
			want: "ab", wantKept: "ab", wantEdits: 1,
		},
		{
			name: "theirs was sent", text: "a", kept: "a", edits: 1, theirs: "", theirEdits: 2,
			want: "", wantKept: "", wantEdits: 2,
		},
		{
			name: "what is typed goes below", text: "abc", kept: "ab", edits: 1, theirs: "x", theirEdits: 2,
			want: "x\nabc", wantKept: "x", wantEdits: 2,
		},
		{
			name: "what is typed goes on where it was kept", text: "abc", kept: "ab", edits: 1, theirs: "x\nab",
			theirEdits: 2, want: "x\nabc", wantKept: "x\nab", wantEdits: 2,
		},
		{
			name: "what is typed was sent elsewhere", text: "abc", kept: "ab", edits: 1, theirs: "", theirEdits: 2,
			want: "abc", wantKept: "", wantEdits: 2,
		},
		{
			name: "theirs has all of it", text: "abc", kept: "ab", edits: 1, theirs: "x abc y", theirEdits: 2,
			want: "x abc y", wantKept: "x abc y", wantEdits: 2,
		},
		{
			name: "all of theirs is here", text: "abc", kept: "ab", edits: 1, theirs: "bc", theirEdits: 2,
			want: "abc", wantKept: "bc", wantEdits: 2,
		},
		{
			name: "a person who types keeps the text", text: "a", kept: "a", edits: 1, theirs: "b", theirEdits: 2,
			busy: true, want: "b\na", wantKept: "b", wantEdits: 2,
		},
		{
			name: "theirs is older", text: "a", kept: "a", edits: 2, theirs: "b", theirEdits: 1,
			want: "a", wantKept: "a", wantEdits: 2,
		},
		{
			name: "nothing is new", text: "abc", kept: "ab", edits: 1, theirs: "ab", theirEdits: 3, restored: "a",
			want: "abc", wantKept: "ab", wantEdits: 3, wantRe: "a",
		},
		{name: "theirs is cleaned", theirs: "a\x1bb", theirEdits: 1, want: "a␛b", wantKept: "a␛b", wantEdits: 1},
	} {
		d := draft{text: test.text, kept: test.kept, edits: test.edits, restored: test.restored}
		d.take(client.OwnState{Draft: test.theirs, Edits: test.theirEdits}, test.busy)
		if want := (draft{test.want, test.wantKept, test.wantEdits, test.wantRe}); d != want {
			t.Errorf("%s: %+v, want %+v", test.name, d, want)
		}
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
	s.hold = true // the disk takes its time
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
	f.events <- client.Reset{}
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
	// What was on its way to the disk has the old number: that is the library's.
	if n := len(unsent); n != 2 || unsent[1].Conversation != f.with("bob") {
		t.Errorf("unsent: %+v", unsent)
	}
	s.send(tea.FocusMsg{})
	s.has("for bob")
	if s.m.open.id != f.with("bob") {
		t.Errorf("the open chat is %d", s.m.open.id)
	}
}
