package service_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
	"github.com/msrchat/msrchat/status/internal/service"
)

// rig is a service behind real gRPC.
type rig struct {
	t        *testing.T
	addr     string
	table    *fleet.Table
	service  *service.Service
	registry *prometheus.Registry
	conn     *grpc.ClientConn
	client   statusv1.StatusServiceClient
}

func newRig(t *testing.T, idle time.Duration) *rig {
	t.Helper()
	r := &rig{t: t, table: fleet.New(fleet.Options{}), registry: prometheus.NewRegistry()}
	age := func() (time.Duration, bool) { return 1500 * time.Millisecond, true }
	metrics := service.NewMetrics(r.registry, r.table, age)
	r.service = service.New(service.Config{
		Instance: "status-1", Table: r.table, CatalogAge: age, IdleLimit: idle, Metrics: metrics,
		Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	watches := make(chan error, 1)
	go func() { watches <- r.service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-watches; err != nil {
			t.Error(err)
		}
	})
	server := grpc.NewServer(grpc.MaxRecvMsgSize(service.MaxMessage), grpc.StatsHandler(metrics),
		grpc.ConnectionTimeout(time.Second), grpc.UnknownServiceHandler(service.Unknown))
	statusv1.RegisterStatusServiceServer(server, r.service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }() // nil after Stop
	t.Cleanup(server.Stop)
	r.addr = l.Addr().String()
	r.conn = r.dial()
	r.client = statusv1.NewStatusServiceClient(r.conn)
	return r
}

func (r *rig) dial() *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func good(instance string) *statusv1.ReportRequest {
	return &statusv1.ReportRequest{
		Instance: instance, BootId: 7, Release: "v1", Endpoint: &chatv1.Endpoint{Address: "127.0.0.1:1"},
		StartedAtMs: 1, Load: &statusv1.Load{Connections: 3, Capacity: 10},
	}
}

// open starts a stream and waits until its first report was taken.
func (r *rig) open(
	client statusv1.StatusServiceClient, req *statusv1.ReportRequest,
) grpc.BidiStreamingClient[statusv1.ReportRequest, statusv1.ReportResponse] {
	r.t.Helper()
	stream, err := client.Report(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := stream.Send(req); err != nil {
		r.t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		r.t.Fatalf("first report: %v", err)
	}
	return stream
}

// end reads a stream until it ends and returns its error.
func end(stream grpc.BidiStreamingClient[statusv1.ReportRequest, statusv1.ReportResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// metric sums the values of a family with a label value; any if empty.
func (r *rig) metric(name, label string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := label == ""
			for _, l := range m.GetLabel() {
				match = match || l.GetValue() == label
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (r *rig) eventually(what string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) { // between two polls
		if time.Now().After(deadline) {
			r.t.Fatalf("not seen within 5 s: %s", what)
		}
	}
}

func TestAReportIsSeenAndItsEndToo(t *testing.T) {
	r := newRig(t, time.Minute)
	r.table.SetCatalog([]discovery.Instance{{ID: "a", Address: "127.0.0.1:1", Passing: true}})
	for _, how := range []string{"closes", "cancels", "vanishes"} {
		t.Run(how, func(t *testing.T) {
			// Many times, because the result must not depend on a race.
			for range 30 {
				conn := r.dial()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stream, err := statusv1.NewStatusServiceClient(conn).Report(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Send(good("a")); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
				if got := r.metric("msrchat_status_report_streams", ""); got != 1 {
					t.Fatalf("%v open streams", got)
				}
				switch how {
				case "closes":
					if err := stream.CloseSend(); err != nil {
						t.Fatal(err)
					}
					if err := end(stream); !errors.Is(err, io.EOF) {
						t.Fatalf("a closed stream ends with %v", err)
					}
				case "cancels":
					cancel()
				case "vanishes":
					if err := conn.Close(); err != nil {
						t.Fatal(err)
					}
				}
				r.eventually("the end", func() bool { return r.metric("msrchat_status_report_streams", "") == 0 })
			}
		})
	}
	resp, err := r.client.Fleet(t.Context(), &statusv1.FleetRequest{})
	if err != nil || resp.GetInstance() != "status-1" || resp.GetCatalogAgeMs() != 1500 || len(resp.GetServers()) != 1 {
		t.Fatalf("fleet: %v, %v", resp, err)
	}
	s := resp.GetServers()[0]
	if l := s.GetLoad(); l.GetConnections() != 3 || l.GetCapacity() != 10 || !s.GetPassing() || s.GetRelease() != "v1" {
		t.Errorf("fleet says %v", s)
	}
}

func TestStreamsEnd(t *testing.T) {
	t.Run("without reports", func(t *testing.T) {
		r := newRig(t, 50*time.Millisecond)
		silent, err := r.client.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, stream := range []grpc.BidiStreamingClient[statusv1.ReportRequest, statusv1.ReportResponse]{
			silent, r.open(r.client, good("a")),
		} {
			if err := end(stream); grpcstatus.Code(err) != codes.Unavailable ||
				!strings.Contains(err.Error(), "no report for 50ms") {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("by a newer one", func(t *testing.T) {
		r := newRig(t, time.Minute)
		older := r.open(r.client, good("a"))
		newer := r.open(r.client, good("a"))
		if err := end(older); errs.CodeOf(errs.FromGRPC(err)) != errs.CodeConflict {
			t.Errorf("the older one: %v", err)
		}
		if err := newer.Send(good("a")); err != nil {
			t.Error(err)
		}
		if _, err := newer.Recv(); err != nil {
			t.Errorf("the newer one: %v", err)
		}
	})
	t.Run("when the replica leaves", func(t *testing.T) {
		r := newRig(t, time.Minute)
		stream := r.open(r.client, good("a"))
		r.service.Close()
		r.service.Close()
		if err := end(stream); grpcstatus.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	})
}

func TestAssign(t *testing.T) {
	t.Run("waits for a catalog that is about to come", func(t *testing.T) {
		r := newRig(t, time.Minute)
		time.AfterFunc(100*time.Millisecond, func() {
			r.table.SetCatalog([]discovery.Instance{{ID: "a", Address: "127.0.0.1:1", Passing: true}})
		})
		resp, err := r.client.Assign(t.Context(), &statusv1.AssignRequest{})
		if err != nil || !resp.GetAssignment().GetCatalogOnly() || resp.GetAssignment().GetDecidedBy() != "status-1" {
			t.Errorf("got %v, %v", resp, err)
		}
	})
	t.Run("not for ever", func(t *testing.T) {
		r := newRig(t, time.Minute)
		_, err := r.client.Assign(t.Context(), &statusv1.AssignRequest{})
		if grpcstatus.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "not known yet") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("checks its request", func(t *testing.T) {
		r := newRig(t, time.Minute)
		r.table.SetCatalog(nil)
		for _, req := range []*statusv1.AssignRequest{
			{Avoid: make([]string, 101)}, {Zone: strings.Repeat("x", 200)}, {Zone: "\x00"},
		} {
			if _, err := r.client.Assign(t.Context(), req); grpcstatus.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v", err)
			}
		}
		if got := r.metric("msrchat_status_assignments_total", "invalid"); got != 3 {
			t.Errorf("%v counted", got)
		}
		_, err := r.client.Assign(t.Context(), &statusv1.AssignRequest{})
		if grpcstatus.Code(err) != codes.Unavailable {
			t.Errorf("nobody there: %v", err)
		}
	})
}

func TestMetricsShowTheFleet(t *testing.T) {
	r := newRig(t, time.Minute)
	r.table.SetCatalog([]discovery.Instance{{ID: "a", Passing: true}, {ID: "b"}})
	r.open(r.client, good("a"))
	if _, err := r.client.Assign(t.Context(), &statusv1.AssignRequest{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, label string
		want        float64
	}{
		{"msrchat_status_servers", "eligible", 1},
		{"msrchat_status_servers", "failing", 1},
		{"msrchat_status_servers", "stale", 0},
		{"msrchat_status_pending_assignments", "", 1},
		{"msrchat_status_assignments_total", "assigned", 1},
		{"msrchat_status_reports_total", "taken", 1},
		{"msrchat_status_catalog_age_seconds", "", 1.5},
	} {
		r.eventually(c.name+" "+c.label, func() bool { return r.metric(c.name, c.label) == c.want })
	}
}
