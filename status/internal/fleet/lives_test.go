package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// A table that gets random events always keeps its invariants: users are assigned
// only where the view says so, pending assignments are neither lost nor counted
// twice, and what is gone is forgotten.
func TestRandomEventsKeepTheInvariants(t *testing.T) {
	for seed := range uint64(40) {
		l := &life{
			rng:     rand.New(rand.NewPCG(seed, 7)),
			now:     time.Unix(1_900_000_000, 0),
			pending: map[string]expected{},
		}
		l.table = fleet.New(fleet.Options{Now: func() time.Time { return l.now }, IntN: l.rng.IntN})
		for step := range 300 {
			if err := l.step(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
		l.now = l.now.Add(2 * time.Minute)
		l.hangUp()
		l.now = l.now.Add(2 * time.Minute)
		l.table.SetCatalog(nil)
		if v := l.table.View().Servers; len(v) != 0 {
			t.Fatalf("seed %d: never forgotten: %+v", seed, v)
		}
	}
}

type life struct {
	rng     *rand.Rand
	now     time.Time
	table   *fleet.Table
	streams []*fleet.Stream
	pending map[string]expected // the assignments that the table should have
}

type expected struct {
	server  string
	expires time.Time
}

func (l *life) name() string { return fmt.Sprint("s", l.rng.IntN(6)) }

func (l *life) step() error {
	switch l.rng.IntN(6) {
	case 0:
		var rows []discovery.Instance
		for i := range 6 {
			if l.rng.IntN(4) > 0 {
				rows = append(rows, discovery.Instance{
					ID: fmt.Sprint("s", i), Passing: l.rng.IntN(4) > 0,
					Meta: map[string]string{
						"release": fmt.Sprint("v", l.rng.IntN(3)),
						"zone":    fmt.Sprint("z", l.rng.IntN(2)),
					},
				})
			}
		}
		l.table.SetCatalog(rows)
	case 1:
		l.now = l.now.Add(time.Duration(l.rng.IntN(2500)) * time.Millisecond)
	case 2, 3:
		l.report()
	case 4:
		if len(l.streams) > 0 && l.rng.IntN(3) == 0 {
			l.streams[l.rng.IntN(len(l.streams))].Close()
		}
	}
	return l.assign()
}

// report opens a stream, or reports on an open one.
func (l *life) report() {
	r := fleet.Report{
		Instance: l.name(), BootID: uint64(l.rng.IntN(2)),
		StartedAt: l.now.Add(-time.Duration(l.rng.IntN(1000)) * time.Second),
		Load:      fleet.Load{Connections: uint32(l.rng.IntN(5)), Capacity: 20, Draining: l.rng.IntN(10) == 0},
	}
	for id := range l.pending {
		if l.rng.IntN(4) == 0 {
			r.Used = append(r.Used, id, "unknown")
		}
	}
	if n := len(l.streams); n > 0 && l.rng.IntN(2) == 0 {
		if _, err := l.streams[l.rng.IntN(n)].Report(r); err != nil {
			return // replaced, or another process's
		}
	} else if stream, _, err := l.table.Join(r); err == nil {
		l.streams = append(l.streams, stream)
	} else {
		return
	}
	for _, id := range r.Used {
		delete(l.pending, id)
	}
}

func (l *life) hangUp() {
	for _, s := range l.streams {
		s.Close()
	}
}

// assign asks for an assignment and compares it with the view.
func (l *life) assign() error {
	states := map[string]fleet.Server{}
	for _, s := range l.table.View().Servers {
		states[s.Endpoint.Instance] = s
	}
	pending := map[string]int{}
	for id, p := range l.pending {
		if _, known := states[p.server]; !known || !p.expires.After(l.now) {
			delete(l.pending, id)
			continue
		}
		pending[p.server]++
	}
	eligible := 0
	for id, s := range states {
		if s.Pending != pending[id] {
			return fmt.Errorf("%d pending at %s, want %d", s.Pending, id, pending[id])
		}
		if (s.State == fleet.StateEligible) != (s.Reason == "") {
			return fmt.Errorf("%s is %s because %q", id, s.State, s.Reason)
		}
		if s.State == fleet.StateEligible {
			eligible++
		}
	}
	request := fleet.Request{Avoid: []string{l.name()}, Zone: "z1"}
	explained := l.table.Explain(request)
	if err := l.compare(states, explained); err != nil {
		return err
	}
	a, err := l.table.Assign(request)
	if code := errs.CodeOf(err); err != nil {
		if eligible > 0 || (code != errs.CodeExhausted && code != errs.CodeUnavailable) {
			return fmt.Errorf("%d eligible, but %w", eligible, err)
		}
		return nil
	}
	seen := map[string]bool{}
	for _, e := range append(a.Alternates, a.Server) {
		if states[e.Instance].State != fleet.StateEligible || seen[e.Instance] {
			return fmt.Errorf("%s is %s, named in %+v", e.Instance, states[e.Instance].State, a)
		}
		seen[e.Instance] = true
	}
	// Of equal ones a random one is taken, which the explanation says.
	first, random := explained.Candidates[0].Server, strings.HasSuffix(explained.Verdict, "at random")
	if first != a.Server && !random {
		return fmt.Errorf("%s was explained, %s taken: %s", first.Instance, a.Server.Instance, explained.Verdict)
	}
	l.pending[a.ID] = expected{server: a.Server.Instance, expires: a.Expires}
	return nil
}

// compare checks an explanation against the view.
func (l *life) compare(states map[string]fleet.Server, e fleet.Explanation) error {
	if len(e.Candidates) != len(states) {
		return fmt.Errorf("%d of %d servers explained", len(e.Candidates), len(states))
	}
	for _, c := range e.Candidates {
		s, fails := states[c.Server.Instance], false
		for _, r := range c.Rules {
			fails = fails || r.Verdict == fleet.Fails
			if r.Verdict == fleet.Fails && r.Facts == "" {
				return fmt.Errorf("%s fails %s for no reason", c.Server.Instance, r.Name)
			}
		}
		if (c.Rank == 0) != fails || c.Rank > 0 && s.State != fleet.StateEligible {
			return fmt.Errorf("%s is %s, but %+v", c.Server.Instance, s.State, c)
		}
	}
	return nil
}
