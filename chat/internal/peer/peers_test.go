package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
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
		t.Error("something was reported missing though nothing was lost")
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
	want := msglog.Event{Sender: 1, ID: [16]byte{1}, Kind: 1, Body: []byte("x"), Conversation: b.appended[0]}
	if diff := cmp.Diff(want, b.entries[0]); diff != "" {
		t.Error("the owner got", diff)
	}
}

// While nobody else takes its numbers a server appends what its clients type itself,
// unless it drains or its log makes no progress.
func TestAppendsStayHereWithoutConflicts(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.calm.Store(true)
	const conversations = 50
	offer := func() {
		t.Helper()
		for id := range uint64(conversations) {
			if _, err := a.Append(t.Context(), id, entries("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	offer()
	if a.appends() != conversations || b.appends() != 0 {
		t.Errorf("%d appended here and %d there", a.appends(), b.appends())
	}
	a.stall(time.Minute)
	offer()
	if b.appends() != conversations {
		t.Errorf("with a stalled log %d were appended there", b.appends())
	}
	a.stall(0)
	a.Drain()
	offer()
	if b.appends() != 2*conversations {
		t.Errorf("of a server that drains %d were appended there", b.appends()-conversations)
	}
}

func TestADrainingServerOwnsNothing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.Drain()
	a.Drain() // a second time does nothing
	testenv.Until(t, "b sees that a drains", func() bool { return !b.linked("a") })
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
	a.stop()
	testenv.Until(t, "what was queued at the end arrives", func() bool { return len(b.got()) == 2 })
	a.kill()
	if b.missed.Load() != 0 {
		t.Error("something was reported missing after an orderly end")
	}
}

// One server alone may be cut off from the database: no messages may wait for it. If
// all servers are, each conversation keeps its owner.
func TestAServerWhoseLogIsStalledOwnsNothing(t *testing.T) {
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
	testenv.Until(t, "both append their share", func() bool { return share() == before })
	a.stall(0)
	testenv.Until(t, "a appends all", func() bool { return share() == 2*conversations })
	b.stall(time.Second) // not long enough to count
	testenv.Until(t, "both append their share", func() bool { return share() == before })
}

// A server without a link to this one may die with committed messages that it never
// sent here. Only the catalog says that it is away.
func TestAPeerThatDiesUnlinkedIsNoticedByTheCatalog(t *testing.T) {
	t.Parallel()
	listed := func(passing bool) []discovery.Instance {
		i := at("x", "127.0.0.1:1") // nothing listens there
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
		{"vanishes once", [][]discovery.Instance{listed(true), nil, nil}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "n", "127.0.0.1:0", 9)
			for _, catalog := range c.catalogs {
				n.catalog <- catalog
			}
			n.kill() // waits until the catalogs are worked on
			if got := n.missed.Load(); got != c.want {
				t.Errorf("missed %d times, want %d", got, c.want)
			}
		})
	}
}

// The catalog means nothing for a peer whose stream is open or ended in order.
func TestAPeerWithAStreamIsNotMissedByTheCatalog(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.list(a) // without b
	a.Send("b", event(1))
	testenv.Until(t, "the link works", func() bool { return len(b.got()) == 1 })
	a.list(a, b)
	b.Drain()
	testenv.Until(t, "a sees that b drains", func() bool { return !a.linked("b") })
	b.kill()
	a.list(a)
	a.kill()
	if n := a.missed.Load(); n != 0 {
		t.Errorf("missed %d times after an orderly end", n)
	}
}

// A draining server without peers appends itself.
func TestTheLastServerAppendsWhileItDrains(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.0.1:0", 1)
	a.Drain()
	if _, err := a.Append(t.Context(), 1, entries("x")); err != nil || a.appends() != 1 {
		t.Errorf("got %v", err)
	}
}

func TestAFullLinkDropsAndTheReceiverNotices(t *testing.T) {
	t.Parallel()
	b := start(t, "b", "127.0.0.1:0", 2)
	b.kill() // keeps the address
	a := start(t, "a", "127.0.0.1:0", 1)
	a.list(a, b)
	testenv.Until(t, "a has b in its catalog", func() bool { return len(a.Instances()) == 1 })
	const sent, room = 10_000, 8192
	for i := range uint64(sent) {
		a.Send("b", event(i+1))
	}
	again := start(t, "b", b.address, 3)
	again.list(a)
	testenv.Until(t, "b gets what was queued", func() bool { return len(again.got()) >= room })
	testenv.Until(t, "b notices the gap", func() bool { return again.missed.Load() > 0 })
	if got := again.got(); len(got) != room || got[room-1].GetEvent().GetSeq() != room {
		t.Errorf("b got %d", len(got))
	}
	before := again.missed.Load()
	a.Send("b", event(sent+1)) // for which there is room again
	testenv.Until(t, "the link works", func() bool { return len(again.got()) == room+1 })
	if again.missed.Load() != before {
		t.Error("b noticed a gap where nothing was lost")
	}
}

func TestALinkIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	b := start(t, "b", "127.0.0.1:0", 2)
	b.kill() // keeps the address
	a := start(t, "a", "127.0.0.1:0", 1)
	a.list(a, b)
	testenv.Until(t, "a has b in its catalog", func() bool { return len(a.Instances()) == 1 })
	const sent, room = 200, 4 << 20 / (64 << 10)
	for i := range uint64(sent) {
		long := event(i + 1)
		long.GetEvent().Body = bytes.Repeat([]byte("x"), 64<<10)
		a.Send("b", long)
	}
	again := start(t, "b", b.address, 3)
	again.list(a)
	testenv.Until(t, "b notices the gap", func() bool { return again.missed.Load() > 0 })
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
	for id := range uint64(20) { // a owns all of them now
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
		t.Errorf("a noticed %d times that something may be missing, want once", n)
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

// The catalog changes while links are busy: neither may wait for the other.
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
		t.Error("the sender waits for the catalog")
	}
	testenv.Until(t, "the link works", func() bool { // the last of many may have been dropped
		a.Send("b", event(n+1))
		got := b.got()
		return len(got) > 0 && got[len(got)-1].GetEvent().GetSeq() == n+1
	})
	cancel()
	wg.Wait()
}

// A peer may have a link to this server when this server has none to it.
func TestAPeerWithoutALinkFromHereStillDelivers(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a", "127.0.0.1:0", 1), start(t, "b", "127.0.0.1:0", 2)
	free := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	a.catalog <- []discovery.Instance{at("b", free)} // nothing listens there
	b.list(a)
	testenv.Until(t, "b links", func() bool { return b.linked("a") })
	a.catalog <- nil
	testenv.Until(t, "a gives up", func() bool { return len(a.Instances()) == 0 })
	b.Send("a", event(1))
	testenv.Until(t, "a gets it", func() bool { return len(a.got()) == 1 })
	b.Send("a", event(2))
	testenv.Until(t, "and again", func() bool { return len(a.got()) == 2 })
	if n := a.missed.Load(); n != 0 {
		t.Errorf("%d gaps where nothing was lost", n)
	}
}

// An address may be used again by another server. It is not taken for the listed
// one, and its count of our frames stays right.
func TestAnotherServerAtTheAddress(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.catalog <- []discovery.Instance{at("b", b.address), at("x", b.address)}
	testenv.Until(t, "a has x in its catalog", func() bool { return len(a.Instances()) == 2 })
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

func TestEndAppendsWaitsForThoseUnderWayAndRefusesOthers(t *testing.T) {
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

// A peer that passes its checks and cannot be reached is partitioned from this
// server. One that fails its checks, or has left the catalog, is away.
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
	testenv.Until(t, "the link is down, and the catalog lists it as passing", a.Partitioned)
	a.catalog <- passing(b.address, false)
	testenv.Until(t, "it fails its checks", func() bool { return !a.Partitioned() })
	a.catalog <- passing(b.address, true)
	testenv.Until(t, "it passes them again", a.Partitioned)
	a.catalog <- nil
	testenv.Until(t, "it left", func() bool { return !a.Partitioned() })
}

// Routes may be remembered while every peer tells of its users' new connections.
func TestPeersTellOfNewConnections(t *testing.T) {
	t.Parallel()
	alone := start(t, "alone", "127.0.0.1:0", 1)
	if !alone.Told() {
		t.Error("without peers there is nothing to be told")
	}
	a, b := pair(t)
	testenv.Until(t, "both are told", func() bool { return a.Told() && b.Told() })
	b.Connected(5)
	testenv.Until(t, "a hears of it", func() bool { return len(a.got()) == 1 })
	if d := a.got()[0]; !d.GetConnected() || d.GetUserId() != 5 {
		t.Errorf("a got %v", d)
	}
	b.kill()
	testenv.Until(t, "b is away", func() bool { return !a.Told() })
	a.list(a)
	testenv.Until(t, "b is forgotten", a.Told)

	old := facing(t, &fake{})
	testenv.Until(t, "they are linked", func() bool { return old.linked("fake") })
	if old.Told() {
		t.Error("a peer of the release before tells nothing")
	}
}
