package client_test

import (
	"context"
	"fmt"
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

// soon is how long two devices of one person may disagree while they are online: a
// second, and what a busy machine adds.
const soon = 5 * time.Second

// machine is a device: its windows share a store.
func machine(t *testing.T) func(*client.Options) {
	t.Helper()
	data := store.NewMemory(1000)
	if err := data.SetListed(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return func(o *client.Options) { o.Store = data.Another() }
}

// noNetwork keeps a window offline: there is no gate, and no server is remembered.
func noNetwork(o *client.Options) {
	o.Gate, o.Store = awayGate{}, nowhere{o.Store}
}

type nowhere struct{ store.Store }

func (nowhere) Meta(context.Context, string) (string, error) { return "", nil }

// agree waits until everybody's application shows the same own state, and
// everybody's store has it.
func agree(t *testing.T, conv, read uint64, draft string, people ...*person) {
	t.Helper()
	start := time.Now()
	for i, p := range people {
		until(t, fmt.Sprintf("window %d agrees on %d and %q", i, read, draft), func() bool {
			own, shown := p.chat(conv).Own, p.shown(conv)
			return own.Read == read && own.ReadOrdinal == read && own.Draft == draft && !own.Unsent() &&
				shown.Read == read && shown.Draft == draft
		})
	}
	if took := time.Since(start); took > soon {
		t.Errorf("they agreed after %v", took)
	}
}

// online waits until a client has received everything that was said.
func (w *world) online(people ...*person) {
	for _, p := range people {
		p.t.Helper()
		p.untilState(client.Online)
		until(p.t, "everything received", func() bool {
			return p.chat(w.conv).Head == uint64(len(w.log.Texts(w.conv)))
		})
	}
}

func TestTwoDevicesAndTwoWindowsAgree(t *testing.T) {
	w := newWorld(t, 2)
	for _, text := range numbered("m", 9) {
		w.log.Say(w.conv, "bob", text)
	}
	laptop, phone := machine(t), machine(t)
	one, two, away := w.open(t, "alice", laptop), w.open(t, "alice", laptop), w.open(t, "alice", phone)
	bob := w.open(t, "bob")
	w.online(one, two, away, bob)
	if n := away.chat(w.conv).Unread(); n != 9 {
		t.Errorf("%d unread of 9", n)
	}
	one.read(w.conv, 4)
	agree(t, w.conv, 4, "", one, two, away)
	if n := two.chat(w.conv).Unread(); n != 5 {
		t.Errorf("%d unread of 5", n)
	}
	away.draft(w.conv, "dear B")
	agree(t, w.conv, 4, "dear B", one, two, away)
	two.draft(w.conv, "dear Bob")
	one.read(w.conv, 2) // less than before
	two.read(w.conv, 9)
	agree(t, w.conv, 9, "dear Bob", one, two, away)
	away.draft(w.conv, "")
	agree(t, w.conv, 9, "", one, two, away)
	if n := one.chat(w.conv).Unread(); n != 0 {
		t.Errorf("%d unread of none", n)
	}
	if own := one.shown(w.conv); own.Read != 9 || own.Draft != "" {
		t.Errorf("the first window shows %+v", own)
	}
	if own := w.log.Own(w.conv, "bob"); own != nil || bob.chat(w.conv).Own != (client.OwnState{}) {
		t.Errorf("bob has an own state: %v", own)
	}
}

func TestAWeekOfflineLosesNothingThatWasTyped(t *testing.T) {
	w := newWorld(t, 1)
	carols := w.user2("carol")
	for _, text := range numbered("m", 20) {
		w.log.Say(w.conv, "bob", text)
		w.log.Say(carols, "carol", text)
	}
	laptop, phone := machine(t), machine(t)
	a, b := w.open(t, "alice", laptop), w.open(t, "alice", phone)
	w.online(a, b)
	a.draft(w.conv, "both know this")
	agree(t, w.conv, 0, "both know this", a, b)
	a.Close()
	// While the laptop has no network its user goes on, and so does the phone's.
	off := w.open(t, "alice", laptop, noNetwork)
	off.untilState(client.Offline)
	off.draft(w.conv, "typed on the laptop")
	off.read(w.conv, 15)
	off.draft(carols, "only here")
	b.draft(w.conv, "typed on the phone, later")
	b.read(w.conv, 10)
	b.draft(carols, "")
	b.read(carols, 20)
	agree(t, w.conv, 10, "typed on the phone, later", b)
	agree(t, carols, 20, "", b)
	off.Close()
	back := w.open(t, "alice", laptop)
	agree(t, w.conv, 15, "typed on the phone, later\ntyped on the laptop", back, b)
	agree(t, carols, 20, "only here", back, b)
	// A new device finds the same.
	fresh := w.open(t, "alice", machine(t))
	agree(t, w.conv, 15, "typed on the phone, later\ntyped on the laptop", fresh)
}

func (w *world) user2(name string) uint64 {
	w.user(name)
	return w.log.Open("alice", name)
}

func TestAServerOfTheReleaseBeforeIsNotAskedForOwnStates(t *testing.T) {
	w := newWorld(t, 2)
	old := w.servers[0]
	old.Revision = 0
	w.gate.Only("s1")
	for _, text := range numbered("m", 5) {
		w.log.Say(w.conv, "bob", text)
	}
	laptop := machine(t)
	alice, bob := w.open(t, "alice", laptop), w.open(t, "bob")
	w.online(alice, bob)
	alice.read(w.conv, 3)
	alice.draft(w.conv, "kept here")
	bob.wait(bob.send(w.conv, "m 6"))
	alice.untilTexts(w.conv, numbered("m", 6))
	states, err := alice.OwnStates(bounded(t), []uint64{w.conv})
	if err != nil || states[w.conv].Draft != "kept here" {
		t.Errorf("own states: %+v, %v", states, err)
	}
	if c := alice.chat(w.conv); c.Unread() != 3 || c.HeadOrdinal != 6 || !c.Own.Unsent() || c.Own.Draft != "kept here" {
		t.Errorf("chat: %+v", c)
	}
	window := w.open(t, "alice", laptop) // the other windows have it all the same
	if c := window.chat(w.conv); c.Unread() != 3 || c.Own.Draft != "kept here" {
		t.Errorf("another window: %+v", c)
	}
	if old.Unknown() != 0 {
		t.Errorf("%d requests that it does not know", old.Unknown())
	}
	w.gate.Only("s2")
	old.Kill()
	until(t, "a new server has it", func() bool {
		own := w.log.Own(w.conv, "alice")
		return own.GetReadSeq() == 3 && own.GetDraft().GetText() == "kept here"
	})
	agree(t, w.conv, 3, "kept here", alice, window)
}

func TestARefusedOwnStateIsTriedAgainIfThatMayHelp(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Say(w.conv, "bob", "hi")
	var mu sync.Mutex
	var seen []string
	refuse := map[string]error{
		"wait": fake.Unavailable(time.Millisecond), "never": errs.New(errs.CodeInvalid, "not that"),
	}
	w.servers[0].Do(func(f *fakeFaults) {
		f.Own = func(s *chatv1.SetOwnState) error {
			mu.Lock()
			defer mu.Unlock()
			text := s.GetDraft().GetText()
			seen = append(seen, fmt.Sprintf("%s %d", text, s.GetReadSeq()))
			err := refuse[text]
			if text == "wait" {
				refuse[text] = nil
			}
			return err
		}
	})
	alice := w.open(t, "alice")
	w.online(alice)
	alice.draft(w.conv, "wait")
	agree(t, w.conv, 0, "wait", alice)
	alice.draft(w.conv, "never")
	alice.read(w.conv, 1) // is not held up by it
	until(t, "the server has the read mark", func() bool { return w.log.Own(w.conv, "alice").GetReadSeq() == 1 })
	alice.draft(w.conv, "fine")
	agree(t, w.conv, 1, "fine", alice)
	mu.Lock()
	defer mu.Unlock()
	nevers := 0
	for _, s := range seen {
		if strings.HasPrefix(s, "never") {
			nevers++
		}
	}
	if nevers == 0 || nevers > 2 {
		t.Errorf("asked: %q", seen)
	}
}

func TestADraftThatIsTooLongStaysHere(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Say(w.conv, "bob", "hi")
	laptop := machine(t)
	alice, window := w.open(t, "alice", laptop), w.open(t, "alice", laptop)
	phone := w.open(t, "alice", machine(t))
	w.online(alice, window, phone)
	long := strings.Repeat("長", 10_000)
	alice.draft(w.conv, long+"\xff")
	alice.read(w.conv, 1)
	until(t, "the other window has it", func() bool { return window.shown(w.conv).Draft == long+"\uFFFD" })
	until(t, "the phone has the read mark", func() bool { return phone.shown(w.conv).Read == 1 })
	if own := w.log.Own(w.conv, "alice"); own.GetDraft() != nil {
		t.Errorf("sent: %v", own)
	}
	alice.draft(w.conv, "short")
	agree(t, w.conv, 1, "short", alice, window, phone)
}

// One request of a conversation is under way at a time, whichever window it is
// from, and the newest text is sent next.
func TestChangesAreGatheredWhileARequestIsUnderWay(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Say(w.conv, "bob", "hi")
	var mu sync.Mutex
	var sent []string
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free() // or the server would not end
	w.servers[0].Do(func(f *fakeFaults) {
		f.Own = func(s *chatv1.SetOwnState) error {
			mu.Lock()
			sent = append(sent, s.GetDraft().GetText())
			mu.Unlock()
			<-release
			return nil
		}
	})
	laptop := machine(t)
	alice, window := w.open(t, "alice", laptop), w.open(t, "alice", laptop)
	w.online(alice, window)
	alice.draft(w.conv, "a")
	until(t, "the first request", func() bool { mu.Lock(); defer mu.Unlock(); return len(sent) == 1 })
	for n := range 20 {
		alice.draft(w.conv, fmt.Sprint("a", n))
	}
	free()
	agree(t, w.conv, 0, "a19", alice, window)
	mu.Lock()
	defer mu.Unlock()
	if sent[0] != "a" || sent[len(sent)-1] != "a19" || len(sent) > 3 {
		t.Errorf("sent: %q", sent)
	}
}

// The numbers that come with the heads are enough, however many conversations
// there are and however little fits into an answer.
func TestOwnStatesAreReadInPages(t *testing.T) {
	w := newWorld(t, 1)
	s := w.servers[0]
	s.MaxPage, s.MaxOwnBytes = 7, 40
	phone := w.open(t, "alice", machine(t))
	var convs []uint64
	for i := range 40 {
		convs = append(convs, w.user2(fmt.Sprintf("user%d", i)))
		w.log.Say(convs[i], fmt.Sprintf("user%d", i), "hi")
	}
	for i, conv := range convs {
		until(t, "the message", func() bool { return phone.chat(conv).Head == 1 })
		phone.read(conv, 1)
		phone.draft(conv, fmt.Sprintf("draft %d 十二個字元的草稿", i))
	}
	until(t, "all sent", func() bool { return w.log.Own(convs[39], "alice").GetDraft() != nil })
	pushes := 0
	s.Do(func(f *fakeFaults) {
		f.Frame = func(f *chatv1.ServerFrame) *chatv1.ServerFrame {
			if f.GetOwnState() != nil && f.GetRequestId() == 0 {
				pushes++
				return nil
			}
			return f
		}
	})
	fresh := w.open(t, "alice", machine(t))
	for i, conv := range convs {
		want := fmt.Sprintf("draft %d 十二個字元的草稿", i)
		until(t, "state "+want, func() bool {
			return fresh.shown(conv).Draft == want && fresh.chat(conv).Unread() == 0
		})
	}
}

func TestUnansweredChangesAreBounded(t *testing.T) {
	w := newWorld(t, 1)
	s := w.servers[0]
	var mu sync.Mutex
	asked, silent := 0, true
	s.Do(func(f *fakeFaults) {
		f.Own = func(*chatv1.SetOwnState) error {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return nil
		}
		f.Frame = func(f *chatv1.ServerFrame) *chatv1.ServerFrame {
			mu.Lock()
			defer mu.Unlock()
			if silent && f.GetOwnState() != nil {
				return nil
			}
			return f
		}
	})
	alice := w.open(t, "alice")
	alice.untilState(client.Online)
	var convs []uint64
	for i := range 40 {
		convs = append(convs, w.user2(fmt.Sprintf("user%d", i)))
		alice.draft(convs[i], "dear")
	}
	const most = 16
	until(t, "the first requests", func() bool { mu.Lock(); defer mu.Unlock(); return asked == most })
	for range 3 { // a round trip later there would be more
		if _, err := alice.Conversations(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	if asked != most {
		t.Errorf("%d requests without an answer", asked)
	}
	silent = false
	mu.Unlock()
	s.Cut()
	for _, conv := range convs {
		agree(t, conv, 0, "dear", alice)
	}
}

// Events that are no messages do not count, whatever page they are in.
func TestUnreadIsASubtraction(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	w.log.Say(w.conv, "bob", "1")
	w.log.Do(w.conv, "bob", fake.Uncounted, "\xff\x00")
	w.log.Say(w.conv, "bob", "2")
	w.log.Do(w.conv, "bob", fake.Uncounted, "")
	until(t, "all received", func() bool { return alice.chat(w.conv).Head == 4 })
	check := func(p *person, unread int) {
		t.Helper()
		until(t, fmt.Sprintf("%d unread", unread), func() bool { return p.chat(w.conv).Unread() == unread })
	}
	check(alice, 2)
	alice.read(w.conv, 2)
	check(alice, 1)
	fresh := w.open(t, "alice", machine(t))
	check(fresh, 1)
	alice.read(w.conv, 99) // more than there is
	check(alice, 0)
	check(fresh, 0)
	w.log.Do(w.conv, "bob", fake.Uncounted, "")
	until(t, "it is received", func() bool { return fresh.chat(w.conv).Head == 5 })
	check(fresh, 0)
}

func TestASlowApplicationIsToldTheLatestOwnStates(t *testing.T) {
	w := newWorld(t, 1)
	other := w.user2("carol")
	for _, conv := range []uint64{w.conv, other} {
		w.log.Say(conv, "alice", "hi")
	}
	c, err := client.Open(t.Context(), client.Options{
		Gate: w.api, Session: w.session["alice"], Store: fresh(t), EventBuffer: 2, Backoff: quick,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	phone := w.open(t, "alice", machine(t))
	w.online(phone)
	for n := range 60 {
		phone.draft(w.conv, fmt.Sprint("a", n))
		phone.draft(other, fmt.Sprint("b", n))
	}
	agree(t, w.conv, 0, "a59", phone)
	agree(t, other, 0, "b59", phone)
	until(t, "the slow one has it", func() bool {
		states, err := c.OwnStates(t.Context(), nil)
		return err == nil && states[w.conv].Draft == "a59" && states[other].Draft == "b59"
	})
	last := map[uint64]string{}
	timeout := time.After(patience)
	for events := 0; last[w.conv] != "a59" || last[other] != "b59"; events++ {
		select {
		case e := <-c.Events():
			if own, ok := e.(client.OwnStateChanged); ok {
				last[own.Conversation] = own.Own.Draft
			}
		case <-timeout:
			t.Fatalf("received %v", last)
		}
	}
}

// An application that has not taken over yet what the client reported names the draft
// that it has: the newer one is kept, and so is what was typed.
func TestADraftGoesBelowOneThatTheApplicationDoesNotName(t *testing.T) {
	w := newWorld(t, 1)
	w.log.Say(w.conv, "bob", "hi")
	laptop := machine(t)
	one, two := w.open(t, "alice", laptop), w.open(t, "alice", laptop)
	w.online(one, two)
	two.draft(w.conv, "theirs")
	until(t, "it is reported", func() bool { return one.shown(w.conv).Draft == "theirs" })
	in := one.In(one.Epoch())
	for _, c := range []struct{ known, text, want string }{
		{"", "mine", "theirs\nmine"}, {"theirs\nmine", "mine", "mine"}, {"other", "all of mine", "all of mine"},
	} {
		own, err := in.SetDraft(bounded(t), w.conv, c.known, c.text)
		if err != nil || own.Draft != c.want || one.chat(w.conv).Own.Draft != c.want {
			t.Errorf("%q in place of %q: %+v, %v", c.text, c.known, own, err)
		}
	}
}
