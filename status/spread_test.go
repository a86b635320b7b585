package status_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
)

// TestSpreadOverRealReplicas checks the promise with real parts: 10,000 users
// ask three replicas for one of ten servers, which report over gRPC. The limit
// is less strict than in the table's own TestSpread, which has a simulated
// clock: on a busy machine servers here may seem dead for a moment.
func TestSpreadOverRealReplicas(t *testing.T) {
	const users, servers, gates = 10_000, 10, 8
	_, catalog := startConsul(t)
	var callers []*caller
	for i := range 3 {
		callers = append(callers, newCaller(t, startReplica(t, catalog, fmt.Sprint("status-", i), nil).GRPCAddr()))
	}
	chats := map[string]*chatServer{}
	var names []string
	for i := range servers {
		name := fmt.Sprint("chat-", i)
		names = append(names, name)
		chats[name] = startChat(t, catalog, name)
		chats[name].set(func(l *statusv1.Load) { l.Capacity = 18_200 })
	}
	for _, c := range callers {
		c.settled(names...)
	}
	var asking sync.WaitGroup
	for gate := range gates {
		asking.Go(func() {
			for i := range users / gates {
				a, err := callers[(gate+i)%len(callers)].patient()
				if err != nil {
					t.Errorf("assign: %v", err)
					return
				}
				chats[a.GetServer().GetInstance()].arrive(a.GetId())
			}
		})
	}
	asking.Wait()
	if t.Failed() {
		return
	}
	var counts []uint32
	var most, sum uint32
	for _, name := range names {
		chats[name].set(func(l *statusv1.Load) { counts = append(counts, l.Connections) })
		most, sum = max(most, counts[len(counts)-1]), sum+counts[len(counts)-1]
	}
	ratio := float64(most) * servers / float64(sum)
	t.Logf("busiest / mean = %.4f: %v", ratio, counts)
	if sum != users || ratio > 1.05 {
		t.Errorf("busiest / mean of %d users = %.4f, want at most 1.05", sum, ratio)
	}
}

// patient asks until it gets an assignment, as clients do.
func (c *caller) patient() (a *statusv1.Assignment, err error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if a, err = c.assign(); err == nil {
			return a, nil
		}
		time.Sleep(20 * time.Millisecond) // between two calls
	}
	return nil, err
}
