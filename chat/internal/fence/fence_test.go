package fence_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/fence"
)

func TestCutOnlyWhenBothAreAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		database, consul bool // away
		want             bool
	}{
		{"both answer", false, false, false},
		{"no database", true, false, false},
		{"no Consul", false, true, false},
		{"neither", true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var database, consul atomic.Bool
			database.Store(c.database)
			consul.Store(c.consul)
			var asked, cuts, heals atomic.Int64
			ask := func(away *atomic.Bool) func(context.Context) error {
				return func(context.Context) error {
					asked.Add(1)
					if away.Load() {
						return errors.New("away")
					}
					return nil
				}
			}
			f := fence.New(fence.Options{
				Database: ask(&database),
				Catalog:  ask(&consul),
				Patience: 100 * time.Millisecond,
				Logger:   slog.New(slog.DiscardHandler),
				Cut:      func() { cuts.Add(1) },
				Healed:   func() { heals.Add(1) },
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- f.Run(ctx) }()
			before := asked.Load()
			testenv.Until(t, "it was asked several times", func() bool { return asked.Load() >= before+6 })
			if f.IsCut() != c.want || cuts.Load() > 1 {
				t.Errorf("cut: %v, %d times", f.IsCut(), cuts.Load())
			}
			if c.want {
				consul.Store(false) // one of them is enough
				testenv.Until(t, "healed", func() bool { return !f.IsCut() && heals.Load() == 1 })
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAShortOutageCutsNobodyOff(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	ask := func(context.Context) error {
		if n := asked.Add(1); n > 2 && n <= 4 { // both fail once, since they are asked together
			return errors.New("away")
		}
		return nil
	}
	f := fence.New(fence.Options{
		Database: ask,
		Catalog:  ask,
		Patience: 5 * time.Second,
		Logger:   slog.New(slog.DiscardHandler),
		Cut:      func() { t.Error("cut after one failure") },
		Healed:   func() { t.Error("healed and was not cut") },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	testenv.Until(t, "it answers again", func() bool { return asked.Load() >= 6 })
	cancel()
	if err := <-ended; err != nil || f.IsCut() {
		t.Errorf("%v, cut: %v", err, f.IsCut())
	}
}

// One that hangs counts like one that refuses, and the fence does not hang with it.
func TestOneThatHangsIsAway(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	cut := make(chan struct{})
	f := fence.New(fence.Options{
		Database: hang,
		Catalog:  hang,
		Patience: time.Millisecond,
		Logger:   slog.New(slog.DiscardHandler),
		Cut:      func() { close(cut) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	<-cut
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The fence waits for two that hang at the same time, so that a server is cut off no
// later than the patience and one question after the last answer.
func TestThePatienceCountsFromTheLastAnswer(t *testing.T) {
	t.Parallel()
	var hanging atomic.Bool
	asked := make(chan struct{}, 100)
	ask := func(ctx context.Context) error {
		if !hanging.Load() {
			asked <- struct{}{}
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	const patience = 3 * time.Second
	cut := make(chan struct{})
	f := fence.New(fence.Options{
		Database: ask,
		Catalog:  ask,
		Patience: patience,
		Logger:   slog.New(slog.DiscardHandler),
		Cut:      func() { close(cut) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	<-asked
	hanging.Store(true)
	began := time.Now()
	<-cut
	// A question takes two seconds at most, and the next one begins a second after it
	// or at once.
	if took := time.Since(began); took < patience-time.Second || took > patience+4*time.Second {
		t.Errorf("cut after %v, want about %v", took, patience)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
