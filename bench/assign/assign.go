// Package assign asks for many assignments and measures how evenly they are
// spread over the chat servers. Nobody connects, so what is measured is the status
// service alone.
package assign

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"

	"github.com/msrchat/msrchat/bench/failure"
	"github.com/msrchat/msrchat/bench/latency"
)

// Assigner asks for the i-th assignment and returns the instance. It is called
// from any goroutine.
type Assigner func(ctx context.Context, i int) (instance string, err error)

// callTimeout bounds one assignment.
const callTimeout = 10 * time.Second

// Config says how many to ask for, and how many at once.
type Config struct {
	Count      int `json:"count"`
	Concurrent int `json:"concurrent"`
}

// Result is what was measured.
type Result struct {
	ByInstance map[string]int64
	Latency    latency.Summary
	Errors     map[string]int64
	Seconds    float64
}

// Spread is the busiest server's share divided by the mean, over the servers
// named and those that got something; 1 is even, 0 says that nothing was assigned.
func (r *Result) Spread(servers []string) float64 {
	counts := maps.Clone(r.ByInstance)
	for _, s := range servers {
		counts[s] += 0
	}
	var busiest, total int64
	for _, n := range counts {
		busiest = max(busiest, n)
		total += n
	}
	if total == 0 {
		return 0
	}
	return float64(busiest) * float64(len(counts)) / float64(total)
}

// Run asks the assigners in turn until ctx ends or all assignments are there.
// progress is called with the number of answers, from any goroutine.
func Run(ctx context.Context, cfg Config, assigners []Assigner, progress func(done int)) *Result {
	r := &Result{ByInstance: make(map[string]int64), Errors: make(map[string]int64)}
	recorder := latency.NewRecorder()
	var mu sync.Mutex // owns the maps of r
	var next, done atomic.Int64
	var working sync.WaitGroup
	started := time.Now()
	for w := range cfg.Concurrent {
		working.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= cfg.Count {
					return
				}
				asked := time.Now()
				call, cancel := context.WithTimeout(ctx, callTimeout)
				instance, err := assigners[i%len(assigners)](call, i)
				cancel()
				if ctx.Err() != nil {
					return
				}
				recorder.Record(w, time.Since(asked))
				mu.Lock()
				if err != nil {
					r.Errors[failure.Kind(err)]++
				} else {
					r.ByInstance[instance]++
				}
				mu.Unlock()
				progress(int(done.Add(1)))
			}
		})
	}
	working.Wait()
	r.Seconds, r.Latency = time.Since(started).Seconds(), recorder.Summary()
	return r
}

// Replica is one status server.
type Replica struct {
	conn   *grpc.ClientConn
	client statusv1.StatusServiceClient
}

// NewReplica returns a replica at an address; it does not connect yet.
func NewReplica(address string) (*Replica, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &Replica{conn: conn, client: statusv1.NewStatusServiceClient(conn)}, nil
}

// Close ends the connection.
func (r *Replica) Close() error { return r.conn.Close() }

// Assign is an Assigner.
func (r *Replica) Assign(ctx context.Context, i int) (string, error) {
	answer, err := r.client.Assign(ctx, &statusv1.AssignRequest{UserId: uint64(i) + 1})
	if err != nil {
		return "", err
	}
	return answer.GetAssignment().GetServer().GetInstance(), nil
}

// Servers lists the chat servers that this replica would assign.
func (r *Replica) Servers(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	fleet, err := r.client.Fleet(ctx, &statusv1.FleetRequest{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range fleet.GetServers() {
		if s.GetEligible() {
			out = append(out, s.GetEndpoint().GetInstance())
		}
	}
	return out, nil
}
