// Package report tells every status replica how this server is doing, once a
// second over a stream of its own.
package report

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/retry"
)

// retries are the waits before a replica that broke off is called again.
var retries = retry.Policy{Min: 100 * time.Millisecond, Max: 2 * time.Second}

const (
	// Interval is how often a report is sent; status believes one for three.
	Interval = time.Second
	// soonest is how soon after a report the next one follows when assignments
	// arrived, so that all replicas know of them before they hand out many more.
	soonest = 50 * time.Millisecond
	// sendLimit is how long a replica may keep a report from being sent.
	sendLimit = 3 * time.Second
	// maxUsed bounds the assignments to be told at the next report; one that is
	// left out expires at the replica by itself.
	maxUsed = 10_000
)

// Options are what Reporter is made of.
type Options struct {
	// Report makes a report without its used assignments.
	Report func() *statusv1.ReportRequest
	// KeepAtMost is called with a replica's order to shed connections.
	KeepAtMost func(n uint32)
	Dial       []grpc.DialOption
	Logger     *slog.Logger
}

// Reporter reports. Used may be called from any goroutine.
type Reporter struct {
	opts Options

	mu       sync.Mutex // owns the fields below
	replicas map[string]*replica
}

// replica is one status server; the mutex of Reporter owns used.
type replica struct {
	address string
	cancel  context.CancelFunc
	used    []string
	now     chan struct{}
}

// New returns a Reporter that reports to nobody before Run.
func New(opts Options) *Reporter {
	return &Reporter{opts: opts, replicas: make(map[string]*replica)}
}

// Used notes an assignment that arrived.
func (r *Reporter) Used(assignment string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.replicas {
		if len(to.used) < maxUsed {
			to.used = append(to.used, assignment)
		}
		to.hurry()
	}
}

// hurry asks for a report before its time.
func (to *replica) hurry() {
	select {
	case to.now <- struct{}{}:
	default:
	}
}

// Now sends a report to everybody without waiting for the next turn.
func (r *Reporter) Now() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.replicas {
		to.hurry()
	}
}

// Run reports to the replicas that watch tells of until ctx ends.
func (r *Reporter) Run(ctx context.Context, watch func(context.Context, func([]discovery.Instance)) error) error {
	var running sync.WaitGroup
	defer running.Wait()
	return watch(ctx, func(catalog []discovery.Instance) {
		r.mu.Lock()
		defer r.mu.Unlock()
		listed := make(map[string]bool, len(catalog))
		for _, i := range catalog {
			listed[i.Address] = true
			if r.replicas[i.Address] != nil {
				continue
			}
			to := &replica{address: i.Address, now: make(chan struct{}, 1)}
			var its context.Context
			its, to.cancel = context.WithCancel(ctx)
			r.replicas[i.Address] = to
			running.Go(func() { r.keep(its, to) })
		}
		for address, to := range r.replicas {
			if !listed[address] {
				to.cancel()
				delete(r.replicas, address)
			}
		}
	})
}

// keep reports to one replica over one stream after another.
func (r *Reporter) keep(ctx context.Context, to *replica) {
	for failures := 1; ctx.Err() == nil; failures++ {
		started := time.Now()
		err := r.stream(ctx, to)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > retries.Max {
			failures = 1
		}
		pause := retries.After(failures)
		r.opts.Logger.Info("reports interrupted", "status", to.address, "err", err, "again_in", pause)
		retry.Sleep(ctx, pause)
	}
}

func (r *Reporter) stream(parent context.Context, to *replica) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+to.address, r.opts.Dial...)
	if err != nil {
		return err
	}
	defer cc.Close()
	limit := time.AfterFunc(sendLimit, cancel)
	defer limit.Stop()
	stream, err := statusv1.NewStatusServiceClient(cc).Report(ctx)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		for {
			order, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			if n := order.GetKeepAtMost(); n > 0 {
				r.opts.KeepAtMost(n)
			}
		}
	}()
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		limit.Reset(sendLimit)
		if err := stream.Send(r.next(to)); err != nil {
			return <-ended // Recv knows why
		}
		limit.Stop()
		hurry := (<-chan struct{})(nil)
		rest := time.NewTimer(soonest)
		for again := true; again; {
			again = false
			select {
			case <-parent.Done():
				return nil
			case err := <-ended:
				return err
			case <-ticker.C:
			case <-rest.C:
				hurry, again = to.now, true
			case <-hurry:
			}
		}
		rest.Stop()
	}
}

func (r *Reporter) next(to *replica) *statusv1.ReportRequest {
	report := r.opts.Report()
	r.mu.Lock()
	defer r.mu.Unlock()
	report.UsedAssignments, to.used = to.used, nil
	return report
}
