// Package retry is how long a program waits before it tries again.
//
// A retry loop keeps its own count of failures and asks a Policy for the wait,
// so that it can start over once an attempt has lasted, log the wait, or plan a
// timer instead of sleeping:
//
//	for failures := 0; policy.Wait(ctx, failures); failures++ {
//		if err := connect(ctx); err == nil {
//			return nil
//		}
//	}
//
// github.com/cenkalti/backoff/v5 was the alternative. It calls the operation
// itself, its backoffs are mutable state rather than values, and its jitter
// exceeds the maximum; most of the loops here serve a stream or a state machine
// between two failures and would use nothing of it but the doubling.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy is the waits after 1, 2, 3 … failures in a row: Min, doubled with every
// further failure, at most Max. Each is jittered to between half and all of it, so
// that the clients of a server that died do not come back as one. Without a Min
// there is no wait.
type Policy struct {
	// First is for clients that may come back at once and only have to be spread: if
	// it is set, the first wait is a random one between 0 and First, and Min is the
	// second.
	First    time.Duration
	Min, Max time.Duration
}

// After is the wait after so many failures in a row; none after no failure.
func (p Policy) After(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	doublings := min(failures-1, 64) // more than any Duration takes
	if p.First > 0 {
		if failures == 1 {
			return rand.N(p.First + 1)
		}
		doublings--
	}
	wait := p.Min
	for ; doublings > 0 && wait < p.Max; doublings-- {
		wait += min(wait, p.Max-wait) // does not overflow
	}
	return Jitter(min(wait, p.Max))
}

// Wait sleeps for After(failures); false means that ctx ended.
func (p Policy) Wait(ctx context.Context, failures int) bool { return Sleep(ctx, p.After(failures)) }

// Jitter is a random time between half of d and d.
func Jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return max(d, 0)
	}
	return d/2 + rand.N(d/2+1)
}

// Asked is the wait for a peer that said when to come back: that time and up to a
// quarter more, so that clients that got the same time do not come back as one.
func Asked(after time.Duration) time.Duration {
	after = max(after, 0)
	return after + rand.N(after/4+1)
}

// Sleep waits for d, or not at all if d is not positive; false means that ctx
// ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
