package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
	"github.com/msrchat/msrchat/shared/content"
)

// TestStalePlusEventsEqualsFresh plays random actions in several windows of several
// devices of one person, with lost pushes, cut connections, windows that end or lose
// their network, and servers of two releases. When all is quiet again every window
// shows what the server has and what a fresh device finds.
func TestStalePlusEventsEqualsFresh(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for i := range seeds {
		seed := uint64(i + 1)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			a := newAgreement(t, seed)
			for range 200 {
				a.step()
			}
			a.settle()
		})
	}
}

// agreement is a schedule of alice's windows, two on each of her devices; the
// others write by way of the log.
type agreement struct {
	*world
	t       *testing.T
	rng     *rand.Rand
	stores  []func() store.Store // of each device, one handle a call
	windows []*person            // of device i/2
	names   []string             // whom alice talks to; the last one has no conversation yet
	count   int

	mu     sync.Mutex
	random *rand.Rand // for the faults; under mu
	faulty bool       // under mu
}

func newAgreement(t *testing.T, seed uint64) *agreement {
	t.Helper()
	a := &agreement{
		world: newWorld(t, 3), t: t, rng: rand.New(rand.NewPCG(seed, 1)), random: rand.New(rand.NewPCG(seed, 2)),
		faulty: true, names: []string{"bob", "carol", "dave"},
	}
	a.user("carol")
	a.user("dave")
	a.log.Open("alice", "carol")
	a.servers[0].Revision = uint32(seed % 2) // of the release before, in every second run
	for _, s := range a.servers {
		s.Heartbeat = 200 * time.Millisecond
		s.Do(a.addFaults)
	}
	data := store.NewMemory(100_000)
	path := filepath.Join(t.TempDir(), "alice.db")
	a.stores = []func() store.Store{
		func() store.Store { return data.Another() },
		func() store.Store {
			s, err := sqlite.Open(context.Background(), path, a.session["alice"].User.ID)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
	}
	for i := range 4 {
		a.windows = append(a.windows, nil)
		a.start(i)
	}
	return a
}

// start opens a window, for a while without a network.
func (a *agreement) start(i int, change ...func(*client.Options)) {
	a.windows[i] = a.open(a.t, "alice", append([]func(*client.Options){func(o *client.Options) {
		o.Store = a.stores[i/2]()
		o.EventBuffer = 10
		o.Patience = 300 * time.Millisecond
	}}, change...)...)
}

// addFaults gives a server its random faults: pushes and heads that are lost, changes
// that are refused or made without an answer.
func (a *agreement) addFaults(f *fakeFaults) {
	chance := func(n int) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.faulty && a.random.IntN(100) < n
	}
	f.Own = func(*chatv1.SetOwnState) error {
		if chance(10) {
			return fake.Unavailable(time.Millisecond)
		}
		return nil
	}
	f.Frame = func(f *chatv1.ServerFrame) *chatv1.ServerFrame {
		push := f.GetRequestId() == 0 && f.GetWelcome() == nil
		answer := f.GetRequestId() != 0 && f.GetOwnState() != nil
		if push && chance(20) || answer && chance(5) {
			return nil
		}
		return f
	}
}

// contact is what a window calls somebody's conversation.
func (a *agreement) contact() (w *person, conv uint64, name string) {
	w = a.windows[a.rng.IntN(len(a.windows))]
	name = a.names[a.rng.IntN(len(a.names))]
	return w, w.contact(name).ID, name
}

func (a *agreement) step() {
	a.count++
	switch a.rng.IntN(10) {
	case 0, 1:
		w, conv, _ := a.contact()
		w.draft(conv, []string{"", w.shown(conv).Draft + "+", fmt.Sprint("draft ", a.count)}[a.rng.IntN(3)])
	case 2, 3:
		w, conv, _ := a.contact()
		if head := w.chat(conv).Head; head > 0 {
			w.read(conv, 1+a.rng.Uint64N(head))
		}
	case 4:
		w, conv, _ := a.contact()
		w.send(conv, fmt.Sprint("mine ", a.count))
	case 5, 6:
		name := a.names[a.rng.IntN(2)]
		kind := uint32(content.Text)
		if a.servers[0].Revision > 0 && a.rng.IntN(3) == 0 {
			kind = fake.Uncounted // a server of the release before would count it
		}
		a.log.Do(a.log.Open("alice", name), name, kind, fmt.Sprint("theirs ", a.count))
	case 7:
		a.servers[a.rng.IntN(len(a.servers))].Cut()
	case 8:
		a.servers[a.rng.IntN(len(a.servers))].Repair()
	case 9:
		i := a.rng.IntN(len(a.windows))
		a.windows[i].Close()
		if a.rng.IntN(2) == 0 {
			a.start(i, noNetwork)
		} else {
			a.start(i)
		}
	}
	time.Sleep(time.Duration(a.rng.IntN(3)) * time.Millisecond) // spreads the schedule
}

// settle ends the faults, brings every window online, and compares.
func (a *agreement) settle() {
	t := a.t
	a.mu.Lock()
	a.faulty = false
	a.mu.Unlock()
	if a.servers[0].Revision == 0 {
		a.servers[0].Kill()
		a.servers = a.servers[1:]
	}
	// What was typed for dave is sent before anybody asks for the conversation.
	a.windows[0].sendTo("dave", "the end")
	a.windows[2].sendTo("dave", "the end, too")
	for i, w := range a.windows {
		if w.Link().State != client.Online {
			w.Close()
			a.start(i)
		}
	}
	fresh := a.open(t, "alice", machine(t))
	for _, name := range a.names {
		conv := a.log.Open("alice", name)
		for i, w := range append(slices.Clone(a.windows), fresh) {
			a.agree(fmt.Sprintf("window %d about %s", i, name), w, conv)
		}
	}
	for i, w := range a.windows {
		until(t, fmt.Sprintf("the outbox of window %d is empty", i), func() bool {
			out, err := w.Unsent(t.Context())
			return err == nil && len(out) == 0
		})
		for _, name := range a.names {
			conv := a.log.Open("alice", name)
			head, _ := a.log.Head(conv)
			for _, p := range []*person{fresh, w} {
				until(t, "the last message", func() bool { return p.reaches(conv) == head })
			}
			if diff := cmp.Diff(fresh.scrollUp(conv), w.scrollUp(conv)); diff != "" {
				t.Errorf("window %d about %s (-fresh +window): %s", i, name, diff)
			}
		}
	}
}

// agree waits until a window shows what the server has.
func (a *agreement) agree(what string, w *person, conv uint64) {
	var diff string
	deadline := time.Now().Add(patience)
	for ; time.Now().Before(deadline); time.Sleep(time.Millisecond) { // between two looks
		for _, s := range a.servers {
			s.Repair()
		}
		if diff = cmp.Diff(a.has(conv), shows(w, conv)); diff == "" {
			return
		}
	}
	a.t.Fatalf("%s (-server +window): %s\nshown: %+v\nstored: %+v", what, diff, w.shown(conv), w.chat(conv))
}

// picture is what a person sees of a conversation beside its messages.
type picture struct {
	Head, Ordinal, Read uint64
	Draft               string
	Unread              int
	Unsent              bool
}

// has is the picture by the server.
func (a *agreement) has(conv uint64) picture {
	own := a.log.Own(conv, "alice")
	head, ordinal := a.log.Head(conv)
	return picture{
		Head: head, Ordinal: ordinal, Read: own.GetReadSeq(), Draft: own.GetDraft().GetText(),
		Unread: int(ordinal - own.GetReadOrdinal()),
	}
}

// shows is the picture by a window: what its application has learnt, and its store.
func shows(w *person, conv uint64) picture {
	c, shown := w.chat(conv), w.shown(conv)
	if c.Own.Read != shown.Read || c.Own.Draft != shown.Draft {
		return picture{}
	}
	return picture{
		Head: c.Head, Ordinal: c.HeadOrdinal, Read: shown.Read, Draft: shown.Draft, Unread: c.Unread(),
		Unsent: c.Own.Unsent(),
	}
}
