package lifecycle_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/shared/lifecycle"
)

// journal collects what happened; safe for concurrent use.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) runner(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name)
		return ctx.Err()
	}
}

func (j *journal) closer(name string) func(context.Context) error {
	return func(context.Context) error { j.add(name); return nil }
}

func TestPartsStopInReverseOrder(t *testing.T) {
	var j journal
	var g lifecycle.Group
	g.OnStop("database", j.closer("database"))
	g.Go("writer", j.runner("writer"))
	g.OnStop("server", j.closer("server"))
	g.Go("front", j.runner("front"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx, 10*time.Second); err != nil {
		t.Fatalf("a clean stop answered %v", err)
	}
	if diff := cmp.Diff([]string{"front", "server", "writer", "database"}, j.lines); diff != "" {
		t.Error(diff)
	}
}

func TestAnErrorOfAStopIsNone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := errors.New("the database does not answer")
	if got := lifecycle.UnlessStopped(ctx, err); !errors.Is(got, err) {
		t.Errorf("before the stop: %v", got)
	}
	cancel()
	if got := lifecycle.UnlessStopped(ctx, err); got != nil {
		t.Errorf("after the stop: %v", got)
	}
}

func TestTheFirstErrorStopsAll(t *testing.T) {
	var j journal
	var g lifecycle.Group
	broken := errors.New("port taken")
	g.Go("steady", j.runner("steady"))
	g.Go("listener", func(context.Context) error { return broken })
	err := g.Run(t.Context(), 10*time.Second)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "listener: port taken") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"steady"}, j.lines); diff != "" {
		t.Error(diff)
	}
}

func TestRunEndsWhenEveryRunnerIsDone(t *testing.T) {
	var j journal
	var g lifecycle.Group
	g.OnStop("closer", j.closer("closer"))
	g.Go("once", func(context.Context) error { return nil })
	if err := g.Run(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"closer"}, j.lines); diff != "" {
		t.Error(diff)
	}
}

func TestASlowPartIsNamedAndTheRestStillStops(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	for _, kind := range []string{"closer", "runner"} {
		t.Run(kind, func(t *testing.T) {
			var j journal
			var g lifecycle.Group
			hang := func(context.Context) error { <-forever; return nil }
			g.OnStop("first", j.closer("first"))
			if kind == "closer" {
				g.OnStop("sluggard", hang)
			} else {
				g.Go("sluggard", hang)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := g.Run(ctx, 10*time.Millisecond)
			if err == nil || !strings.Contains(err.Error(), "stop sluggard: still busy after 10ms") {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff([]string{"first"}, j.lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrorsWhileStoppingAreKept(t *testing.T) {
	var g lifecycle.Group
	flush, commit := errors.New("flush"), errors.New("commit")
	g.OnStop("cache", func(context.Context) error { return flush })
	g.Go("writer", func(ctx context.Context) error { <-ctx.Done(); return commit })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := g.Run(ctx, 10*time.Second)
	if !errors.Is(err, flush) || !errors.Is(err, commit) {
		t.Errorf("got %v, want both", err)
	}
}

type key struct{}

func TestContextsKeepTheirValuesAndHaveADeadlineOnlyAtTheStop(t *testing.T) {
	var g lifecycle.Group
	g.OnStop("closer", func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok || ctx.Value(key{}) != "kept" {
			t.Error("closer: no deadline or no value")
		}
		return nil
	})
	g.Go("runner", func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); ok || ctx.Value(key{}) != "kept" {
			t.Error("runner: a deadline or no value")
		}
		return nil
	})
	if err := g.Run(context.WithValue(t.Context(), key{}, "kept"), time.Second); err != nil {
		t.Error(err)
	}
}
