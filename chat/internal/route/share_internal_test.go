package route

import (
	"testing"
	"time"
)

func TestShare(t *testing.T) {
	for _, tc := range []struct {
		all                 int
		interval, heartbeat time.Duration
		want                int
	}{
		{0, time.Second, 20 * time.Second, 0},
		{1, time.Second, 20 * time.Second, 1},
		{18_200, time.Second, 20 * time.Second, 1820},
		{600, 500 * time.Millisecond, 2 * time.Second, 300},
		{18_200, 500 * time.Millisecond, 2 * time.Second, 1000}, // the most in half a second
		{18_200, time.Second, time.Hour, 607},                   // or they would expire
		{600_000, time.Second, 20 * time.Second, 20_000},        // the same
	} {
		if got := share(tc.all, tc.interval, tc.heartbeat); got != tc.want {
			t.Errorf("of %d in %v with a heartbeat of %v: %d, want %d", tc.all, tc.interval, tc.heartbeat, got, tc.want)
		}
	}
}

// The queue forgets connections that ended, also while Redis is away.
func TestTheQueueForgets(t *testing.T) {
	table := New(Options{Instance: "a", Heartbeat: 4 * time.Second}) // incomplete: nothing is written
	for i := range uint64(1000) {
		table.Add(t.Context(), i+1, i+1)
		if i%10 != 0 {
			table.Remove(i+1, i+1)
		}
	}
	for range 3 { // more than half a heartbeat
		if due := table.due(time.Second); len(due) != 0 {
			t.Fatalf("%d routes are due without a Redis", len(due))
		}
	}
	if len(table.queue) != 100 || len(table.mine) != 100 {
		t.Errorf("%d connections are queued, %d there, want 100", len(table.queue), len(table.mine))
	}
}
