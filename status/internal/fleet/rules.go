package fleet

import (
	"fmt"
	"time"
)

// State is why a server gets users, or why not.
type State string

// The states, in the order in which the rules look for them.
const (
	StateUnlisted State = "unlisted" // reports, but was never in the catalog
	StateLeft     State = "left"     // left the catalog: on its way out
	StateFailing  State = "failing"  // fails a check
	StateDraining State = "draining" // says so
	StateSilent   State = "silent"   // has not reported
	StateStale    State = "stale"    // stopped reporting
	StateFull     State = "full"
	StateEligible State = "eligible"
)

// States are all of them, for metrics.
var States = []State{
	StateUnlisted, StateLeft, StateFailing, StateDraining, StateSilent, StateStale, StateFull, StateEligible,
}

// catalogOnly says that reports are no basis at present: no server that could
// take users has a fresh one, or this replica just started and misses some.
func (t *Table) catalogOnly(now time.Time) bool {
	fresh, silent := false, false
	for _, s := range t.servers {
		if !s.listed || !s.passes(now) || s.saysDraining() {
			continue
		}
		if s.fresh(now) {
			fresh = true
		} else {
			silent = true
		}
	}
	return !fresh || (silent && now.Sub(t.firstSet) < warmFor)
}

// look is a moment at which servers are judged, and whether reports count.
type look struct {
	now         time.Time
	catalogOnly bool
}

// rule is one condition for getting users.
type rule struct {
	name   string
	breaks State // of a server that breaks it
	holds  func(*server, look) bool
	// facts says what was looked at where it holds; where not, reason does.
	facts func(*server, look) string
}

// rules are looked at in this order; the first broken one counts.
var rules = []rule{
	{
		"known to Consul", StateUnlisted,
		func(s *server, _ look) bool { return s.wasListed },
		func(*server, look) string { return "it was in the catalog" },
	},
	{
		"in the catalog", StateLeft,
		func(s *server, _ look) bool { return s.listed },
		func(s *server, _ look) string { return "it is registered at " + s.row.Address },
	},
	{
		"checks pass", StateFailing,
		func(s *server, at look) bool { return s.passes(at.now) },
		func(s *server, at look) string {
			if !s.row.Passing {
				return "they fail for " + seconds(at.now.Sub(s.failingSince)) + ", too shortly to count while it reports"
			}
			return "all of them"
		},
	},
	{
		"not draining", StateDraining,
		func(s *server, _ look) bool { return !s.saysDraining() },
		func(*server, look) string { return "it does not say so" },
	},
	{
		"has reported", StateSilent,
		func(s *server, at look) bool { return at.catalogOnly || s.report != nil },
		func(s *server, _ look) string {
			if s.report == nil {
				return "it has not, but the catalog alone decides at present"
			}
			return fmt.Sprintf("process %x, started %s", s.report.BootID, s.report.StartedAt.UTC().Format(time.DateTime))
		},
	},
	{
		"reports in time", StateStale,
		func(s *server, at look) bool { return at.catalogOnly || s.fresh(at.now) },
		func(s *server, at look) string {
			if !s.fresh(at.now) {
				return "it does not, but the catalog alone decides at present"
			}
			return "the last report is " + seconds(at.now.Sub(s.reportedAt)) + " old"
		},
	},
	{
		"has room", StateFull,
		func(s *server, at look) bool { return !s.fresh(at.now) || s.taken() < uint64(s.report.Load.Capacity) },
		func(s *server, at look) string {
			if !s.fresh(at.now) {
				return "not known"
			}
			return fmt.Sprintf("%d connections and %d kept places of %d", s.report.Load.Connections, s.pending, s.report.Load.Capacity)
		},
	},
}

// judge applies the rules to one server.
func (s *server) judge(at look) State {
	for i := range rules {
		if !rules[i].holds(s, at) {
			return rules[i].breaks
		}
	}
	return StateEligible
}

func (s *server) saysDraining() bool { return s.report != nil && s.report.Load.Draining }

// taken is how many places are in use or kept.
func (s *server) taken() uint64 {
	n := uint64(s.pending)
	if s.report != nil {
		n += uint64(s.report.Load.Connections)
	}
	return n
}

// reason puts a state into words for an operator; empty for an eligible server.
func (s *server) reason(state State, now time.Time) string {
	switch state {
	case StateUnlisted:
		return "it reports, but was never in Consul's catalog"
	case StateLeft:
		return "it left Consul's catalog and counts as draining"
	case StateFailing:
		return "it fails its check in Consul for " + seconds(now.Sub(s.failingSince))
	case StateDraining:
		return "it says that it is draining"
	case StateSilent:
		return "it has not reported to this replica"
	case StateStale:
		text := "its last report is " + seconds(now.Sub(s.reportedAt)) + " old"
		if s.stream == nil {
			text += " and its stream is closed"
		}
		return text
	case StateFull:
		return fmt.Sprintf("it is full: %d connections and %d kept places of %d",
			s.report.Load.Connections, s.pending, s.report.Load.Capacity)
	}
	return ""
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", max(d, 0).Seconds()) }
