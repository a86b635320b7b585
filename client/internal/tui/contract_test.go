package tui

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

// realClient is ann's client on a fake service, on which bob and Zoe are, too.
// She has a conversation with bob that has 150 messages, not one of them here.
func realClient(t *testing.T) (Backend, *fake.Log, uint64, []*fake.Server) {
	t.Helper()
	log := fake.NewLog()
	id, token := log.AddUser("ann")
	log.AddUser("bob")
	log.AddUser("Zoe")
	servers := []*fake.Server{fake.NewServer(t, log, "s1"), fake.NewServer(t, log, "s2")}
	gate, err := client.NewGate(fake.NewGate(t, log).URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	conv := log.Open("ann", "bob")
	for i := range 150 {
		log.Say(conv, "bob", fmt.Sprint("old ", i+1))
	}
	s := store.NewMemory(10_000)
	quick := client.Backoff{First: 5 * time.Millisecond, Base: 10 * time.Millisecond, Cap: 50 * time.Millisecond}
	c, err := client.Open(context.WithoutCancel(t.Context()), client.Options{
		Gate: gate, Session: client.Session{Token: token, User: client.User{ID: id, Name: "ann"}},
		Store: s, Backoff: quick, FirstPage: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return NewBackend(c, s), log, conv, servers
}

// TestBackendContract holds the fake that the tests use to what the real client
// does.
func TestBackendContract(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		f := newFake("ann")
		lines := make([]line, 150)
		for i := range lines {
			lines[i] = line{false, time.Hour, fmt.Sprint("old ", i+1)}
		}
		conv := f.conversation("bob", 0, lines...)
		f.person("Zoe")
		f.setLink(f.link)
		backendContract(t, f, conv, func(text string) { f.say(conv, text) }, func(name string) { f.person(name) })
	})
	t.Run("client", func(t *testing.T) {
		b, log, conv, _ := realClient(t)
		backendContract(t, b, conv,
			func(text string) { log.Say(conv, "bob", text) }, func(name string) { log.AddUser(name) })
	})
}

//nolint:thelper // it is the test; its lines are where it fails
func backendContract(t *testing.T, b Backend, conv uint64, say, register func(string)) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(conv uint64) Target { return Target{b.Epoch(), conv} }
	// until reads events up to the one that is waited for.
	until := func(what string, is func(client.Event) bool) {
		t.Helper()
		for {
			select {
			case e := <-b.Events():
				if is(e) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("%s did not come", what)
			}
		}
	}
	until("the connection", func(e client.Event) bool {
		l, is := e.(client.LinkChanged)
		return is && l.Link.State == client.Online
	})
	if b.Link().State != client.Online || b.User().Name != "ann" || b.User().ID == 0 {
		t.Fatalf("%v, %v", b.Link(), b.User())
	}

	// A message is stored before its event comes.
	eventually(t, func() bool {
		chats, err := b.Chats(ctx)
		return err == nil && len(chats) == 1
	})
	say("hello")
	until("the message", func(e client.Event) bool {
		r, is := e.(client.Received)
		if !is {
			return false
		}
		stored, err := b.Stored(ctx, conv, 0, 10)
		ok(err)
		if r.Mine || r.Peer.Name != "bob" || r.Message.Seq != 151 || r.Message.Ordinal != 151 || len(stored) != 1 ||
			!cmp.Equal(stored[0], r.Message) {
			t.Fatalf("received %+v, stored %+v", r, stored)
		}
		return true
	})
	chats, err := b.Chats(ctx)
	ok(err)
	if len(chats) != 1 || chats[0].ID != conv || chats[0].Peer.Name != "bob" || chats[0].Last == nil ||
		chats[0].Last.Seq != 151 || chats[0].Unread() != 151 {
		t.Errorf("chats: %+v", chats)
	}

	// Older ones come from the server, in pages that touch.
	before := uint64(151)
	for before > 1 {
		page, err := page(ctx, b, conv, before, true)
		ok(err)
		if len(page) == 0 || page[len(page)-1].Seq != before-1 || page[0].Seq != before-uint64(len(page)) {
			t.Fatalf("before %d: %+v", before, page)
		}
		before = page[0].Seq
	}
	if last, err := b.Messages(ctx, conv, 1, 10); err != nil || len(last) != 0 {
		t.Errorf("before the first one: %v, %v", last, err)
	}

	// A sent message comes twice: as settled, and from the log.
	out, err := b.Send(ctx, at(conv), "from ann")
	ok(err)
	if out.State != client.Queued || out.Order == 0 || out.Text() != "from ann" {
		t.Errorf("sent: %+v", out)
	}
	settled, received := false, false
	until("the sent message", func(e client.Event) bool {
		switch e := e.(type) {
		case client.SendChanged:
			if e.Outgoing.ID == out.ID && e.Outgoing.State == client.Acknowledged && e.Outgoing.Seq == 152 {
				settled = true
			}
		case client.Received:
			if e.Message.ID == out.ID && e.Mine && e.Message.Seq == 152 {
				received = true
			}
		}
		return settled && received
	})
	if left, err := b.Unsent(ctx); err != nil || len(left) != 0 {
		t.Errorf("unsent: %v, %v", left, err)
	}

	// A message to nobody fails, and stays until it is discarded.
	nobody, err := b.Contact(ctx, "nobody")
	ok(err)
	if !client.Provisional(nobody.ID) {
		t.Errorf("nobody is %+v", nobody)
	}
	out, err = b.Send(ctx, at(nobody.ID), "anyone?")
	ok(err)
	until("the failure", func(e client.Event) bool {
		s, is := e.(client.SendChanged)
		return is && s.Outgoing.ID == out.ID && s.Outgoing.State == client.Failed && s.Outgoing.Reason != "" &&
			s.Outgoing.Conversation == nobody.ID
	})
	if left, err := b.Unsent(ctx); err != nil || len(left) != 1 || left[0].ID != out.ID {
		t.Errorf("unsent: %v, %v", left, err)
	}
	ok(b.Discard(ctx, out.ID))
	if err := b.Discard(ctx, out.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("discarded twice: %v", err)
	}

	// People.
	zoe, err := b.OpenDirect(ctx, "zoe")
	ok(err)
	again, err := b.OpenDirect(ctx, "ZOE")
	ok(err)
	if zoe.ID == 0 || zoe.ID != again.ID || zoe.ID == conv || store.PeerKey(zoe.Peer.Name) != "zoe" {
		t.Errorf("opened %+v, then %+v", zoe, again)
	}
	if _, err := b.OpenDirect(ctx, "nobody"); errs.CodeOf(err) != errs.CodeNotFound {
		t.Errorf("opening a chat with nobody: %v", err)
	}

	// Own states.
	_, err = b.SetRead(ctx, at(conv), 150)
	ok(err)
	read, err := b.SetRead(ctx, at(conv), 149) // it never falls
	ok(err)
	first, err := b.SetDraft(ctx, at(conv), "", "draft")
	ok(err)
	second, err := b.SetDraft(ctx, at(conv), "draft", "a draft")
	ok(err)
	own := func(conv uint64) client.OwnState {
		t.Helper()
		chats, err := b.Chats(ctx)
		ok(err)
		for _, c := range chats {
			if c.ID == conv {
				return c.Own
			}
		}
		return client.OwnState{}
	}
	if o := own(conv); o.Read != 150 || read.Read != 150 || o.ReadOrdinal != 150 || o.Draft != "a draft" ||
		second.Draft != "a draft" || second.Edits <= first.Edits {
		t.Errorf("own state %+v, after %+v and %+v", o, first, second)
	}
	// A text that the screen did not know is not lost.
	joined, err := b.SetDraft(ctx, at(conv), "draft", "mine")
	ok(err)
	if joined.Draft != "a draft\nmine" || own(conv).Draft != joined.Draft {
		t.Errorf("own state %+v, then %+v", joined, own(conv))
	}
	_, err = b.SetDraft(ctx, at(conv), "a draft\nmine", "")
	ok(err)
	if o := own(conv); o.Draft != "" {
		t.Errorf("own state: %+v", o)
	}

	// What is begun with a person who was only named moves with them.
	register("amy")
	amy, err := b.Contact(ctx, "amy")
	ok(err)
	_, err = b.SetDraft(ctx, at(amy.ID), "", "for amy")
	ok(err)
	direct, err := b.OpenDirect(ctx, "Amy")
	ok(err)
	until("the move", func(e client.Event) bool {
		r, is := e.(client.ConversationResolved)
		return is && r.From == amy.ID && r.To == direct.ID
	})
	if o := own(direct.ID); o.Draft != "for amy" {
		t.Errorf("moved: %+v", o)
	}
	_, err = b.SetDraft(ctx, at(amy.ID), "for amy", "by the old id")
	ok(err)
	if o := own(direct.ID); o.Draft != "by the old id" {
		t.Errorf("own state: %+v", o)
	}
	ok(b.Reconnect(ctx))
}

// TestTheScreenOnARealClient is a whole run: a message comes, the answer goes
// out, the servers vanish, what is written meanwhile waits, and goes out in
// order when they are back.
func TestTheScreenOnARealClient(t *testing.T) {
	b, log, conv, servers := realClient(t)
	out, in := &lockedBuffer{}, newKeyboard(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Backend: b, Input: in, Output: out, Environ: xterm, size: testSize})
	}()
	see(t, in, out, "online")
	see(t, in, out, "bob")
	in.press("\x0b") // Ctrl+K
	in.press("bob\r")
	see(t, in, out, "150 new ↓") // at the first unread one
	in.press("\x1b[1;5F")        // Ctrl+End
	see(t, in, out, "old 150")
	log.Say(conv, "bob", "are you there?")
	see(t, in, out, "are you there?")
	in.press("yes I am\r")
	eventually(t, func() bool { return len(log.Texts(conv)) == 152 })
	for _, s := range servers {
		s.Do(func(f *fake.Faults) { f.Hello = refuseHello })
		s.Cut()
	}
	see(t, in, out, "offline")
	for i := range 20 {
		in.press(fmt.Sprintf("waiting %d\r", i))
	}
	see(t, in, out, "20 to send")
	for _, s := range servers {
		s.Do(func(f *fake.Faults) { f.Hello = nil })
	}
	eventually(t, func() bool { return len(log.Texts(conv)) == 172 })
	for i, text := range log.Texts(conv)[152:] {
		if text != fmt.Sprint("waiting ", i) {
			t.Errorf("message %d is %q", i, text)
		}
	}
	in.press("\x03\x03")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func refuseHello(*chatv1.Hello) *chatv1.Goodbye {
	return &chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, Text: "no database", Reconnect: true}
}
