package client_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

func TestTwoPeopleChat(t *testing.T) {
	w := newWorld(t, 2)
	alice, bob := w.open(t, "alice"), w.open(t, "bob")
	want := []string{"hello", "你好，北京 🎉", "안녕\n👨‍👩‍👧", strings.Repeat("長", 4000)}
	for i, text := range want {
		out := alice.wait(alice.sendTo("Bob", text))
		if out.Seq != uint64(i+1) || out.Conversation != w.conv || out.State != client.Acknowledged || out.Existing {
			t.Fatalf("message %d: %+v", i+1, out)
		}
	}
	bob.wait(bob.send(w.conv, "hi"))
	want = append(want, "hi")
	alice.untilTexts(w.conv, want)
	bob.untilTexts(w.conv, want)
	until(t, "four outcomes", func() bool {
		alice.mu.Lock()
		defer alice.mu.Unlock()
		return len(alice.sends) == 4 && alice.sends[3].Seq == 4
	})
	link := alice.Link()
	if link.State != client.Online || link.Instance == "" || link.Address == "" || link.Release != "test" ||
		link.Cause != nil {
		t.Errorf("link: %+v", link)
	}
	hello := w.servers[1].Hellos() // the fake gate begins with the second
	if len(hello) != 1 || hello[0].GetProtocol() != 1 || len(hello[0].GetToken()) != 32 ||
		hello[0].GetClient() != "test/1" || hello[0].GetAssignmentId() == "" {
		t.Errorf("hello: %v", hello)
	}
	bob.mu.Lock()
	defer bob.mu.Unlock()
	for _, m := range bob.received[w.conv][:4] {
		if m.Sender != alice.Session().User.ID || m.At.IsZero() || m.ID == (client.MessageID{}) {
			t.Errorf("message: %+v", m)
		}
	}
}

func TestBadInputIsRefusedBeforeItIsQueued(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	for _, c := range []struct {
		to   uint64
		text string
		code errs.Code
	}{
		{w.conv, "", errs.CodeInvalid},
		{w.conv, " \n", errs.CodeInvalid},
		{w.conv, "a\x1b[31m", errs.CodeInvalid},
		{w.conv, "\xff", errs.CodeInvalid},
		{w.conv, "a\u202eb", errs.CodeInvalid},
		{w.conv, strings.Repeat("長", 10_000), errs.CodeTooLarge},
		{0, "hi", errs.CodeInvalid},
		{store.MaxID + 5, "hi", errs.CodeNotFound},
	} {
		if _, err := alice.Send(t.Context(), c.to, c.text); errs.CodeOf(err) != c.code {
			t.Errorf("%+v %.20q: %v, want %s", c.to, c.text, err, c.code)
		}
	}
	if _, err := alice.Contact(t.Context(), "b\x00b"); errs.CodeOf(err) != errs.CodeInvalid {
		t.Errorf("contact of no name: %v", err)
	}
	if unsent, err := alice.Unsent(t.Context()); err != nil || len(unsent) != 0 {
		t.Errorf("queued: %v, %v", unsent, err)
	}
	if _, err := alice.OpenDirect(bounded(t), "nobody"); errs.CodeOf(err) != errs.CodeNotFound {
		t.Errorf("open nobody: %v", err)
	}
	if _, err := alice.History(bounded(t), 999, client.Range{}); errs.CodeOf(err) != errs.CodeForbidden {
		t.Errorf("foreign history: %v", err)
	}
}

func TestARefusedMessageFailsAlone(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	w.servers[0].Do(func(f *fakeFaults) {
		f.Send = refuseText("bad", errs.New(errs.CodeForbidden, "not to bob"))
	})
	alice.untilState(client.Online)
	first := alice.sendTo("Bob", "one")
	bad := alice.sendTo("Bob", "bad")
	last := alice.sendTo("Bob", "two")
	nobody := alice.sendTo("nobody", "anyone there?")
	alice.wait(first)
	alice.wait(last)
	for id, want := range map[client.MessageID]errs.Code{bad.ID: errs.CodeForbidden, nobody.ID: errs.CodeNotFound} {
		out, err := alice.Wait(bounded(t), id)
		if errs.CodeOf(err) != want || out.State != client.Failed || out.Reason == "" {
			t.Errorf("refused: %+v, %v", out, err)
		}
	}
	if got := w.log.Texts(w.conv); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("log: %q", got)
	}
	unsent, err := alice.Unsent(t.Context())
	if err != nil || len(unsent) != 2 || unsent[0].Text() != "bad" {
		t.Fatalf("unsent: %+v, %v", unsent, err)
	}
	for _, out := range unsent {
		if err := alice.Discard(t.Context(), out.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := alice.Wait(bounded(t), bad.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("wait for a discarded message: %v", err)
	}
}

func TestARefusalThatPassesIsRetriedInOrder(t *testing.T) {
	w := newWorld(t, 1)
	w.user("carol")
	other := w.log.Open("alice", "carol")
	alice := w.open(t, "alice")
	var refused refusals
	w.servers[0].Do(func(f *fakeFaults) { f.Send = refused.some(w.conv, 3) })
	var outs []client.Outgoing
	for _, text := range numbered("m", 10) {
		outs = append(outs, alice.sendTo("Bob", text))
	}
	// Another conversation is not held up.
	if out := alice.wait(alice.sendTo("carol", "hi")); out.Conversation != other || out.Seq != 1 {
		t.Errorf("to carol: %+v", out)
	}
	for i, out := range outs {
		if got := alice.wait(out); got.Seq != uint64(i+1) {
			t.Errorf("message %d got number %d", i+1, got.Seq)
		}
	}
	if got := w.log.Texts(w.conv); !slices.Equal(got, numbered("m", 10)) {
		t.Errorf("log: %q", got)
	}
}

func TestARefusedMessageIsTriedAgainWhenAskedAndAlone(t *testing.T) {
	w := newWorld(t, 1)
	const after = 400 * time.Millisecond
	type attempt struct {
		text string
		at   time.Time
	}
	var mu sync.Mutex
	var seen []attempt
	w.servers[0].Do(func(f *fakeFaults) {
		f.Send = func(s *chatv1.Send) (fate, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, attempt{string(s.GetBody()), time.Now()})
			if len(seen) <= 2 {
				return fake.Answer, fake.Unavailable(after)
			}
			return fake.Answer, nil
		}
	})
	alice := w.open(t, "alice")
	var outs []client.Outgoing
	for _, text := range numbered("m", 5) {
		outs = append(outs, alice.send(w.conv, text))
	}
	for _, out := range outs {
		alice.wait(out)
	}
	mu.Lock()
	defer mu.Unlock()
	// The others of the first burst are refused by the lane, and not seen here.
	for i := 1; i <= 2; i++ {
		if seen[i].text != "m 1" {
			t.Errorf("attempt %d was %q", i+1, seen[i].text)
		}
		if gap := seen[i].at.Sub(seen[i-1].at); gap < after {
			t.Errorf("attempt %d came after %v, asked for %v", i+1, gap, after)
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d attempts for five messages and two refusals", len(seen))
	}
}

func TestAPeerThatCannotBeLookedUpNowIsRetried(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	var refused refusals
	w.servers[0].Do(func(f *fakeFaults) { f.Open = refused.open(2) })
	bob := alice.contact("BOB").ID
	outs := []client.Outgoing{alice.sendTo("Bob", "1"), alice.send(bob, "2"), alice.sendTo("Bob", "3")}
	for _, out := range outs {
		alice.wait(out)
	}
	if got := w.log.Texts(w.conv); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("log: %q", got)
	}
}

func TestUnansweredSendsAreBounded(t *testing.T) {
	for _, c := range []struct{ server, own, want int }{{5, 0, 5}, {8, 3, 3}} {
		w := newWorld(t, 1)
		s := w.servers[0]
		s.MaxUnacknowledged = uint32(c.server)
		s.Do(func(f *fakeFaults) { f.Send = always(swallow) })
		alice := w.open(t, "alice", func(o *client.Options) { o.Outstanding = c.own })
		for _, text := range numbered("m", 20) {
			alice.sendTo("Bob", text)
		}
		until(t, "unanswered sends", func() bool { return s.MostUnanswered() == c.want })
		// A round trip later there would be more.
		if _, err := alice.Conversations(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if got := s.MostUnanswered(); got != c.want {
			t.Errorf("%d sends unanswered, want %d", got, c.want)
		}
		s.Do(func(f *fakeFaults) { f.Send = nil })
		s.Cut()
		until(t, "all sent", func() bool { return len(w.log.Texts(w.conv)) == 20 })
		if got := w.log.Texts(w.conv); !slices.Equal(got, numbered("m", 20)) {
			t.Errorf("log: %q", got)
		}
	}
}

func TestRequestsOutliveAConnection(t *testing.T) {
	w := newWorld(t, 2)
	for _, text := range numbered("m", 120) {
		w.log.Say(w.conv, "bob", text)
	}
	alice := w.open(t, "alice", func(o *client.Options) { o.SendOnly = true })
	alice.untilState(client.Online)
	w.gate.Fail(errs.New(errs.CodeUnavailable, "away"))
	for _, s := range w.servers {
		s.Do(func(f *fakeFaults) { f.Hello = goodbyeOnce() })
		s.Cut()
	}
	page, err := alice.History(bounded(t), w.conv, client.Range{After: 100})
	if err != nil || len(page.Messages) != 20 || page.Messages[0].Text() != "m 101" || page.Head != 120 {
		t.Fatalf("page of %d, head %d, %v", len(page.Messages), page.Head, err)
	}
	page, err = alice.History(bounded(t), w.conv, client.Range{Before: 31, Limit: 10})
	if err != nil || len(page.Messages) != 10 || page.Messages[9].Seq != 30 {
		t.Fatalf("page before: %+v, %v", page, err)
	}
	convs, err := alice.Conversations(bounded(t))
	if err != nil || len(convs) != 1 || convs[0].Peer.Name != "bob" || convs[0].Head != 120 {
		t.Fatalf("conversations: %+v, %v", convs, err)
	}
	conv, err := alice.OpenDirect(bounded(t), "ＢＯＢ")
	if err != nil || conv.ID != w.conv {
		t.Fatalf("open: %+v, %v", conv, err)
	}
}

func TestCallsEndWithTheirContextAndTheClient(t *testing.T) {
	w := newWorld(t, 1)
	w.servers[0].Kill()
	w.gate.Kill()
	alice := w.open(t, "alice")
	link := alice.untilState(client.Offline)
	if errs.CodeOf(link.Cause) != errs.CodeUnavailable || link.RetryAt.IsZero() {
		t.Errorf("link: %+v", link)
	}
	short, cancel := contextWithTimeout(t, 20*time.Millisecond)
	defer cancel()
	_, err := alice.Conversations(short)
	if errs.CodeOf(err) != errs.CodeUnavailable || !strings.Contains(err.Error(), "no connection") {
		t.Errorf("call without a connection: %v", err)
	}
	out := alice.sendTo("Bob", "later")
	if _, err := alice.Wait(short, out.ID); errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("wait without a connection: %v", err)
	}
	done := make(chan error, 2)
	go func() { _, err := alice.Wait(t.Context(), out.ID); done <- err }()
	go func() { _, err := alice.History(t.Context(), 1, client.Range{}); done <- err }()
	alice.Close()
	for range 2 {
		if err := <-done; err == nil {
			t.Error("a call on a closed client succeeded")
		}
	}
	if _, err := alice.WaitOnline(t.Context()); err == nil {
		t.Error("a closed client is online")
	}
	if _, ok := <-alice.Events(); ok {
		<-alice.ended // the recorder took the rest
	}
}

func TestMessagesComeFromTheStoreOrTheServer(t *testing.T) {
	w := newWorld(t, 1)
	for _, text := range numbered("m", 230) {
		w.log.Say(w.conv, "bob", text)
	}
	s := store.NewMemory(10_000) // as after a log-in on a new machine
	bob := w.open(t, "bob", func(o *client.Options) { o.Store = s; o.FirstPage = 30 })
	until(t, "first page", func() bool {
		chats, err := bob.Chats(t.Context())
		return err == nil && len(chats) == 1 && chats[0].Last != nil && chats[0].Stored.Lo == 201
	})
	if got := bob.texts(w.conv); len(got) != 0 {
		t.Errorf("%d old messages came as new", len(got))
	}
	w.log.Say(w.conv, "alice", "new")
	bob.untilTexts(w.conv, []string{"new"})
	before := uint64(0)
	var all []string
	for page := 0; ; page++ {
		list, err := bob.Messages(bounded(t), w.conv, before, 25)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, m := range list {
			texts = append(texts, m.Text())
		}
		all = append(texts, all...)
		if len(list) == 0 || list[0].Seq == 1 {
			break
		}
		before = list[0].Seq
	}
	if want := append(numbered("m", 230), "new"); !slices.Equal(all, want) {
		t.Errorf("%d messages, from %q", len(all), all[0])
	}
	// Now all of it is stored: it is there without a server, too.
	w.gate.Kill()
	w.servers[0].Kill()
	list, err := bob.Messages(bounded(t), w.conv, 26, 25)
	if err != nil || len(list) != 25 || list[0].Text() != "m 1" {
		t.Errorf("stored page: %d, %v", len(list), err)
	}
}

func TestTheHeadOfEveryConversationIsReachedAtOnce(t *testing.T) {
	w := newWorld(t, 1)
	want := map[uint64][]string{w.conv: numbered("bob", 120)}
	for _, text := range want[w.conv] {
		w.log.Say(w.conv, "bob", text)
	}
	for _, name := range []string{"carol", "dave", "erin", "frank", "grace", "王小明"} {
		w.user(name)
		conv := w.log.Open("alice", name)
		want[conv] = numbered(name, 3)
		for _, text := range want[conv] {
			w.log.Say(conv, name, text)
		}
	}
	alice := w.open(t, "alice")
	for conv, texts := range want {
		alice.untilTexts(conv, texts)
	}
	// A conversation that comes into being while connected.
	w.user("heidi")
	conv := w.log.Open("heidi", "alice")
	w.log.Say(conv, "heidi", "a")
	w.log.Say(conv, "heidi", "b")
	alice.untilTexts(conv, []string{"a", "b"})
	chats, err := alice.Chats(t.Context())
	if err != nil || len(chats) != 8 || chats[7].Peer.Name != "heidi" || chats[7].Last.Text() != "b" {
		t.Errorf("chats: %+v, %v", chats, err)
	}
}

func TestReceivingGoesOnWhereTheStoreEnds(t *testing.T) {
	w := newWorld(t, 1)
	s := fresh(t)
	with := func(o *client.Options) { o.Store = s }
	alice := w.open(t, "alice", with)
	w.log.Say(w.conv, "bob", "1")
	alice.untilTexts(w.conv, []string{"1"})
	alice.Close()
	w.log.Say(w.conv, "bob", "2")
	w.log.Say(w.conv, "bob", "3")
	again := w.open(t, "alice", with)
	again.untilTexts(w.conv, []string{"2", "3"})
	again.Close()
	w.log.Say(w.conv, "bob", "4")
	now := w.open(t, "alice", with, func(o *client.Options) { o.FromNow = true })
	now.untilState(client.Online)
	// Receiving begins once the conversations are listed; a call's answer comes
	// after that of the listing, which was asked for before.
	if _, err := now.Conversations(bounded(t)); err != nil {
		t.Fatal(err)
	}
	w.log.Say(w.conv, "bob", "5")
	now.untilTexts(w.conv, []string{"5"})
	now.Close()
	// What was left out is still missing in the store, and comes now.
	last := w.open(t, "alice", with)
	last.untilTexts(w.conv, []string{"4", "5"})
}

// Until the conversations are listed it is not known where "now" is.
func TestNothingIsReceivedBeforeTheListing(t *testing.T) {
	w := newWorld(t, 1)
	s := fresh(t)
	with := func(o *client.Options) { o.Store = s }
	alice := w.open(t, "alice", with)
	w.log.Say(w.conv, "bob", "1")
	alice.untilTexts(w.conv, []string{"1"})
	alice.Close()
	w.log.Say(w.conv, "bob", "2")
	var mu sync.Mutex
	refused, pulls := 0, 0
	w.servers[0].Do(func(f *fakeFaults) {
		f.Frame = func(f *chatv1.ServerFrame) *chatv1.ServerFrame {
			mu.Lock()
			defer mu.Unlock()
			if f.GetHistoryPage() != nil {
				pulls++
			}
			if f.GetConversationList() == nil || refused == 1 {
				return f
			}
			refused++
			return &chatv1.ServerFrame{RequestId: f.GetRequestId(), Body: &chatv1.ServerFrame_Failure{
				Failure: &chatv1.Failure{Code: string(errs.CodeUnavailable), RetryAfterMs: 100},
			}}
		}
	})
	now := w.open(t, "alice", with, func(o *client.Options) { o.FromNow = true })
	now.untilState(client.Online)
	if _, err := now.Conversations(bounded(t)); err != nil { // answered after the second listing
		t.Fatal(err)
	}
	until(t, "the second listing", func() bool { mu.Lock(); defer mu.Unlock(); return refused == 1 })
	if _, err := now.OpenDirect(bounded(t), "bob"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if pulls != 0 {
		t.Errorf("%d pages pulled", pulls)
	}
	mu.Unlock()
}

func TestAMessageFromANewerServerKeepsItsPlace(t *testing.T) {
	w := newWorld(t, 1)
	w.servers[0].Do(func(f *fakeFaults) {
		f.Push = func(ev *chatv1.Event) []*chatv1.Event {
			if string(ev.GetBody()) == "future" {
				ev = &chatv1.Event{
					ConversationId: ev.ConversationId, Seq: ev.Seq, Ordinal: ev.Ordinal,
					SenderId: ev.SenderId, Kind: 200,
				}
			}
			return []*chatv1.Event{ev}
		}
	})
	alice := w.open(t, "alice")
	w.log.Say(w.conv, "bob", "a")
	alice.untilTexts(w.conv, []string{"a"}) // from here on by pushes
	w.log.Say(w.conv, "bob", "future")
	w.log.Say(w.conv, "bob", "b")
	alice.untilTexts(w.conv, []string{"a", "", "b"})
	alice.mu.Lock()
	defer alice.mu.Unlock()
	if kind := alice.received[w.conv][1].Kind; kind != 200 {
		t.Errorf("kind %d", kind)
	}
}
