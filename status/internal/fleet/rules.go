package fleet

import (
	"fmt"
	"time"
)

// State is why a server gets users, or why not.
type State string

// The states, in the order of the rules.
const (
	StateUnlisted State = "unlisted" // reports, but was never in the catalog
	StateLeft     State = "left"     // left the catalog: it is about to end
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

// catalogOnly says that reports cannot be used at present: no server that could
// take users has a fresh one, or this replica just started and lacks some.
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

// moment is a time at which servers are judged, and whether reports count then.
type moment struct {
	now         time.Time
	catalogOnly bool
}

// rule is one condition for getting users.
type rule struct {
	name   string
	breaks State // of a server that breaks it
	holds  func(*server, moment) bool
	// facts says what the rule decided from, if it holds; if not, reason does.
	facts func(*server, moment) string
}

// rules are applied in this order; the first broken one counts.
var rules = []rule{
	{
		"registered in Consul", StateUnlisted,
		func(s *server, _ moment) bool { return s.wasListed },
		func(*server, moment) string { return "it was in the catalog" },
	},
	{
		"in the catalog", StateLeft,
		func(s *server, _ moment) bool { return s.listed },
		func(s *server, _ moment) string { return "it is registered at " + s.row.Address },
	},
	{
		"checks pass", StateFailing,
		func(s *server, at moment) bool { return s.passes(at.now) },
		func(s *server, at moment) string {
			if !s.row.Passing {
				return "they have failed for " + seconds(at.now.Sub(s.failingSince)) +
					", too briefly to count while it reports"
			}
			return "all of them"
		},
	},
	{
		"not draining", StateDraining,
		func(s *server, _ moment) bool { return !s.saysDraining() },
		func(*server, moment) string { return "it does not report that it drains" },
	},
	{
		"has reported", StateSilent,
		func(s *server, at moment) bool { return at.catalogOnly || s.report != nil },
		func(s *server, _ moment) string {
			if s.report == nil {
				return "it has not, but the catalog alone decides at present"
			}
			return fmt.Sprintf("process %x, started %s", s.report.BootID,
				s.report.StartedAt.UTC().Format(time.DateTime))
		},
	},
	{
		"reports in time", StateStale,
		func(s *server, at moment) bool { return at.catalogOnly || s.fresh(at.now) },
		func(s *server, at moment) string {
			if !s.fresh(at.now) {
				return "it does not, but the catalog alone decides at present"
			}
			return "the last report is " + seconds(at.now.Sub(s.reportedAt)) + " old"
		},
	},
	{
		"has room", StateFull,
		func(s *server, at moment) bool { return !s.fresh(at.now) || s.taken() < uint64(s.report.Load.Capacity) },
		func(s *server, at moment) string {
			if !s.fresh(at.now) {
				return "not known"
			}
			return s.room()
		},
	},
}

// room says how much of the capacity of a server that reported is in use.
func (s *server) room() string {
	return fmt.Sprintf("%d connections, %d pending assignments, capacity %d",
		s.report.Load.Connections, s.pending, s.report.Load.Capacity)
}

// judge applies the rules to one server.
func (s *server) judge(at moment) State {
	for i := range rules {
		if !rules[i].holds(s, at) {
			return rules[i].breaks
		}
	}
	return StateEligible
}

func (s *server) saysDraining() bool { return s.report != nil && s.report.Load.Draining }

// taken is how many connections there are, those of pending assignments included.
func (s *server) taken() uint64 {
	n := uint64(s.pending)
	if s.report != nil {
		n += uint64(s.report.Load.Connections)
	}
	return n
}

// reason describes a state to an operator; it is empty for an eligible server.
func (s *server) reason(state State, now time.Time) string {
	switch state {
	case StateUnlisted:
		return "it reports, but was never in Consul's catalog"
	case StateLeft:
		return "it left Consul's catalog and counts as draining"
	case StateFailing:
		return "its check in Consul has failed for " + seconds(now.Sub(s.failingSince))
	case StateDraining:
		return "it reports that it is draining"
	case StateSilent:
		return "it has not reported to this replica"
	case StateStale:
		text := "its last report is " + seconds(now.Sub(s.reportedAt)) + " old"
		if s.stream == nil {
			text += " and its stream is closed"
		}
		return text
	case StateFull:
		return "it is full: " + s.room()
	}
	return ""
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", max(d, 0).Seconds()) }
