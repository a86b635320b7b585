package client_test

import (
	"fmt"
	"slices"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/shared/errs"
)

// What is typed for somebody while no server can be asked moves, in every window,
// to the conversation that a server tells.
func TestAProvisionalConversationIsResolvedForAllWindows(t *testing.T) {
	w := newWorld(t, 1)
	laptop := machine(t)
	one, two := w.open(t, "alice", laptop, noNetwork), w.open(t, "alice", laptop, noNetwork)
	bobs := one.contact("BOB").ID
	if !client.Provisional(bobs) || two.contact("bob").ID != bobs {
		t.Fatalf("contacts: %d, %d", bobs, two.contact("bob").ID)
	}
	one.send(bobs, "1")
	two.draft(bobs, "half a tho")
	until(t, "the other window has the draft", func() bool { return one.shown(bobs).Draft == "half a tho" })
	two.send(bobs, "2")
	if c := one.chat(bobs); c.Peer != (client.Peer{Name: "BOB"}) || c.Own.Draft != "half a tho" || c.Unread() != 0 {
		t.Errorf("chat: %+v", c)
	}
	online := w.open(t, "alice", laptop)
	for _, p := range []*person{one, two, online} {
		until(t, "resolved", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.moves[bobs] == w.conv })
		if c := p.contact("bob"); c.ID != w.conv || c.Own.Draft != "half a tho" {
			t.Errorf("contact: %+v", c)
		}
	}
	until(t, "the server has the draft", func() bool {
		return w.log.Own(w.conv, "alice").GetDraft().GetText() == "half a tho"
	})
	// The old id still leads there.
	one.wait(one.send(bobs, "3"))
	one.draft(bobs, "")
	until(t, "the server has the draft", func() bool { return w.log.Own(w.conv, "alice").GetDraft().GetText() == "" })
	if got := w.log.Texts(w.conv); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("log: %q", got)
	}
}

// A draft alone asks no server for its conversation; the other person's first
// message tells it.
func TestAListedConversationResolvesADraft(t *testing.T) {
	w := newWorld(t, 1)
	w.user("carol")
	alice := w.open(t, "alice")
	alice.untilState(client.Online)
	carols := alice.contact("carol").ID
	alice.draft(carols, "shall I")
	conv := w.log.Open("alice", "carol")
	w.log.Say(conv, "carol", "hello")
	alice.untilTexts(conv, []string{"hello"})
	alice.mu.Lock()
	if to := alice.moves[carols]; to != conv {
		t.Errorf("resolved to %d", to)
	}
	alice.mu.Unlock()
	agree(t, conv, 0, "shall I", alice)
}

// Messages to the provisional conversation and to the resolved one keep their
// order, whichever window resolved it.
func TestMessagesDoNotOvertakeEachOtherWhileAConversationIsResolved(t *testing.T) {
	for seed := range 5 {
		w := newWorld(t, 1)
		laptop := machine(t)
		var refused refusals
		w.servers[0].Do(func(f *fakeFaults) {
			f.Open = refused.open(2)
			f.Send = func(s *chatv1.Send) (fate, error) {
				if len(s.GetBody())%7 == seed {
					return fake.CutAfter, nil
				}
				return fake.Answer, nil
			}
		})
		one, two := w.open(t, "alice", laptop), w.open(t, "alice", laptop)
		var want []string
		for n := range 40 {
			text := fmt.Sprint("m", n)
			want = append(want, text)
			[]*person{one, two}[n%2].sendTo("bob", text)
			if n == 15 {
				if _, err := two.OpenDirect(bounded(t), "Bob"); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.servers[0].Do(func(f *fakeFaults) { f.Send = nil })
		until(t, "all sent", func() bool { return len(w.log.Texts(w.conv)) >= len(want) })
		if got := w.log.Texts(w.conv); !slices.Equal(got, want) {
			t.Errorf("log: %q", got)
		}
	}
}

func TestNobodyOfThatNameKeepsWhatWasTyped(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	nobody := alice.contact("nobody").ID
	out, err := alice.Wait(bounded(t), alice.send(nobody, "anyone?").ID)
	if errs.CodeOf(err) != errs.CodeNotFound || out.Conversation != nobody {
		t.Errorf("outcome: %+v, %v", out, err)
	}
	alice.draft(nobody, "hello?")
	if c := alice.chat(nobody); c.Peer.Name != "nobody" || c.Own.Draft != "hello?" {
		t.Errorf("chat: %+v", c)
	}
	if page, err := alice.Messages(bounded(t), nobody, 0, 10); err != nil || len(page) != 0 {
		t.Errorf("messages: %v, %v", page, err)
	}
}

// After a restore what waited for a person is in a provisional conversation again,
// also in a window that has no network.
func TestARestoreKeepsDraftsInEveryWindow(t *testing.T) {
	w := newWorld(t, 1)
	laptop := machine(t)
	one := w.open(t, "alice", laptop)
	w.log.Say(w.conv, "bob", "hi")
	one.untilTexts(w.conv, []string{"hi"})
	off := w.open(t, "alice", laptop, noNetwork)
	w.shut()
	one.untilState(client.Offline)
	one.draft(w.conv, "dear Bob")
	w.log.Restore(w.conv, 0)
	w.log.Rename(w.conv, w.conv+1)
	w.servers[0].Do(func(f *fakeFaults) { f.Hello = nil })
	for _, p := range []*person{one, off} {
		until(t, "reset", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.resets == 1 })
		until(t, "the draft", func() bool { return p.contact("bob").Own.Draft == "dear Bob" })
	}
	until(t, "the server has the draft", func() bool {
		return w.log.Own(w.conv+1, "alice").GetDraft().GetText() == "dear Bob"
	})
	until(t, "resolved", func() bool { return off.contact("bob").ID == w.conv+1 })
}
