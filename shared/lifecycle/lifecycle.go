// Package lifecycle runs the parts of a process together and stops them in
// reverse order: the part that was added last stops first, so that a part
// outlives everything that depends on it.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Group is an ordered list of parts. The zero value is empty and ready. Parts
// are added before Run, from one goroutine; Run is called once.
type Group struct {
	parts []*part
}

// part is either something that runs or something that is called to stop.
type part struct {
	name string
	run  func(ctx context.Context) error // nil for a closer
	stop func(ctx context.Context) error // nil for a runner

	cancel context.CancelFunc // ends the runner's context
	ended  chan struct{}      // closed once the runner returned
}

// result is how a runner ended.
type result struct {
	part *part
	err  error
}

// Go adds a runner. Run starts all runners at once. At the stop a runner's
// context ends when its turn comes, not before; it then has to return. An error
// before the stop stops the whole group; nil only means that this runner is
// done.
func (g *Group) Go(name string, run func(ctx context.Context) error) {
	g.parts = append(g.parts, &part{name: name, run: run})
}

// OnStop adds a closer, which is called when its turn comes. A runner that ends
// only by its closer (a server's Serve) is added before that closer.
func (g *Group) OnStop(name string, stop func(ctx context.Context) error) {
	g.parts = append(g.parts, &part{name: name, stop: stop})
}

// Run runs the group until ctx ends, a runner fails, or every runner is done,
// then stops the parts in reverse order within grace. It blocks until that is
// over and returns nil for a clean stop.
//
// A part that has not stopped when grace is over is abandoned and named in the
// error; the parts below it still get their turn, with contexts that have ended.
func (g *Group) Run(ctx context.Context, grace time.Duration) error {
	// Runners keep the values of ctx but not its end: they stop in order.
	base := context.WithoutCancel(ctx)
	results := make(chan result, len(g.parts))
	runners := g.start(base, results)

	first := wait(ctx, results, runners)
	return errors.Join(first, g.stop(base, grace, results))
}

// wait blocks until ctx ends, a runner fails, or all of them are done. A group
// of closers alone waits for ctx.
func wait(ctx context.Context, results <-chan result, runners int) error {
	for left := runners; left > 0 || runners == 0; left-- {
		select {
		case <-ctx.Done():
			return nil
		case r := <-results:
			if r.err != nil {
				return fmt.Errorf("%s: %w", r.part.name, r.err)
			}
		}
	}
	return nil
}

// start starts the runners and returns how many there are.
func (g *Group) start(base context.Context, results chan<- result) int {
	runners := 0
	for _, p := range g.parts {
		if p.run == nil {
			continue
		}
		runners++
		var runCtx context.Context
		runCtx, p.cancel = context.WithCancel(base)
		p.ended = make(chan struct{})
		go func() {
			err := p.run(runCtx)
			results <- result{part: p, err: err}
			close(p.ended)
		}()
	}
	return runners
}

// stop ends every part in reverse order and collects what went wrong.
func (g *Group) stop(base context.Context, grace time.Duration, results <-chan result) error {
	ctx, cancel := context.WithTimeout(base, grace)
	defer cancel()
	var problems []error
	for i := len(g.parts) - 1; i >= 0; i-- {
		p := g.parts[i]
		var over bool
		var err error
		if p.run != nil {
			p.cancel()
			over = within(ctx, p.ended)
		} else {
			over, err = call(ctx, p.stop)
		}
		switch {
		case !over:
			problems = append(problems, fmt.Errorf("stop %s: still busy after %v", p.name, grace))
		case err != nil:
			problems = append(problems, fmt.Errorf("stop %s: %w", p.name, err))
		}
	}
	// Errors of runners that were asked to stop. That their contexts ended is not
	// reported.
	for {
		select {
		case r := <-results:
			if r.err != nil && !errors.Is(r.err, context.Canceled) {
				problems = append(problems, fmt.Errorf("%s: %w", r.part.name, r.err))
			}
		default:
			return errors.Join(problems...)
		}
	}
}

// UnlessStopped returns err, or nil if ctx has ended: what a stop interrupts has
// not failed.
func UnlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the stop explains it
	}
	return err
}

// lastMoment is what a part still gets when its turn comes after grace is over:
// enough to close a file or a socket, too short to wait for a client.
const lastMoment = 50 * time.Millisecond

// call calls a closer and waits for it until ctx ends, and a last moment longer.
func call(ctx context.Context, stop func(ctx context.Context) error) (over bool, err error) {
	done := make(chan struct{})
	var result error
	go func() {
		result = stop(ctx)
		close(done)
	}()
	if !within(ctx, done) {
		return false, nil
	}
	return true, result
}

// within waits for done until ctx ends, and a last moment longer.
func within(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	last := time.NewTimer(lastMoment)
	defer last.Stop()
	select {
	case <-done:
		return true
	case <-last.C:
		return false
	}
}
