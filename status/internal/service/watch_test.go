package service_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
)

func (r *rig) watch() grpc.ServerStreamingClient[statusv1.WatchFleetResponse] {
	r.t.Helper()
	stream, err := r.client.WatchFleet(r.t.Context(), &statusv1.WatchFleetRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return stream
}

// next is the next snapshot of the fleet.
func next(t *testing.T, stream grpc.ServerStreamingClient[statusv1.WatchFleetResponse]) *statusv1.FleetResponse {
	t.Helper()
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetFleet()
}

func TestWatchFleet(t *testing.T) {
	t.Parallel()
	r := newRig(t, time.Minute)
	r.table.SetCatalog([]discovery.Instance{{ID: "a", Address: "127.0.0.1:1", Passing: true}})
	stream := r.watch()
	first := next(t, stream) // at once, without waiting for a change
	if first.GetInstance() != "status-1" || len(first.GetServers()) != 1 || first.GetServers()[0].GetLoad() != nil {
		t.Errorf("first %v", first)
	}
	r.open(r.client, good("a"))
	changed := first
	for changed.GetServers()[0].GetLoad().GetConnections() != 3 {
		changed = next(t, stream)
	}
	// Later only the age differs: the keep-alive.
	for changed.GetServers()[0].GetReportAgeMs() < 3000 {
		changed = next(t, stream)
	}
	if got := r.metric("msrchat_status_watchers", ""); got != 1 {
		t.Errorf("%v watch", got)
	}
	r.service.Close()
	if _, err := stream.Recv(); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("the replica leaves: %v", err)
	}
	r.eventually("nobody watches", func() bool { return r.metric("msrchat_status_watchers", "") == 0 })
}

// A watcher that does not read gets the newest snapshot, not all that it missed.
func TestASlowWatcherGetsTheNewest(t *testing.T) {
	t.Parallel()
	r := newRig(t, time.Minute)
	r.table.SetCatalog([]discovery.Instance{{ID: "a", Address: "127.0.0.1:1", Passing: true}})
	var shown []uint32
	reports := r.open(r.client, good("a"))
	began, busy, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var err error // the goroutine's until done is closed, as is shown
	go func() {
		defer close(done)
		err = r.service.Watch(t.Context(), func(f *statusv1.FleetResponse) error {
			shown = append(shown, f.GetServers()[0].GetLoad().GetConnections())
			if len(shown) == 1 {
				close(began)
				<-busy
			}
			if shown[len(shown)-1] == 8 {
				return errs.New(errs.CodeConflict, "seen enough")
			}
			return nil
		})
	}()
	<-began // with the connections of the first report
	quick := r.watch()
	for n := uint32(5); n <= 8; n++ {
		report := good("a")
		report.Load.Connections = n
		if err := reports.Send(report); err != nil {
			t.Fatal(err)
		}
		for next(t, quick).GetServers()[0].GetLoad().GetConnections() != n {
		}
	}
	close(busy)
	<-done
	if errs.CodeOf(err) != errs.CodeConflict || len(shown) != 2 || shown[0] != 3 {
		t.Errorf("shown %v, then %v", shown, err)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, time.Minute)
	conn := statusv1.NewStatusServiceClient(r.dial())
	for range 256 {
		stream, err := conn.WatchFleet(t.Context(), &statusv1.WatchFleetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		next(t, stream)
	}
	_, err := r.watch().Recv()
	if e := errs.From(errs.FromGRPC(err)); e.Code != errs.CodeExhausted || e.RetryAfter == 0 {
		t.Errorf("one too many: %v", err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	r := newRig(t, time.Minute)
	r.table.SetCatalog(
		[]discovery.Instance{{ID: "a", Address: "127.0.0.1:1", Passing: true}, {ID: "b", Address: "127.0.0.1:2"}},
	)
	r.open(r.client, good("a"))
	assignment := func(req *statusv1.AssignRequest) *statusv1.ExplainRequest {
		return &statusv1.ExplainRequest{Subject: &statusv1.ExplainRequest_Assignment{Assignment: req}}
	}
	server := func(id string) *statusv1.ExplainRequest {
		return &statusv1.ExplainRequest{Subject: &statusv1.ExplainRequest_Instance{Instance: id}}
	}
	got, err := r.client.Explain(t.Context(), assignment(&statusv1.AssignRequest{}))
	if err != nil || got.GetInstance() != "status-1" || got.GetVerdict() != "a would be taken" ||
		len(got.GetCandidates()) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	a, b := got.GetCandidates()[0], got.GetCandidates()[1]
	if a.GetRank() != 1 || a.GetEndpoint().GetAddress() != "127.0.0.1:1" || b.GetRank() != 0 ||
		b.GetRules()[2].GetVerdict() != statusv1.Rule_VERDICT_FAILS {
		t.Errorf("%v", got)
	}
	if got, err := r.client.Explain(t.Context(), server("b")); err != nil || len(got.GetCandidates()) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	for name, c := range map[string]struct {
		req  *statusv1.ExplainRequest
		want codes.Code
	}{
		"nothing":            {&statusv1.ExplainRequest{}, codes.InvalidArgument},
		"an unknown one":     {server("x"), codes.NotFound},
		"a long name":        {server(string(make([]byte, 200))), codes.InvalidArgument},
		"too much to avoid":  {assignment(&statusv1.AssignRequest{Avoid: make([]string, 101)}), codes.InvalidArgument},
		"an unreadable zone": {assignment(&statusv1.AssignRequest{Zone: "\x00"}), codes.InvalidArgument},
	} {
		if _, err := r.client.Explain(t.Context(), c.req); grpcstatus.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
