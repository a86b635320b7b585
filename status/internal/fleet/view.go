package fleet

import (
	"cmp"
	"slices"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
)

// Server is what the table says about one server.
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
	Reason       string // empty if eligible
}

// View returns all servers by instance, as Assign would see them now.
func (t *Table) View() []Server {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.kept.expire(now)
	t.tidy(now)
	catalogOnly := t.catalogOnly(now)
	view := make([]Server, 0, len(t.servers))
	for _, s := range t.servers {
		state := s.judge(now, catalogOnly)
		v := Server{
			Endpoint: s.endpoint(), RelayAddress: s.row.Meta[discovery.MetaRelay],
			Release: s.release(), Zone: s.zone(),
			InCatalog: s.listed, Passing: s.listed && s.row.Passing,
			Pending: s.pending, State: state, Reason: s.reason(state, now),
		}
		if s.report != nil {
			load := s.report.Load
			v.Load, v.ReportAge = &load, now.Sub(s.reportedAt)
		}
		view = append(view, v)
	}
	slices.SortFunc(view, func(a, b Server) int { return cmp.Compare(a.Endpoint.Instance, b.Endpoint.Instance) })
	return view
}
