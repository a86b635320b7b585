// Package report sends the load of this server to every status replica, once a
// second, over one stream for each.
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

// retries are the waits before a replica whose stream ended is called again.
var retries = retry.Policy{Min: 100 * time.Millisecond, Max: 2 * time.Second}

const (
	// Interval is how often a report is sent. To status a report is fresh for three
	// intervals.
	Interval = time.Second
	// leastGap is the shortest time between two reports. The next one follows so soon
	// when assignments were used, so that all replicas know of them before they hand
	// out many more.
	leastGap = 50 * time.Millisecond
	// sendLimit is how long a replica may take to accept a report.
	sendLimit = 3 * time.Second
	// maxUsed bounds the used assignments in the next report. One that is left out
	// expires at the replica.
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

// Reporter sends the reports. Used and Now may be called from any goroutine.
type Reporter struct {
	opts Options

	mu       sync.Mutex // owns the fields below
	replicas map[string]*replica
}

// replica is one status server. The mutex of Reporter owns used.
type replica struct {
	address string
	cancel  context.CancelFunc
	used    []string
	now     chan struct{}
}

// New returns a Reporter. It sends nothing before Run.
func New(opts Options) *Reporter {
	return &Reporter{opts: opts, replicas: make(map[string]*replica)}
}

// Used notes an assignment that a client came with.
func (r *Reporter) Used(assignment string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.replicas {
		if len(to.used) < maxUsed {
			to.used = append(to.used, assignment)
		}
		to.reportNow()
	}
}

// reportNow asks for a report before the interval is over.
func (to *replica) reportNow() {
	select {
	case to.now <- struct{}{}:
	default:
	}
}

// Now sends a report to all replicas before the interval is over.
func (r *Reporter) Now() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.replicas {
		to.reportNow()
	}
}

// Run reports to the replicas in the catalog until ctx ends. watch calls back with
// the whole catalog whenever it changes.
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
			var listedCtx context.Context
			listedCtx, to.cancel = context.WithCancel(ctx)
			r.replicas[i.Address] = to
			running.Go(func() { r.keep(listedCtx, to) })
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
			return <-ended // the error of Recv says why
		}
		limit.Stop()
		now := (<-chan struct{})(nil) // to.now, when leastGap is over
		gap := time.NewTimer(leastGap)
		for again := true; again; {
			again = false
			select {
			case <-parent.Done():
				return nil
			case err := <-ended:
				return err
			case <-ticker.C:
			case <-gap.C:
				now, again = to.now, true
			case <-now:
			}
		}
		gap.Stop()
	}
}

func (r *Reporter) next(to *replica) *statusv1.ReportRequest {
	report := r.opts.Report()
	r.mu.Lock()
	defer r.mu.Unlock()
	report.UsedAssignments, to.used = to.used, nil
	return report
}
