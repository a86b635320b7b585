package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

// restored is a service whose backup knows another person under the id of the
// conversation with bob; bob's has a new one.
func (w *world) restored(t *testing.T) (bobs, carols uint64) {
	t.Helper()
	carols = w.conv
	w.shut()
	// A server that still writes would do so into the restored log.
	until(t, "no server works", func() bool { return w.servers[0].Connections() == 0 })
	w.user("carol")
	w.log.Restore(w.conv, 0)
	w.log.Rename(w.conv, w.conv+1)
	w.log.Rename(w.log.Open("alice", "carol"), carols)
	w.servers[0].Do(func(f *fakeFaults) { f.Hello = nil })
	return w.conv + 1, carols
}

// writes are all calls that write under the id of a conversation.
func writes(in client.InEpoch, id uint64) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"send":  func(ctx context.Context) error { _, err := in.Send(ctx, id, "dear Bob"); return err },
		"read":  func(ctx context.Context) error { _, err := in.SetRead(ctx, id, 1); return err },
		"draft": func(ctx context.Context) error { _, err := in.SetDraft(ctx, id, "", "dear Bob"); return err },
	}
}

func refused(t *testing.T, in client.InEpoch, id uint64) {
	t.Helper()
	for what, write := range writes(in, id) {
		err := write(bounded(t))
		if !errors.Is(err, store.ErrStale) || errs.CodeOf(err) != errs.CodeConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAnIDFromBeforeARestoreIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Say(w.conv, "bob", "hi")
	alice := w.open(t, "alice")
	alice.untilTexts(w.conv, []string{"hi"})
	before := alice.In(alice.Epoch())
	daves := alice.contact("dave").ID
	bobs, carols := w.restored(t)
	until(t, "reset", func() bool { alice.mu.Lock(); defer alice.mu.Unlock(); return alice.resets == 1 })
	until(t, "the list", func() bool { return alice.chat(carols).Peer.Name == "carol" })
	refused(t, before, carols)
	if _, err := before.SetDraft(bounded(t), daves, "", "dear Dave"); err != nil {
		t.Errorf("a provisional id holds in every epoch: %v", err)
	}
	for what, write := range writes(alice.In(alice.Epoch()), bobs) {
		if err := write(bounded(t)); err != nil {
			t.Errorf("%s in the new epoch: %v", what, err)
		}
	}
	until(t, "bob has it", func() bool { return len(w.log.Texts(bobs)) == 1 })
	if texts, own := w.log.Texts(carols), w.log.Own(carols, "alice"); len(texts) > 0 || own != nil {
		t.Errorf("carol's conversation has %q, and %v", texts, own)
	}
}

func TestAnIDIsRefusedAsSoonAsAnyWindowKnowsOfTheRestore(t *testing.T) {
	w := newWorld(t, 1)
	data := store.NewMemory(1000)
	alice := w.open(t, "alice", func(o *client.Options) { o.Store = data.Another() })
	alice.untilState(client.Online)
	if _, err := data.Begin(t.Context(), alice.Epoch()+1); err != nil {
		t.Fatal(err)
	}
	refused(t, alice.In(alice.Epoch()), w.conv)
	if _, err := alice.Send(bounded(t), w.conv, "dear Bob"); !errors.Is(err, store.ErrStale) {
		t.Errorf("send: %v", err)
	}
}

func TestIDsFromBeforeTheFirstConnectionStayGood(t *testing.T) {
	w := newWorld(t, 1)
	laptop := machine(t)
	off := w.open(t, "alice", laptop, noNetwork)
	in := off.In(off.Epoch())
	on := w.open(t, "alice", laptop)
	on.untilState(client.Online)
	for what, write := range writes(in, w.conv) { // another window met the first epoch
		if err := write(bounded(t)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNoMessageGetsToAnotherPersonByARestore sends all the time, as a person does who
// has not seen the Reset yet.
func TestNoMessageGetsToAnotherPersonByARestore(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	alice.untilState(client.Online)
	in, former := alice.In(alice.Epoch()), w.conv
	accepted := map[string]bool{}
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := 0; ; n++ {
			text := fmt.Sprint("for bob ", n)
			_, err := in.Send(context.Background(), former, text)
			if errors.Is(err, store.ErrStale) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			accepted[text] = true
		}
	})
	until(t, "some are sent", func() bool { return len(w.log.Texts(former)) > 20 })
	bobs, carols := w.restored(t)
	sending.Wait()
	until(t, "all are settled", func() bool {
		left, err := alice.Unsent(t.Context())
		return err == nil && !slices.ContainsFunc(left, func(o client.Outgoing) bool {
			return o.State == client.Queued
		})
	})
	for _, text := range w.log.Texts(bobs) {
		if !accepted[text] {
			t.Errorf("bob has %q", text)
		}
	}
	if texts := w.log.Texts(carols); len(texts) > 0 {
		t.Errorf("carol has %d messages: %q …", len(texts), texts[0])
	}
}

func TestANewEpochDropsTheLogAndKeepsTheOutbox(t *testing.T) {
	w := newWorld(t, 1)
	s := fresh(t)
	alice := w.open(t, "alice", func(o *client.Options) { o.Store = s })
	for _, text := range numbered("m", 20) {
		w.log.Say(w.conv, "bob", text)
	}
	alice.untilTexts(w.conv, numbered("m", 20))
	w.servers[0].Do(func(f *fakeFaults) { f.Send = always(fake.CutBefore) })
	out := alice.sendTo("Bob", "typed before the restore")
	// The backup is older, the conversation has another id, and life goes on.
	w.shut()
	alice.untilState(client.Offline)
	w.log.Restore(w.conv, 12)
	w.log.Rename(w.conv, w.conv+1)
	w.servers[0].Do(func(f *fakeFaults) { f.Send, f.Hello = nil, nil })
	got := alice.wait(out)
	if got.Conversation != w.conv+1 || got.Seq != 13 {
		t.Errorf("outcome: %+v", got)
	}
	until(t, "reset", func() bool {
		alice.mu.Lock()
		defer alice.mu.Unlock()
		return alice.resets == 1
	})
	w.log.Say(w.conv+1, "bob", "after the restore")
	until(t, "the new log", func() bool {
		texts := alice.texts(w.conv + 1)
		return len(texts) > 0 && texts[len(texts)-1] == "after the restore"
	})
	if list, err := alice.Messages(bounded(t), w.conv+1, 0, 100); err != nil || len(list) != 14 {
		t.Errorf("stored: %d, %v", len(list), err)
	}
	chats, err := alice.Chats(t.Context())
	if err != nil || len(chats) != 1 || chats[0].ID != w.conv+1 {
		t.Errorf("chats: %+v, %v", chats, err)
	}
}

func TestARestoredTailIsNotReceivedTwice(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	for _, text := range numbered("m", 20) {
		w.log.Say(w.conv, "bob", text)
	}
	alice.untilTexts(w.conv, numbered("m", 20))
	w.shut()
	alice.untilState(client.Offline)
	w.log.Restore(w.conv, 12)
	w.servers[0].Do(func(f *fakeFaults) { f.Hello = nil })
	alice.untilState(client.Online)
	if _, err := alice.Conversations(bounded(t)); err != nil { // answered after the listing
		t.Fatal(err)
	}
	w.log.Say(w.conv, "bob", "new 13")
	alice.untilTexts(w.conv, []string{"new 13"}) // what was recorded before the reset is dropped
}
