package retry_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msrchat/msrchat/shared/retry"
)

const samples = 1000

// within draws many waits and fails if one is outside the bounds, or if they do
// not use at least half of the room between them.
func within(t *testing.T, what string, wait func() time.Duration, least, most time.Duration) {
	t.Helper()
	low, high := time.Duration(math.MaxInt64), time.Duration(0)
	for range samples {
		d := wait()
		low, high = min(low, d), max(high, d)
	}
	if low < least || high > most || high-low < (most-least)/2 {
		t.Errorf("%s: waits between %v and %v, want them spread over %v to %v", what, low, high, least, most)
	}
}

func TestWaitsDoubleUpToTheMaximumAndAreJittered(t *testing.T) {
	p := retry.Policy{Min: 100 * time.Millisecond, Max: time.Second}
	for failures, most := range map[int]time.Duration{
		0: 0, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 4: 800 * time.Millisecond,
		5: time.Second, 6: time.Second, math.MaxInt: time.Second,
	} {
		within(t, "a policy", func() time.Duration { return p.After(failures) }, most/2, most)
	}
}

func TestAFirstWaitOfItsOwnBeginsAtNothing(t *testing.T) {
	p := retry.Policy{First: 250 * time.Millisecond, Min: 500 * time.Millisecond, Max: 15 * time.Second}
	within(t, "the first wait", func() time.Duration { return p.After(1) }, 0, 250*time.Millisecond)
	within(t, "the second wait", func() time.Duration { return p.After(2) }, 250*time.Millisecond, 500*time.Millisecond)
	within(t, "the third wait", func() time.Duration { return p.After(3) }, 500*time.Millisecond, time.Second)
	within(t, "the last wait", func() time.Duration { return p.After(1000) }, 7500*time.Millisecond, 15*time.Second)
}

func TestNoWaitOverflows(t *testing.T) {
	p := retry.Policy{Min: time.Nanosecond, Max: math.MaxInt64}
	for _, failures := range []int{62, 63, 64, 65, 1 << 20} {
		if got := p.After(failures); got < math.MaxInt64/8 {
			t.Errorf("after %d failures: %v", failures, got)
		}
	}
	if got := (retry.Policy{}).After(3); got != 0 {
		t.Errorf("the zero policy waits %v", got)
	}
}

func TestNobodyComesBackBeforeTheTimeAskedFor(t *testing.T) {
	within(t, "asked", func() time.Duration { return retry.Asked(time.Second) }, time.Second, 1250*time.Millisecond)
	if got := retry.Asked(-time.Second); got != 0 {
		t.Errorf("asked for a time in the past: %v", got)
	}
}

func TestASleepEndsInTimeOrWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !retry.Sleep(t.Context(), time.Hour) || time.Since(start) != time.Hour {
			t.Errorf("slept for %v, want an hour", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start = time.Now()
		if retry.Sleep(ctx, time.Hour) || time.Since(start) != time.Minute {
			t.Errorf("slept for %v, want the context's minute", time.Since(start))
		}
		start = time.Now()
		if retry.Sleep(ctx, 0) || !retry.Sleep(t.Context(), -time.Second) || time.Since(start) != 0 {
			t.Error("no time to sleep: want the context's state, at once")
		}
		p := retry.Policy{Min: time.Minute, Max: time.Minute}
		start = time.Now()
		if slept := p.Wait(t.Context(), 1); !slept || time.Since(start) < 30*time.Second ||
			time.Since(start) > time.Minute {
			t.Errorf("a policy's wait took %v", time.Since(start))
		}
	})
}
