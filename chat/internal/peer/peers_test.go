package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

func TestDeliveriesArriveInOrderOnceEach(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	const n = 1000 // several frames
	for i := range uint64(n) {
		if !a.Send("b", event(i+1)) {
			t.Fatal("no link to b")
		}
	}
	testenv.Until(t, "all arrive", func() bool { return len(b.got()) >= n })
	for i, d := range b.got() {
		if d.GetEvent().GetSeq() != uint64(i+1) {
			t.Fatalf("at place %d stands event %d", i, d.GetEvent().GetSeq())
		}
	}
	if a.Send("nobody", event(1)) {
		t.Error("a link to nobody")
	}
	if a.missed.Load()+b.missed.Load() != 0 {
		t.Error("something was reported missing where all is well")
	}
}

func TestBothAgreeWhoOwnsWhat(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	const conversations = 100
	for id := range uint64(conversations) {
		atA := a.appends()
		for _, n := range []*node{a, b} {
			got, err := n.Append(t.Context(), id, entries("x", "y"))
			if err != nil || len(got) != 2 || got[1].Seq != got[0].Seq+1 || got[0].CreatedAt != 7 {
				t.Fatalf("append gave %v, %v", got, err)
			}
		}
		if by := a.appends() - atA; by != 0 && by != 2 {
			t.Errorf("conversation %d is owned by both", id)
		}
	}
	if n := a.appends(); n < conversations/2 || n > conversations*3/2 {
		t.Errorf("a got %d of %d appends", n, 2*conversations)
	}
	if e := b.entries; len(e) == 0 || e[0].Sender != 1 || string(e[0].Body) != "x" || e[0].ID != [16]byte{1} || e[0].Kind != 1 {
		t.Errorf("the owner got %+v", e)
	}
}

func TestADrainingServerOwnsNothing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.Drain()
	a.Drain() // again is fine
	testenv.Until(t, "b sees it", func() bool { return !b.linked("a") })
	before := a.appends()
	for id := range uint64(50) {
		for _, n := range []*node{a, b} {
			if _, err := n.Append(t.Context(), id, entries("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if a.appends() != before {
		t.Error("appended at the server that drains")
	}
	a.Send("b", event(1)) // what it has is still delivered
	testenv.Until(t, "the last delivery arrives", func() bool { return len(b.got()) == 1 })
	a.Send("b", event(2))
	a.leave()
	testenv.Until(t, "what was queued at the farewell arrives", func() bool { return len(b.got()) == 2 })
	a.kill()
	if b.missed.Load() != 0 {
		t.Error("a server that took leave was reported as missing something")
	}
}

// Of all servers one alone may be cut off from the database: nobody's messages
// are to wait for it. Where all are, each conversation keeps its owner.
func TestAServerWhoseLogDoesNotGetOnOwnsNothing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	const conversations = 50
	// share is how many of these a appends, offered by both.
	share := func() int {
		before := a.appends()
		for id := range uint64(conversations) {
			for _, n := range []*node{a, b} {
				if _, err := n.Append(t.Context(), id, entries("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
		return a.appends() - before
	}
	before := share()
	if before < conversations/2 || before > conversations*3/2 {
		t.Fatalf("a appends %d of %d", before, 2*conversations)
	}
	a.stall(time.Minute)
	testenv.Until(t, "b appends all", func() bool { return share() == 0 })
	b.stall(time.Minute)
	testenv.Until(t, "all is as it was", func() bool { return share() == before })
	a.stall(0)
	testenv.Until(t, "a appends all", func() bool { return share() == 2*conversations })
	b.stall(time.Second) // no reason to worry
	testenv.Until(t, "all is as it was", func() bool { return share() == before })
}

// A server may die with messages committed that it never sent here: because it
// had no link to this server yet, or any more. The catalog then says that it is
// gone, and nothing else does.
func TestAPeerThatDiesUnlinkedIsNoticedByTheCatalog(t *testing.T) {
	t.Parallel()
	listed := func(passing bool) []discovery.Instance {
		i := at("x", "127.0.0.1:1") // out of reach
		i.Passing = passing
		return []discovery.Instance{i}
	}
	for _, c := range []struct {
		name     string
		catalogs [][]discovery.Instance
		want     int64
	}{
		{"comes and stays", [][]discovery.Instance{listed(false), listed(true), listed(true)}, 0},
		{"vanishes", [][]discovery.Instance{listed(true), nil}, 1},
		{"fails its checks", [][]discovery.Instance{listed(true), listed(false)}, 1},
		{"fails, then vanishes", [][]discovery.Instance{listed(true), listed(false), nil}, 2},
		{"is gone once", [][]discovery.Instance{listed(true), nil, nil}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "n", "127.0.0.1:0", 9)
			for _, catalog := range c.catalogs {
				n.catalog <- catalog
			}
			n.kill() // all is through
			if got := n.missed.Load(); got != c.want {
				t.Errorf("missed %d times, want %d", got, c.want)
			}
		})
	}
}

// Where the peer's own stream tells, the catalog's word means nothing.
func TestAPeerThatTalksIsNotBelievedGone(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.list(a) // b is not there any more
	a.Send("b", event(1))
	testenv.Until(t, "the link works", func() bool { return len(b.got()) == 1 })
	a.list(a, b)
	b.Drain()
	testenv.Until(t, "a sees that b leaves", func() bool { return !a.linked("b") })
	b.kill()
	a.list(a)
	a.kill()
	if n := a.missed.Load(); n != 0 {
		t.Errorf("missed %d times by a peer that took leave", n)
	}
}

// Alone, a draining server appends at home: there is nobody else.
func TestTheLastServerAppendsWhileItDrains(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.0.1:0", 1)
	a.Drain()
	if _, err := a.Append(t.Context(), 1, entries("x")); err != nil || a.appends() != 1 {
		t.Errorf("got %v", err)
	}
}

func TestALinkThatIsFullDropsAndTellsTheReceiver(t *testing.T) {
	t.Parallel()
	b := start(t, "b", "127.0.0.1:0", 2)
	b.kill() // keeps the address
	a := start(t, "a", "127.0.0.1:0", 1)
	a.list(a, b)
	testenv.Until(t, "a knows b", func() bool { return len(a.Instances()) == 1 })
	const sent, room = 10_000, 8192
	for i := range uint64(sent) {
		a.Send("b", event(i+1))
	}
	again := start(t, "b", b.address, 3)
	again.list(a)
	testenv.Until(t, "b gets what was queued", func() bool { return len(again.got()) >= room })
	testenv.Until(t, "b is told that it missed something", func() bool { return again.missed.Load() > 0 })
	if got := again.got(); len(got) != room || got[room-1].GetEvent().GetSeq() != room {
		t.Errorf("b got %d", len(got))
	}
	told := again.missed.Load()
	a.Send("b", event(sent+1)) // and all is well again
	testenv.Until(t, "the link works", func() bool { return len(again.got()) == room+1 })
	if again.missed.Load() != told {
		t.Error("told again without need")
	}
}

func TestALinkIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	b := start(t, "b", "127.0.0.1:0", 2)
	b.kill() // keeps the address
	a := start(t, "a", "127.0.0.1:0", 1)
	a.list(a, b)
	testenv.Until(t, "a knows b", func() bool { return len(a.Instances()) == 1 })
	const sent, room = 200, 4 << 20 / (64 << 10)
	for i := range uint64(sent) {
		long := event(i + 1)
		long.GetEvent().Body = bytes.Repeat([]byte("x"), 64<<10)
		a.Send("b", long)
	}
	again := start(t, "b", b.address, 3)
	again.list(a)
	testenv.Until(t, "b is told that it missed something", func() bool { return again.missed.Load() > 0 })
	testenv.Until(t, "there is room again, and b gets what follows", func() bool {
		a.Send("b", event(sent+1))
		got := again.got()
		return len(got) > 0 && got[len(got)-1].GetEvent().GetSeq() == sent+1
	})
	long := 0
	for _, d := range again.got() {
		if d.GetEvent().GetSeq() <= sent {
			long++
		}
	}
	if long > room {
		t.Errorf("%d of 64 KB were kept, want %d at most", long, room)
	}
}

func TestAServerThatDiesIsMissedAndFoundAgainElsewhere(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.kill()
	testenv.Until(t, "a notices", func() bool { return !a.linked("b") && a.missed.Load() == 1 })
	for id := range uint64(20) { // what b owned is a's now
		if _, err := a.Append(t.Context(), id, entries("x")); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, "b", "127.0.0.1:0", 3) // the same instance, another boot, another address
	a.list(a, again)
	again.list(a)
	testenv.Until(t, "they link", func() bool { return a.linked("b") && again.linked("a") })
	a.Send("b", event(1))
	again.Send("a", event(2))
	testenv.Until(t, "both deliver", func() bool { return len(again.got()) == 1 && len(a.got()) == 1 })
	if n := a.missed.Load(); n != 1 {
		t.Errorf("a was told %d times that something is missing, once would do", n)
	}
}

func TestAServerThatIsNotListedButAliveStaysLinked(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.list() // Consul lost its data
	owned := uint64(0)
	for a.appends() != 0 || b.appends() == 0 {
		owned++
		a.mu.Lock()
		a.appended = nil
		a.mu.Unlock()
		if _, err := a.Append(t.Context(), owned, entries("x")); err != nil {
			t.Fatal(err)
		}
	}
	a.Send("b", event(1))
	testenv.Until(t, "b still gets its deliveries", func() bool { return len(b.got()) == 1 })
	if a.linked("b") {
		t.Error("clients are sent to a server that is not listed")
	}
	b.kill()
	testenv.Until(t, "it is forgotten once it is away", func() bool { return len(a.Instances()) == 0 })
	if a.Send("b", event(2)) {
		t.Error("a link to a forgotten server")
	}
}

// The catalog changes while links are busy: none may wait for the other.
func TestTheCatalogChangesUnderLoad(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			select {
			case a.catalog <- []discovery.Instance{at("b", b.address)}:
			case <-ctx.Done():
			}
		}
	})
	const n = 20_000
	sent := make(chan struct{})
	wg.Go(func() {
		defer close(sent)
		for i := range uint64(n) {
			a.Send("b", event(i+1))
			if i%100 == 0 {
				_, _ = a.Append(ctx, i, entries("x"))
			}
		}
	})
	select {
	case <-sent:
	case <-time.After(testenv.Patience):
		t.Error("stuck")
	}
	testenv.Until(t, "the link works", func() bool { // the last of many may have been dropped
		a.Send("b", event(n+1))
		got := b.got()
		return len(got) > 0 && got[len(got)-1].GetEvent().GetSeq() == n+1
	})
	cancel()
	wg.Wait()
}

// A peer that was given up may still talk to us; its signs of life are no gaps.
func TestAPeerThatHearsNothingIsStillHeard(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a", "127.0.0.1:0", 1), start(t, "b", "127.0.0.1:0", 2)
	free := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	a.catalog <- []discovery.Instance{at("b", free)} // where nobody is
	b.list(a)
	testenv.Until(t, "b links", func() bool { return b.linked("a") })
	a.catalog <- nil
	testenv.Until(t, "a gives up", func() bool { return len(a.Instances()) == 0 })
	b.Send("a", event(1))
	testenv.Until(t, "b is heard", func() bool { return len(a.got()) == 1 })
	b.Send("a", event(2))
	testenv.Until(t, "and again", func() bool { return len(a.got()) == 2 })
	if n := a.missed.Load(); n != 0 {
		t.Errorf("%d gaps where nothing was lost", n)
	}
}

// Behind an address that was used again stands another server: it is not taken
// for the one that was listed, and its count of our frames stays right.
func TestAnotherServerAtTheAddress(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.catalog <- []discovery.Instance{at("b", b.address), at("x", b.address)}
	testenv.Until(t, "a knows x", func() bool { return len(a.Instances()) == 2 })
	deadline := time.Now().Add(time.Second) // time for several attempts
	for i := uint64(1); time.Now().Before(deadline); i++ {
		a.Send("b", event(i))
		a.Send("x", event(i))
		testenv.Until(t, "b gets its own", func() bool { return uint64(len(b.got())) == i })
	}
	if a.linked("x") || b.missed.Load() != 0 {
		t.Errorf("linked %v, %d gaps", a.linked("x"), b.missed.Load())
	}
}

func TestNoAppendOfAPeerEndsBehindTheEnd(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	owned := uint64(0)
	for b.appends() == 0 {
		owned++
		if _, err := a.Append(t.Context(), owned, entries("x")); err != nil {
			t.Fatal(err)
		}
	}
	hold := make(chan struct{})
	b.mu.Lock()
	b.hold = hold
	b.mu.Unlock()
	result := make(chan error, 1)
	go func() {
		_, err := a.Append(context.WithoutCancel(t.Context()), owned, entries("under way"))
		result <- err
	}()
	testenv.Until(t, "it is under way", func() bool { return b.appends() == 2 })
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	b.EndAppends(short)
	if short.Err() == nil {
		t.Fatal("did not wait for the append under way")
	}
	if _, err := a.Append(t.Context(), owned, entries("too late")); errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("a late append got %v, want unavailable", err)
	}
	close(hold)
	b.EndAppends(t.Context())
	if err := <-result; err != nil {
		t.Errorf("the append under way got %v", err)
	}
	if b.appends() != 2 {
		t.Error("the late append was made")
	}
}

// A peer that passes its checks and has no link is one from which the network
// keeps this server; one that fails them, or has left, is just away.
func TestPartitioned(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	passing := func(address string, yes bool) []discovery.Instance {
		i := at("b", address)
		i.Passing = yes
		return []discovery.Instance{i}
	}
	a.catalog <- passing(b.address, true)
	testenv.Until(t, "linked", func() bool { return a.linked("b") && !a.Partitioned() })
	b.kill()
	testenv.Until(t, "the link is gone, the catalog believes in it", a.Partitioned)
	a.catalog <- passing(b.address, false)
	testenv.Until(t, "it fails its checks", func() bool { return !a.Partitioned() })
	a.catalog <- passing(b.address, true)
	testenv.Until(t, "it passes them again", a.Partitioned)
	a.catalog <- nil
	testenv.Until(t, "it left", func() bool { return !a.Partitioned() })
}
