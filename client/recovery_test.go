package client_test

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
	"github.com/msrchat/msrchat/shared/errs"
)

func TestPushesMayBeLostDoubledReorderedOrLate(t *testing.T) {
	for name, change := range map[string]func() func(*chatv1.Event) []*chatv1.Event{
		"every second lost": func() func(*chatv1.Event) []*chatv1.Event {
			return func(ev *chatv1.Event) []*chatv1.Event {
				if ev.GetSeq()%2 == 0 {
					return nil
				}
				return []*chatv1.Event{ev}
			}
		},
		"doubled": func() func(*chatv1.Event) []*chatv1.Event {
			return func(ev *chatv1.Event) []*chatv1.Event { return []*chatv1.Event{ev, ev} }
		},
		"swapped and late": func() func(*chatv1.Event) []*chatv1.Event {
			var mu sync.Mutex
			var held []*chatv1.Event
			return func(ev *chatv1.Event) []*chatv1.Event {
				mu.Lock()
				defer mu.Unlock()
				if held = append(held, ev); len(held) < 7 {
					return nil
				}
				out := slices.Clone(held)
				slices.Reverse(out)
				held = nil
				return out
			}
		},
		"of the past": func() func(*chatv1.Event) []*chatv1.Event {
			var mu sync.Mutex
			var all []*chatv1.Event
			return func(ev *chatv1.Event) []*chatv1.Event {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, ev)
				return slices.Clone(all)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.servers[0].Do(func(f *fakeFaults) { f.Push = change() })
			alice, bob := w.open(t, "alice"), w.open(t, "bob")
			alice.untilState(client.Online)
			bob.untilState(client.Online)
			want := numbered("m", 61)
			for i, text := range want {
				w.log.Say(w.conv, []string{"alice", "bob"}[i%2], text)
			}
			// The last push may be among the lost: the server repairs it.
			w.servers[0].Repair()
			alice.untilTexts(w.conv, want)
			bob.untilTexts(w.conv, want)
		})
	}
}

func TestTheLastMessageOfASilentConversationIsRepaired(t *testing.T) {
	w := newWorld(t, 1)
	bob := w.open(t, "bob")
	bob.untilState(client.Online)
	w.servers[0].Do(func(f *fakeFaults) { f.Push = func(*chatv1.Event) []*chatv1.Event { return nil } })
	w.log.Say(w.conv, "alice", "did you get this?")
	if _, err := bob.Conversations(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if got := bob.texts(w.conv); len(got) != 0 {
		t.Fatalf("received %q without a push", got)
	}
	w.servers[0].Repair()
	bob.untilTexts(w.conv, []string{"did you get this?"})
}

func TestTheConnectionBreaksAtEveryPointOfASend(t *testing.T) {
	for name, f := range map[string]fate{
		"before the append": fake.CutBefore, "after the append": fake.CutAfter, "inside the answer": fake.CutInside,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			var mu sync.Mutex
			seen, cuts := map[string]bool{}, 0
			for _, s := range w.servers {
				s.Do(func(fs *fakeFaults) {
					fs.Send = func(m *chatv1.Send) (fate, error) {
						mu.Lock()
						defer mu.Unlock()
						// Every third message breaks its connection when it first comes.
						id := string(m.GetClientMsgId())
						if !seen[id] && len(seen)%3 == 2 {
							seen[id] = true
							cuts++
							return f, nil
						}
						seen[id] = true
						return fake.Answer, nil
					}
				})
			}
			alice, bob := w.open(t, "alice"), w.open(t, "bob")
			want := numbered("m", 24)
			var outs []client.Outgoing
			for _, text := range want {
				outs = append(outs, alice.sendTo("Bob", text))
			}
			for i, out := range outs {
				if got := alice.wait(out); got.Seq != uint64(i+1) {
					t.Errorf("message %d got number %d", i+1, got.Seq)
				}
			}
			if got := w.log.Texts(w.conv); !slices.Equal(got, want) {
				t.Errorf("log: %q", got)
			}
			alice.untilTexts(w.conv, want)
			bob.untilTexts(w.conv, want)
			if mu.Lock(); cuts < 5 {
				t.Errorf("only %d connections broke", cuts)
			}
			mu.Unlock()
		})
	}
}

func TestAnAcknowledgementThatCameLateSaysSo(t *testing.T) {
	w := newWorld(t, 1)
	w.servers[0].Do(func(f *fakeFaults) { f.Send = always(fake.CutAfter) })
	alice := w.open(t, "alice")
	out := alice.sendTo("Bob", "once")
	until(t, "append", func() bool { return len(w.log.Texts(w.conv)) == 1 })
	w.servers[0].Do(func(f *fakeFaults) { f.Send = nil })
	if got := alice.wait(out); !got.Existing || got.Seq != 1 {
		t.Errorf("outcome: %+v", got)
	}
}

func TestASilentServerIsLeft(t *testing.T) {
	w := newWorld(t, 2)
	for _, s := range w.servers {
		s.Heartbeat = 60 * time.Millisecond
	}
	alice := w.open(t, "alice")
	first := alice.untilState(client.Online).Instance
	silent := w.servers[0]
	if first == "s2" {
		silent = w.servers[1]
	}
	until(t, "pings on an idle connection", func() bool { return silent.Pings() >= 2 })
	silent.Silence(true)
	until(t, "another server", func() bool {
		l := alice.Link()
		return l.State == client.Online && l.Instance != first
	})
}

func TestAServerThatDoesNotAnswerIsLeftBeforeTheHeartbeatEnds(t *testing.T) {
	w := newWorld(t, 2)
	alice := w.open(t, "alice", func(o *client.Options) { o.Patience = 100 * time.Millisecond })
	first := alice.untilState(client.Online).Instance
	for _, s := range w.servers {
		if s.Instance == first {
			s.Silence(true)
		}
	}
	start := time.Now()
	alice.wait(alice.sendTo("Bob", "hello?"))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if got := w.log.Texts(w.conv); !slices.Equal(got, []string{"hello?"}) {
		t.Errorf("log: %q", got)
	}
}

func TestABusyServerThatStillAnswersPingsIsKept(t *testing.T) {
	w := newWorld(t, 1)
	s := w.servers[0]
	s.Do(func(f *fakeFaults) { f.Send = always(swallow) }) // as while the database is away
	alice := w.open(t, "alice", func(o *client.Options) { o.Patience = 40 * time.Millisecond })
	alice.sendTo("Bob", "held")
	until(t, "pings", func() bool { return s.Pings() >= 2 })
	if n := len(s.Hellos()); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestALostAnswerDoesNotStopThingsForEver(t *testing.T) {
	w := newWorld(t, 1)
	s := w.servers[0]
	var mu sync.Mutex
	n := 0
	s.Do(func(f *fakeFaults) {
		f.Send = func(*chatv1.Send) (fate, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == 1 {
				return fake.Swallow, nil
			}
			return fake.Answer, nil
		}
	})
	alice := w.open(t, "alice", func(o *client.Options) { o.Patience = 40 * time.Millisecond })
	if got := alice.wait(alice.sendTo("Bob", "lost")); !got.Existing {
		t.Errorf("outcome: %+v", got)
	}
	if len(s.Hellos()) != 2 || s.Pings() == 0 {
		t.Errorf("%d connections, %d pings", len(s.Hellos()), s.Pings())
	}
}

func TestWithoutGateKnownServersAreTried(t *testing.T) {
	w := newWorld(t, 3)
	s := store.NewMemory(100)
	alice := w.open(t, "alice", func(o *client.Options) { o.Store = s })
	first := alice.untilState(client.Online).Instance
	w.gate.Kill()
	for _, server := range w.servers {
		if server.Instance == first {
			server.Kill()
		}
	}
	until(t, "another server", func() bool {
		l := alice.Link()
		return l.State == client.Online && l.Instance != first
	})
	alice.Close()
	// A program that starts now remembers them.
	again := w.open(t, "alice", func(o *client.Options) { o.Store = s })
	again.wait(again.sendTo("Bob", "without a gate"))
	// Alternates of a Goodbye come first.
	fresh := fake.NewServer(t, w.log, "s9")
	for _, server := range w.servers {
		server.Goodbye(&chatv1.Goodbye{
			Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, Reconnect: true,
			Alternates: []*chatv1.Endpoint{fresh.Endpoint()},
		})
	}
	until(t, "the alternate", func() bool { return again.Link().Instance == "s9" })
}

func TestAFullFleetIsAskedAgain(t *testing.T) {
	w := newWorld(t, 1)
	w.gate.Fail(errs.New(errs.CodeExhausted, "every server is full").Retry(30 * time.Millisecond))
	alice := w.open(t, "alice")
	link := alice.untilState(client.Offline)
	if errs.CodeOf(link.Cause) != errs.CodeExhausted {
		t.Errorf("cause: %v", link.Cause)
	}
	w.gate.Fail(nil)
	alice.untilState(client.Online)
	// The only server broke the connection: it is better than none.
	w.servers[0].Cut()
	until(t, "the same server again", func() bool { return len(w.servers[0].Hellos()) == 2 })
	alice.untilState(client.Online)
}

func TestARevokedSessionStops(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.open(t, "alice")
	alice.untilState(client.Online)
	w.log.Revoke("alice")
	w.servers[0].Cut()
	if link := alice.untilState(client.LoggedOut); errs.CodeOf(link.Cause) != errs.CodeUnauthenticated {
		t.Errorf("cause: %v", link.Cause)
	}
}

func TestAnotherAccountsTokenIsNotUsed(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session["alice"]
	s.Token = w.session["bob"].Token
	w.session["alice"] = s
	alice := w.open(t, "alice")
	alice.untilState(client.LoggedOut)
}

func TestASlowApplicationMissesNothing(t *testing.T) {
	w := newWorld(t, 1)
	want := numbered("m", 700)
	for _, text := range want[:300] {
		w.log.Say(w.conv, "bob", text)
	}
	c, err := client.Open(t.Context(), client.Options{
		Gate: w.api, Session: w.session["alice"], Store: fresh(t), EventBuffer: 10, Backoff: quick,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bob, err := c.Contact(t.Context(), "Bob")
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Send(t.Context(), bob.ID, "not held up") // though nobody reads
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(bounded(t), out.ID); err != nil {
		t.Fatal(err)
	}
	for _, text := range want[300:] {
		w.log.Say(w.conv, "bob", text)
	}
	w.servers[0].Repair()
	want = slices.Insert(want, 300, "not held up")
	next, outbox := 0, 0
	timeout := time.After(patience)
	for next < len(want) {
		select {
		case e := <-c.Events():
			switch e := e.(type) {
			case client.Received:
				if e.Message.Text() != want[next] || e.Message.Seq != uint64(next+1) {
					t.Fatalf("message %d: %d %q", next+1, e.Message.Seq, e.Message.Text())
				}
				next++
			case client.SendChanged, client.OutboxChanged:
				outbox++
			}
		case <-timeout:
			t.Fatalf("%d of %d messages", next, len(want))
		}
	}
	if outbox == 0 {
		t.Error("no event about the outbox")
	}
}

func TestTheOutboxSurvivesTheProgram(t *testing.T) {
	w := newWorld(t, 1)
	path := filepath.Join(t.TempDir(), "alice.db")
	id := w.session["alice"].User.ID
	disk := func() *sqlite.Store {
		s, err := sqlite.Open(t.Context(), path, id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	w.gate.Fail(errs.New(errs.CodeUnavailable, "away"))
	// The first program ends with ten messages queued and none sent; it closes
	// nothing, as a killed one does.
	first := disk()
	alice := w.open(t, "alice", func(o *client.Options) { o.Store = first })
	for _, text := range numbered("a", 10) {
		alice.sendTo("Bob", text)
	}
	alice.Close()
	// The second one sends them, and is cut off after the append of the fifth.
	w.gate.Fail(nil)
	var mu sync.Mutex
	n := 0
	w.servers[0].Do(func(f *fakeFaults) {
		f.Send = func(*chatv1.Send) (fate, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > 5 {
				return fake.CutBefore, nil
			}
			return fake.CutAfter, nil
		}
	})
	alice = w.open(t, "alice", func(o *client.Options) { o.Store = disk() })
	until(t, "cut off", func() bool { mu.Lock(); defer mu.Unlock(); return n > 7 })
	alice.sendTo("Bob", "b 1")
	alice.Close()
	w.servers[0].Do(func(f *fakeFaults) { f.Send = nil })
	third := disk()
	w.open(t, "alice", func(o *client.Options) { o.Store = third })
	want := append(numbered("a", 10), "b 1")
	until(t, "all sent", func() bool { return len(w.log.Texts(w.conv)) >= len(want) })
	if got := w.log.Texts(w.conv); !slices.Equal(got, want) {
		t.Errorf("log: %q", got)
	}
	until(t, "empty outbox", func() bool {
		queued, err := third.Queued(t.Context(), 0, 100)
		return err == nil && len(queued) == 0
	})
	if ok, err := first.TryLock(); err != nil || !ok {
		t.Errorf("an idle client holds the outbox: %v, %v", ok, err)
	}
}

// A profile's programs share the outbox: who is online sends for all.
func TestWhoIsOnlineSendsForAll(t *testing.T) {
	w := newWorld(t, 1)
	data := store.NewMemory(1000)
	if err := data.SetListed(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	offline := w.open(t, "alice", func(o *client.Options) {
		o.Store = data.Another()
		o.Gate = awayGate{}
	})
	out := offline.sendTo("Bob", "from the offline one")
	offline.untilState(client.Offline)
	online := w.open(t, "alice", func(o *client.Options) { o.Store = data.Another() })
	if got := offline.wait(out); got.Seq != 1 {
		t.Errorf("outcome: %+v", got)
	}
	next := offline.sendTo("Bob", "again")
	offline.wait(next)
	online.untilTexts(w.conv, []string{"from the offline one", "again"})
	until(t, "news of the outbox", func() bool {
		offline.mu.Lock()
		defer offline.mu.Unlock()
		return offline.outbox > 0
	})
}

// While one program waits for an acknowledgement, another one of the profile
// does not send the same message, until the first has lost its connection.
func TestOneProgramSendsAtATime(t *testing.T) {
	w := newWorld(t, 1)
	data := store.NewMemory(1000)
	var mu sync.Mutex
	sends := 0
	w.servers[0].Do(func(f *fakeFaults) {
		f.Send = func(*chatv1.Send) (fate, error) {
			mu.Lock()
			defer mu.Unlock()
			if sends++; sends == 1 {
				return fake.Swallow, nil
			}
			return fake.Answer, nil
		}
	})
	seen := func() int {
		mu.Lock()
		defer mu.Unlock()
		return sends
	}
	one := w.open(t, "alice", func(o *client.Options) { o.Store = data.Another() })
	out := one.send(w.conv, "once")
	until(t, "the first sending", func() bool { return seen() == 1 })
	two := w.open(t, "alice", func(o *client.Options) { o.Store = data.Another() })
	two.untilState(client.Online)
	next := two.send(w.conv, "behind it")
	for range 50 { // round trips, in which the other one would send
		if _, err := two.Conversations(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := seen(); n != 1 {
		t.Errorf("%d sendings while the first one was under way", n)
	}
	one.Close()
	if got := two.wait(out); got.Seq != 1 || !got.Existing {
		t.Errorf("taken over: %+v", got)
	}
	if got := two.wait(next); got.Seq != 2 {
		t.Errorf("behind it: %+v", got)
	}
}

type awayGate struct{}

func (awayGate) Assign(ctxT, client.Token, []string) (client.Assignment, error) {
	return client.Assignment{}, errs.Wrap(errs.CodeUnavailable, errors.New("no route"), "the gate cannot be reached")
}
