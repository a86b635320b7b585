package service

import (
	"context"

	"google.golang.org/grpc"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// Fleet returns what this replica knows.
func (s *Service) Fleet(context.Context, *statusv1.FleetRequest) (*statusv1.FleetResponse, error) {
	return s.snapshot(), nil
}

// WatchFleet sends it whenever it changed, until the caller hangs up or this
// replica closes.
func (s *Service) WatchFleet(
	_ *statusv1.WatchFleetRequest, stream grpc.ServerStreamingServer[statusv1.WatchFleetResponse],
) error {
	err := s.Watch(stream.Context(), func(f *statusv1.FleetResponse) error {
		return stream.Send(&statusv1.WatchFleetResponse{Fleet: f})
	})
	return errs.ToGRPC(err)
}

// Watch calls show with what this replica knows: now, whenever it changed (at
// most once a second), and every five seconds without a change. While show is
// busy only the newest snapshot waits for it. Watch returns show's error, nil
// when ctx ends, CodeUnavailable when this replica closes, and CodeExhausted
// when too many watch. show must not change its argument.
func (s *Service) Watch(ctx context.Context, show func(*statusv1.FleetResponse) error) error {
	snapshots, stop, err := s.feed.subscribe()
	if err != nil {
		return err
	}
	s.Metrics.watchers.Inc()
	defer s.Metrics.watchers.Dec()
	defer stop()
	for {
		select {
		case f := <-snapshots:
			if err := show(f); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-s.closing:
			return errs.New(errs.CodeUnavailable, "this status replica is shutting down")
		}
	}
}

// Explain says how an assignment would be decided, or explains one server.
func (s *Service) Explain(_ context.Context, req *statusv1.ExplainRequest) (*statusv1.ExplainResponse, error) {
	var e fleet.Explanation
	var err error
	switch subject := req.GetSubject().(type) {
	case *statusv1.ExplainRequest_Assignment:
		if err = checkAssign(subject.Assignment); err == nil {
			e = s.Table.Explain(fleet.Request{Avoid: subject.Assignment.GetAvoid(), Zone: subject.Assignment.GetZone()})
		}
	case *statusv1.ExplainRequest_Instance:
		if err = label("instance", subject.Instance); err == nil {
			e, err = s.Table.ExplainServer(subject.Instance)
		}
	default:
		err = errs.New(errs.CodeInvalid, "the subject is neither an assignment nor an instance").In("subject")
	}
	if err != nil {
		return nil, errs.ToGRPC(err)
	}
	return explanation(s.Instance, e), nil
}

func explanation(replica string, e fleet.Explanation) *statusv1.ExplainResponse {
	out := &statusv1.ExplainResponse{Instance: replica, Verdict: e.Verdict, CatalogOnly: e.CatalogOnly}
	for _, c := range e.Candidates {
		candidate := &statusv1.Candidate{Endpoint: endpoint(c.Server), Rank: uint32(c.Rank), Why: c.Why}
		for _, r := range c.Rules {
			candidate.Rules = append(candidate.Rules,
				&statusv1.Rule{Name: r.Name, Verdict: verdicts[r.Verdict], Facts: r.Facts})
		}
		out.Candidates = append(out.Candidates, candidate)
	}
	return out
}

var verdicts = map[fleet.Verdict]statusv1.Rule_Verdict{
	fleet.Holds: statusv1.Rule_VERDICT_HOLDS, fleet.Fails: statusv1.Rule_VERDICT_FAILS,
	fleet.Orders: statusv1.Rule_VERDICT_ORDERS, fleet.Skipped: statusv1.Rule_VERDICT_SKIPPED,
}

var balanceStates = map[fleet.BalanceState]statusv1.Balance_State{
	fleet.BalanceEven: statusv1.Balance_STATE_EVEN, fleet.BalanceMoving: statusv1.Balance_STATE_MOVING,
	fleet.BalanceHeld: statusv1.Balance_STATE_HELD,
}

// snapshot is what this replica knows now.
func (s *Service) snapshot() *statusv1.FleetResponse {
	age, known := s.CatalogAge()
	view := s.Table.View()
	out := &statusv1.FleetResponse{
		Instance: s.Instance, CatalogAgeMs: age.Milliseconds(), AssignRate: view.AssignRate,
		Balance: &statusv1.Balance{
			State: balanceStates[view.Balance.State], Text: view.Balance.Text, ToMove: uint32(view.Balance.ToMove),
		},
	}
	if !known {
		out.CatalogAgeMs = -1
	}
	for _, v := range view.Servers {
		server := &statusv1.Server{
			Endpoint: endpoint(v.Endpoint), RelayAddress: v.RelayAddress, Release: v.Release, Zone: v.Zone,
			InCatalog: v.InCatalog, Passing: v.Passing, ReportAgeMs: v.ReportAge.Milliseconds(),
			PendingAssignments: uint32(v.Pending), Eligible: v.State == fleet.StateEligible, Reason: v.Reason,
			FairShare: v.FairShare, KeepAtMost: v.KeepAtMost,
		}
		if l := v.Load; l != nil {
			server.Load = &statusv1.Load{
				Connections: l.Connections, Capacity: l.Capacity, SendRate: l.SendRate,
				QueueDelayMs: l.QueueDelayMS, Cpu: l.CPU, MemoryBytes: l.MemoryBytes, Draining: l.Draining,
			}
		}
		out.Servers = append(out.Servers, server)
	}
	return out
}
