package fleet_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// order is a server's order in the answer to its next report.
func (w *world) order(id string) uint32 {
	w.t.Helper()
	w.report(id)
	for _, s := range w.table.View().Servers {
		if s.Endpoint.Instance == id {
			return s.KeepAtMost
		}
	}
	return 0
}

// uneven is a world of two servers with 100 users, and a third one that just
// came and has none.
func uneven(t *testing.T) *world {
	t.Helper()
	w := two(t)
	w.load("a", 100)
	w.load("b", 100)
	w.live(20 * time.Second)
	w.list("c")
	w.open("c")
	return w
}

func TestAnAddedServerMakesTheOthersShed(t *testing.T) {
	w := uneven(t)
	w.live(9 * time.Second)
	if got := w.order("a"); got != 0 {
		t.Fatalf("ordered to keep %d before the fleet was stable", got)
	}
	w.live(5 * time.Second)
	first := w.order("a")
	if first < 95 || first > 100 {
		t.Fatalf("the first order is %d, want one that begins where the server is", first)
	}
	if got := w.order("c"); got != 0 {
		t.Errorf("the new server has to keep %d", got)
	}
	w.live(15 * time.Second)
	if half := w.order("a"); half > 86 || half < 80 {
		t.Errorf("%d after half of the time", half)
	}
	w.live(20 * time.Second)
	if got := w.order("a"); got != 67 {
		t.Errorf("in the end %d, want the share of 200 over 3", got)
	}
	if b := w.table.View().Balance; b.State != fleet.BalanceMoving || b.ToMove != 66 {
		t.Errorf("balance %+v", b)
	}
	w.load("a", 67) // it has done so, and its users are elsewhere
	w.load("b", 67)
	w.load("c", 66)
	w.live(time.Second)
	for _, id := range []string{"a", "b", "c"} {
		if got := w.order(id); got != 0 {
			t.Errorf("%s still has to keep %d", id, got)
		}
	}
	if b := w.table.View().Balance; b.State != fleet.BalanceEven {
		t.Errorf("balance %+v", b)
	}
}

func TestNothingIsMovedWhile(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		want string
	}{
		{"a server drains", func(w *world) { w.drain("b") }, "b is draining"},
		{"one left the catalog and still reports", func(w *world) { w.unlist("b") }, "b is draining"},
		{"a server does not report", func(w *world) { w.silence("b") }, "b does not report"},
		{"one has not reported yet", func(w *world) { w.list("d") }, "d does not report"},
		{"two releases are live", func(w *world) {
			w.edit("c", func(i *discovery.Instance) { i.Meta = map[string]string{"release": "v2"} })
		}, "2 releases are live"},
		{"a canary starts and does not pass yet", func(w *world) {
			w.rows["d"] = discovery.Instance{ID: "d", Meta: map[string]string{"release": "v2"}}
			w.catalog()
		}, "2 releases are live"},
		{"a process was replaced by a quick restart", func(w *world) {
			r := w.reports["b"]
			r.BootID, r.StartedAt = 2, w.now
			w.reports["b"] = r
			w.streams["b"] = nil
			w.report("b")
			w.pass(time.Second)
		}, "the fleet changed"},
		{
			"a server is being proven", func(w *world) { w.table.SetProbes([]discovery.Instance{{ID: "b"}}) },
			"the probe of b",
		},
		{"the catalog is old", func(w *world) { w.catalogAge = 16 * time.Second }, "Consul does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := uneven(t)
			w.live(15 * time.Second)
			if w.order("a") == 0 {
				t.Fatal("nothing is moved before")
			}
			c.do(w)
			w.live(5 * time.Second)
			if got := w.order("a"); got != 0 {
				t.Errorf("a has to keep %d", got)
			}
			if b := w.table.View().Balance; b.State != fleet.BalanceHeld || !strings.Contains(b.Text, c.want) {
				t.Errorf("balance %+v, want %q", b, c.want)
			}
		})
	}
	t.Run("the replica is new", func(t *testing.T) {
		w := newWorld(t)
		w.list("a", "b")
		w.open("a", "b")
		w.load("a", 500)
		w.live(9 * time.Second)
		if got := w.order("a"); got != 0 {
			t.Errorf("a has to keep %d", got)
		}
		w.live(6 * time.Second)
		if got := w.order("a"); got == 0 {
			t.Error("never")
		}
	})
}

// A server that fails for long is not counted; the load of the others is evened.
func TestAFailingServerDoesNotHoldTheOthers(t *testing.T) {
	w := uneven(t)
	w.list("d")
	w.open("d")
	w.load("d", 300)
	w.fail("d")
	w.live(20 * time.Second)
	if got := w.order("a"); got == 0 || got > 100 {
		t.Errorf("a has to keep %d", got)
	}
	w.live(30 * time.Second)
	if got := w.order("a"); got != 67 {
		t.Errorf("a has to keep %d of 200 over three", got)
	}
}

func TestNoiseMovesNobody(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, mean := range []float64{0, 1, 3, 10, 50, 300, 5000} {
		w := newWorld(t)
		ids := []string{"a", "b", "c", "d"}
		w.list(ids...)
		w.open(ids...)
		for _, id := range ids {
			w.change(id, func(r *fleet.Report) { r.Load.Capacity = 18_200 })
		}
		for range 600 { // ten minutes
			for _, id := range ids {
				// Half the noise of a random distribution: logins go to the least
				// loaded.
				n := max(mean+rng.NormFloat64()*math.Sqrt(mean)/2, 0)
				w.load(id, uint32(n))
			}
			w.live(time.Second)
			if b := w.table.View().Balance; b.State == fleet.BalanceMoving {
				t.Fatalf("mean %v: %+v", mean, b)
			}
		}
	}
}

func TestSharesFollowCapacity(t *testing.T) {
	w := two(t)
	w.change("a", func(r *fleet.Report) { r.Load.Capacity = 3000 })
	if got := w.spread(400, fleet.Request{}); got["a"] != 300 {
		t.Errorf("400 users over 3000 and 1000 went %v", got)
	}
	w.live(11 * time.Second) // the pending assignments expire
	w.load("a", 200)
	w.load("b", 200)
	w.live(45 * time.Second)
	if a, b := w.order("a"), w.order("b"); a != 0 || b != 100 {
		t.Errorf("a may keep %d, b %d", a, b)
	}
}

// Assignments stay within their zone, so a zone is balanced by itself. Otherwise
// users who have to leave would come back forever.
func TestZonesAreBalancedByThemselves(t *testing.T) {
	w := newWorld(t)
	w.list("a", "b", "c", "d")
	for id, zone := range map[string]string{"a": "north", "b": "north", "c": "south", "d": "south"} {
		w.edit(id, func(i *discovery.Instance) { i.Meta = map[string]string{"zone": zone} })
	}
	w.open("a", "b", "c", "d")
	w.load("a", 400)
	w.load("b", 400)
	w.load("c", 80)
	w.live(60 * time.Second)
	if a, c := w.order("a"), w.order("c"); a != 0 || c != 40 {
		t.Errorf("a may keep %d, c %d", a, c)
	}
}

// When the connections come back (because the others refuse them), balancing
// pauses.
func TestAnAttemptThatDoesNotHelpEnds(t *testing.T) {
	w := uneven(t)
	moving := 0
	for range 300 {
		w.live(time.Second)
		if w.order("a") > 0 {
			moving++
		}
	}
	if moving < 60 || moving > 100 {
		t.Errorf("ordered to shed in %d of 300 seconds", moving)
	}
	if b := w.table.View().Balance; b.State != fleet.BalanceHeld || !strings.Contains(b.Text, "next attempt in") {
		t.Errorf("balance %+v", b)
	}
	w.live(2 * time.Minute)
	if w.order("a") == 0 {
		t.Error("it is not tried again")
	}
}

// TestScaleOut has whole fleets whose servers obey and whose clients come back
// with a new assignment: a new server has its share within a minute, nobody
// moves twice, never too many at once, and afterwards nobody moves.
func TestScaleOut(t *testing.T) {
	for _, c := range []struct {
		servers, added, users, replicas int
	}{
		{1, 1, 30, 1}, {2, 1, 60, 2}, {2, 1, 2000, 3}, {10, 1, 10_000, 3}, {30, 1, 9_000, 3}, {3, 3, 3000, 2},
	} {
		name := fmt.Sprintf("%d and %d, %d users, %d replicas", c.servers, c.added, c.users, c.replicas)
		t.Run(name, func(t *testing.T) {
			s := newSimulation(c.servers+c.added, c.replicas)
			for i := range c.users {
				s.arrive(&user{}, i%c.servers)
			}
			s.live(t, 30*time.Second, c.servers)
			if s.moves != 0 {
				t.Fatalf("%d moves before", s.moves)
			}
			s.live(t, time.Minute, c.servers+c.added)
			mean := float64(c.users) / float64(c.servers+c.added)
			for i := range c.added {
				if got := float64(len(s.users[c.servers+i])); got < 0.9*mean {
					t.Errorf("a new server has %v after a minute, want about %.0f", got, mean)
				}
			}
			moved := s.moves
			if least := 0.9 * mean * float64(c.added); float64(moved) < least ||
				float64(moved) > 1.3*mean*float64(c.added)+3 {
				t.Errorf("%d moves to give each of %d new ones %.0f", moved, c.added, mean)
			}
			if s.mostMoves > 1 {
				t.Errorf("somebody moved %d times", s.mostMoves)
			}
			if limit := max(0.08*float64(c.users), 5); float64(s.mostAtOnce) > limit {
				t.Errorf("%d moves within a second", s.mostAtOnce)
			}
			s.live(t, 5*time.Minute, c.servers+c.added)
			if s.moves != moved {
				t.Errorf("%d moves after all was even", s.moves-moved)
			}
		})
	}
}

type user struct{ moves int }

// simulation has chat servers with their users, replicas, and one clock.
type simulation struct {
	now        time.Time
	rng        *rand.Rand
	tables     []*fleet.Table
	streams    [][]*fleet.Stream
	users      [][]*user    // by server, the oldest first
	used       [][][]string // by replica and server
	travellers []traveller
	moves      int
	mostMoves  int
	mostAtOnce int
}

type traveller struct {
	at   time.Time
	u    *user
	from string
}

func newSimulation(servers, replicas int) *simulation {
	s := &simulation{
		now: time.Unix(1_900_000_000, 0), rng: rand.New(rand.NewPCG(5, 6)), users: make([][]*user, servers),
	}
	for range replicas {
		s.tables = append(s.tables, fleet.New(fleet.Options{Now: func() time.Time { return s.now }, IntN: s.rng.IntN}))
		s.streams = append(s.streams, make([]*fleet.Stream, servers))
		s.used = append(s.used, make([][]string, servers))
	}
	return s
}

func (s *simulation) arrive(u *user, server int) { s.users[server] = append(s.users[server], u) }

// live advances the time for the first n servers, which report to each replica
// once a second, each at its own time.
func (s *simulation) live(t *testing.T, d time.Duration, n int) {
	t.Helper()
	const tick = 50 * time.Millisecond
	var rows []discovery.Instance
	for i := range n {
		rows = append(rows, discovery.Instance{ID: fmt.Sprintf("%03d", i), Passing: true})
	}
	for _, table := range s.tables {
		table.SetCatalog(rows)
	}
	atOnce := 0
	for step := range int(d / tick) {
		s.now = s.now.Add(tick)
		if step%20 == 0 {
			atOnce = 0
		}
		before := s.moves
		for i := range n {
			for r := range s.tables {
				if (step+7*i+3*r)%20 == 0 || len(s.used[r][i]) > 0 {
					s.report(t, i, r)
				}
			}
		}
		atOnce += s.moves - before
		s.mostAtOnce = max(s.mostAtOnce, atOnce)
		s.travel(t)
	}
}

// report sends one report of a server to a replica and obeys the order: the
// oldest users leave, and come back within a second and a quarter.
func (s *simulation) report(t *testing.T, i, r int) {
	t.Helper()
	report := fleet.Report{
		Instance: fmt.Sprintf("%03d", i), BootID: 1, StartedAt: time.Unix(1, 0), Used: s.used[r][i],
		Load: fleet.Load{Connections: uint32(len(s.users[i])), Capacity: 18_200},
	}
	s.used[r][i] = nil
	var order fleet.Order
	var err error
	if s.streams[r][i] == nil {
		s.streams[r][i], order, err = s.tables[r].Join(report)
	} else {
		order, err = s.streams[r][i].Report(report)
	}
	if err != nil {
		t.Fatal(err)
	}
	for order.KeepAtMost > 0 && len(s.users[i]) > int(order.KeepAtMost) {
		u := s.users[i][0]
		s.users[i] = s.users[i][1:]
		u.moves++
		s.moves++
		s.mostMoves = max(s.mostMoves, u.moves)
		back := s.now.Add(time.Duration(s.rng.IntN(1250)) * time.Millisecond)
		s.travellers = append(s.travellers, traveller{back, u, report.Instance})
	}
}

// travel connects the users whose time has come.
func (s *simulation) travel(t *testing.T) {
	t.Helper()
	rest := s.travellers[:0]
	for _, on := range s.travellers {
		if on.at.After(s.now) {
			rest = append(rest, on)
			continue
		}
		a, err := s.tables[s.rng.IntN(len(s.tables))].Assign(fleet.Request{Avoid: []string{on.from}})
		if err != nil {
			t.Fatal(err)
		}
		var server int
		if _, err := fmt.Sscanf(a.Server.Instance, "%d", &server); err != nil {
			t.Fatal(err)
		}
		s.arrive(on.u, server)
		for r := range s.tables {
			s.used[r][server] = append(s.used[r][server], a.ID)
		}
	}
	s.travellers = rest
}
