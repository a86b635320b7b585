package fleet

import (
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
)

// Server is one server of a View.
type Server struct {
	Endpoint     Endpoint
	RelayAddress string
	Release      string
	Zone         string
	InCatalog    bool
	Passing      bool
	Load         *Load // nil without a report
	ReportAge    time.Duration
	Pending      int
	State        State
	Reason       string  // empty if eligible
	FairShare    float64 // of the connections; 0 if not known
	KeepAtMost   uint32  // its order; 0 is none
}

// View is what the table knows.
type View struct {
	Servers    []Server // by instance, as Assign would judge them now
	Balance    Balance
	AssignRate float64 // assignments per second
}

// View returns what the table knows now.
func (t *Table) View() View {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.pending.expire(now)
	t.tidy(now)
	t.rebalance(now)
	at := moment{now, t.catalogOnly(now)}
	view := View{
		Servers: make([]Server, 0, len(t.servers)),
		Balance: t.balance.Balance, AssignRate: t.pending.assigned.rate(now),
	}
	for _, s := range t.servers {
		state := s.judge(at)
		v := Server{
			Endpoint: s.endpoint(), RelayAddress: s.row.Meta[discovery.MetaRelay],
			Release: s.release(), Zone: s.zone(),
			InCatalog: s.listed, Passing: s.listed && s.row.Passing,
			Pending: s.pending, State: state, Reason: s.reason(state, now),
			FairShare: s.fair, KeepAtMost: s.keepAtMost(now),
		}
		if s.report != nil {
			load := s.report.Load
			v.Load, v.ReportAge = &load, now.Sub(s.reportedAt)
		}
		view.Servers = append(view.Servers, v)
	}
	return view
}
