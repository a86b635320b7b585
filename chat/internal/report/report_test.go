package report_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/report"
)

// replica is a status server that keeps the reports. Its mutex owns the fields
// below.
type replica struct {
	statusv1.UnimplementedStatusServiceServer
	addr string
	srv  *grpc.Server

	mu      sync.Mutex
	reports int
	used    []string
	streams int    // opened
	open    int    // not ended yet
	order   uint32 // the KeepAtMost of every answer
	refuse  bool
}

func startReplica(t *testing.T, at string) *replica {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{addr: l.Addr().String(), srv: grpc.NewServer()}
	statusv1.RegisterStatusServiceServer(r.srv, r)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = r.srv.Serve(l)
	}()
	t.Cleanup(func() {
		r.srv.Stop()
		<-served
	})
	return r
}

// change reads or changes a replica that is in use.
func (r *replica) change(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

func (r *replica) until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	testenv.Until(t, what, func() (ok bool) {
		r.change(func() { ok = fn() })
		return ok
	})
}

func (r *replica) Report(stream grpc.BidiStreamingServer[statusv1.ReportRequest, statusv1.ReportResponse]) error {
	r.change(func() { r.streams++; r.open++ })
	defer r.change(func() { r.open-- })
	for {
		report, err := stream.Recv()
		if err != nil {
			return err
		}
		var order uint32
		var refuse bool
		r.change(func() {
			r.reports++
			r.used = append(r.used, report.GetUsedAssignments()...)
			order, refuse = r.order, r.refuse
		})
		if refuse {
			return fmt.Errorf("not now")
		}
		if err := stream.Send(&statusv1.ReportResponse{KeepAtMost: order}); err != nil {
			return err
		}
	}
}

// world is a reporter with its catalog.
type world struct {
	*report.Reporter
	catalog chan []string
	orders  chan uint32
	stop    func()
}

func startReporter(t *testing.T) *world {
	t.Helper()
	w := &world{catalog: make(chan []string), orders: make(chan uint32, 1000)}
	w.Reporter = report.New(report.Options{
		Report:     func() *statusv1.ReportRequest { return &statusv1.ReportRequest{Instance: "chat"} },
		KeepAtMost: func(n uint32) { w.orders <- n },
		Dial:       []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		Logger:     slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- w.Run(ctx, func(ctx context.Context, fn func([]discovery.Instance)) error {
			for {
				select {
				case addresses := <-w.catalog:
					var all []discovery.Instance
					for _, a := range addresses {
						all = append(all, discovery.Instance{ID: a, Address: a})
					}
					fn(all)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func TestEveryReplicaGetsEachAssignmentOnce(t *testing.T) {
	t.Parallel()
	a, b := startReplica(t, "127.0.0.1:0"), startReplica(t, "127.0.0.1:0")
	w := startReporter(t)
	w.Used("before there are replicas")
	w.catalog <- []string{a.addr, b.addr}
	for _, r := range []*replica{a, b} {
		r.until(t, "a report", func() bool { return r.reports > 0 })
	}
	w.Used("one")
	w.Used("two")
	for _, r := range []*replica{a, b} {
		r.until(t, "the assignments", func() bool { return slices.Equal(r.used, []string{"one", "two"}) })
		n := 0
		r.change(func() { n = r.reports })
		r.until(t, "reports go on", func() bool { return r.reports > n+1 })
		r.change(func() {
			if len(r.used) != 2 || r.streams != 1 {
				t.Errorf("got %v over %d streams", r.used, r.streams)
			}
		})
	}
	w.catalog <- []string{b.addr}
	a.until(t, "the stream to the one that left has ended", func() bool { return a.open == 0 })
	w.stop()
	b.until(t, "the other stream has ended too", func() bool { return b.open == 0 })
}

func TestAReplicaThatEndsTheStreamIsCalledAgain(t *testing.T) {
	t.Parallel()
	a := startReplica(t, "127.0.0.1:0")
	a.refuse = true
	w := startReporter(t)
	w.catalog <- []string{a.addr}
	a.until(t, "tried again", func() bool { return a.streams > 1 })
	a.change(func() { a.refuse = false })
	a.until(t, "the stream stays open", func() bool { return a.open == 1 && a.reports > a.streams })
	a.srv.Stop()
	again := startReplica(t, a.addr)
	again.until(t, "the new process gets reports", func() bool { return again.reports > 0 })
}

func TestOrdersAreObeyed(t *testing.T) {
	t.Parallel()
	a := startReplica(t, "127.0.0.1:0")
	w := startReporter(t)
	w.catalog <- []string{a.addr}
	a.until(t, "a report", func() bool { return a.reports > 1 })
	if len(w.orders) != 0 {
		t.Error("an answer without an order was taken for one")
	}
	a.change(func() { a.order = 17 })
	w.Now()
	select {
	case n := <-w.orders:
		if n != 17 {
			t.Errorf("keep %d, want 17", n)
		}
	case <-time.After(testenv.Patience):
		t.Fatal("no order")
	}
}

// The assignments that wait for a replica that is away are bounded.
func TestAssignmentsForAReplicaThatIsAwayAreBounded(t *testing.T) {
	t.Parallel()
	const most = 10_000
	w := startReporter(t)
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	w.catalog <- []string{address}
	w.catalog <- []string{address} // when this is received, the first one is in use
	for n := range most + 5000 {
		w.Used(fmt.Sprint(n))
	}
	a := startReplica(t, address)
	a.until(t, "they arrive", func() bool { return len(a.used) > 0 })
	// Attempts to reach the replica may have taken some.
	a.change(func() {
		if len(a.used) > most {
			t.Errorf("%d were kept", len(a.used))
		}
	})
}
