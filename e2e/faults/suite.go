package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/shared/planted"

	"github.com/msrchat/msrchat/e2e/arena"
)

// Config says what to do.
type Config struct {
	// Root is the checkout that the servers are built from, Bin a folder where
	// arena.Build has put them already; one of the two.
	Root, Bin string
	// BuildFlags are more flags for go build ("-race").
	BuildFlags []string
	// TLS has the chat servers speak TLS with people.
	TLS bool
	// Steps are done one after the other, the next one Interval after the last
	// began, or when that has healed. During the last everybody stops talking, so
	// that no later message makes up for what it took. Without steps everybody talks
	// for warmUp and is judged at once.
	Steps    []Step
	Interval time.Duration
	// Duration ends the run early; 0 is without limit.
	Duration time.Duration
	// Rate is how many messages a second Clients people type together.
	Rate    float64
	Clients int
	// Devices is how many each has, between which what is set must cross; 1 if 0.
	Devices int
	Seed    uint64
	Bug     planted.Bug
	// Guest is told what happens; nil for nobody.
	Guest Guest
	// Enough ends the steps early when it is closed; what was done until then is
	// judged.
	Enough <-chan struct{}
	// Output gets a line for each fault; nil for none.
	Output io.Writer
	// Evidence is the folder for what is kept of a run that failed; "" keeps
	// nothing.
	Evidence string
}

const (
	// enough messages are to be unacknowledged at a fault's beginning.
	enough = 20
	// holdLimit is how long MySQL is held for that at most.
	holdLimit = 2 * time.Second
	// holdAfter is how long it stays held behind the beginning, so that what is
	// hit still has them when it ends or begins to drain, which on a busy machine
	// takes a while; a drain waits three seconds for them.
	holdAfter = time.Second
	// healLimit is how long the system may take to be whole again.
	healLimit = 60 * time.Second
	// slow is from when on it is told what was missing until the end.
	slow = 8 * time.Second
	// quietLimit is how long the last messages may take to be acknowledged.
	quietLimit = 60 * time.Second
	// warmUp is how long people talk before the first fault.
	warmUp = 2 * time.Second
	// look is how often a condition is looked at.
	look = 20 * time.Millisecond
)

// Run starts an arena, brings people there, does the steps and judges. The
// error says that it could not; what the system did wrong is in the result. When
// ctx ends, the steps end and what was done until then is judged.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Output == nil {
		cfg.Output = io.Discard
	}
	a, err := arena.Start(ctx, arena.Config{
		Root: cfg.Root, Bin: cfg.Bin, BuildFlags: cfg.BuildFlags, Bug: cfg.Bug, TLS: cfg.TLS, Output: cfg.Output,
	})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	notice := context.AfterFunc(ctx, func() {
		fmt.Fprintln(cfg.Output, "no more faults; what was done is judged (a second Ctrl-C ends that)")
	})
	defer notice()
	// The system is healed and judged also after Ctrl-C.
	cfg.Enough = ctx.Done()
	return In(context.WithoutCancel(ctx), a, cfg)
}

// In is Run in an arena that is there. When ctx ends, it ends without judging.
func In(ctx context.Context, a *arena.Arena, cfg Config) (*Result, error) {
	if cfg.Output == nil {
		cfg.Output = io.Discard
	}
	if cfg.Guest == nil {
		cfg.Guest = nobody{}
	}
	steps, enough := context.WithCancel(ctx)
	defer enough()
	go func() {
		select {
		case <-cfg.Enough:
			enough()
		case <-steps.Done():
		}
	}()
	p, err := invite(steps, a, cfg)
	if err != nil {
		return nil, err
	}
	if err := cfg.Guest.Arrive(ctx, p.crowd); err != nil {
		return nil, errors.Join(err, p.leave())
	}
	s := &suite{cfg: cfg, arena: a, people: p, began: time.Now(), result: &Result{Seed: cfg.Seed, Bug: cfg.Bug}}
	return s.run(ctx, steps)
}

// suite is one run. Its goroutine owns all of it.
type suite struct {
	cfg    Config
	arena  *arena.Arena
	people *people
	began  time.Time
	result *Result
}

// run ends the faults with steps, and everything with ctx.
func (s *suite) run(ctx, steps context.Context) (*Result, error) {
	talk, silence := context.WithCancel(ctx)
	defer silence()
	talked := make(chan error, 1)
	go func() { talked <- s.people.crowd.Talk(talk, s.cfg.Rate) }()
	stopTyping := func() {
		silence()
		s.cfg.Guest.StopTyping()
	}

	s.steps(ctx, steps, stopTyping)
	s.result.Interrupted = steps.Err() != nil
	stopTyping()
	err := <-talked
	s.result.Took = time.Since(s.began)

	settle, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	quiet, unrest := s.people.crowd.Quiet(settle, arena.Heartbeat)
	if unrest != nil {
		s.result.fail("the end", unrest)
	}
	if lacks := s.cfg.Guest.Leave(ctx); lacks != nil {
		s.result.fail("the guest", lacks)
	}
	wait(ctx, time.Until(quiet.Add(arena.Heartbeat+look))) // what the devices are held to
	s.people.crowd.Close()
	s.result.Counts = s.people.crowd.Counts()
	for _, crash := range s.arena.Crashes() {
		s.result.fail("a server crashed", crash)
	}
	report, rows, failed := s.people.judge(ctx, quiet, 1)
	s.result.Report = report
	if err := errors.Join(err, failed); err != nil {
		return s.result, errors.Join(err, s.people.leave())
	}
	if s.result.Err() != nil && s.cfg.Evidence != "" {
		err = s.keep(rows)
	}
	return s.result, errors.Join(err, s.people.leave())
}

// steps does them until one does not heal or ctx ends. What has begun heals in
// the time of life.
func (s *suite) steps(life, ctx context.Context, stopTyping func()) {
	pause := time.NewTimer(warmUp)
	defer pause.Stop()
	next := func() bool {
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		return ctx.Err() == nil // both may have been ready
	}
	steps := s.possible()
	if len(steps) == 0 {
		next()
	}
	for i, step := range steps {
		if !next() {
			return
		}
		pause.Reset(s.cfg.Interval)
		over := s.cfg.Duration > 0 && time.Since(s.began)+s.cfg.Interval > s.cfg.Duration
		last := over || i == len(steps)-1
		atEnd := func() {}
		if last {
			atEnd = stopTyping
		}
		done := s.step(life, ctx, step, atEnd)
		s.cfg.Guest.Over(done)
		s.result.Done = append(s.result.Done, done)
		fmt.Fprintf(s.cfg.Output, "%7.1f s  %3d/%d  %s\n",
			time.Since(s.began).Seconds(), step.N, len(s.cfg.Steps), s.line(done))
		if done.Err != nil {
			s.result.fail(step.String(), done.Err)
		}
		if done.Err != nil || last {
			return
		}
	}
}

// possible are the steps that can be done in this arena; the result tells which
// cannot.
func (s *suite) possible() []Step {
	return slices.DeleteFunc(slices.Clone(s.cfg.Steps), func(step Step) bool {
		if step.Kind.Missing == nil {
			return false
		}
		why := step.Kind.Missing(s.arena)
		if why != nil {
			s.result.leaveOut(step.Kind, why)
		}
		return why != nil
	})
}

func (s *suite) line(d Done) string {
	counts := s.people.crowd.Counts()
	what := fmt.Sprintf("%-34s whole again after %4.1f s", d.Step, d.Healed.Seconds())
	if d.Missing != "" && d.Healed > slow {
		what += " (at last missing: " + d.Missing + ")"
	}
	if d.Step.Kind.held {
		what += fmt.Sprintf(", %d unacknowledged when it began", d.Unacknowledged)
	}
	if d.Err != nil {
		what = fmt.Sprintf("%-34s NOT HEALED: %v", d.Step, d.Err)
	}
	return fmt.Sprintf("%s (%d typed, %d held back)", what, counts.Typed, counts.HeldBack+counts.Missed)
}

// step does one fault and waits until the system is whole again.
func (s *suite) step(life, ctx context.Context, step Step, stopTyping func()) Done {
	done := Done{Step: step}
	release := func() {}
	if step.Kind.held {
		release = s.hold(step.Kind)
	}
	done.Unacknowledged = s.people.crowd.Unsettled()
	if step.Kind.held { // those are the last
		stopTyping()
	}
	effect, err := step.Kind.begin(life, s.arena, step)
	began := time.Now()
	s.cfg.Guest.Begun(step, done.Unacknowledged)
	if err != nil {
		release()
		done.Err = fmt.Errorf("begin: %w", err)
		return done
	}
	wait(ctx, holdAfter)
	release()
	if effect.end != nil {
		wait(ctx, step.Hold)
		stopTyping()
		if err := effect.end(); err != nil {
			done.Err = fmt.Errorf("end: %w", err)
			return done
		}
		began = time.Now()
	}
	stopTyping()
	done.Missing, done.Err = s.heal(life, effect)
	done.Healed = time.Since(began)
	return done
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// hold stops MySQL until enough messages wait for it; what it returns lets it go
// on, unless it is to be frozen anyway.
func (s *suite) hold(k Kind) (release func()) {
	mysql := s.arena.Of("mysql")[0]
	if mysql.Signal(syscall.SIGSTOP) != nil {
		return func() {}
	}
	for deadline := time.Now().Add(holdLimit); s.people.crowd.Unsettled() < enough && time.Now().Before(deadline); {
		wait(context.Background(), look)
	}
	if k.Name == "freeze-mysql" {
		return func() {}
	}
	return func() { _ = mysql.Signal(syscall.SIGCONT) } // it may be what was killed
}

// heal waits until the system is whole: everything answers, everybody is online,
// and a message passes between every two chat servers. It tells what was missing
// until the end.
func (s *suite) heal(ctx context.Context, e effect) (missing string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	for {
		switch {
		case e.back != nil && !e.back():
			missing = "it was not started again"
		case !s.people.online():
			missing = "somebody is offline"
		default:
			err := s.arena.Whole(ctx)
			if err == nil {
				err = s.people.visit(ctx)
			}
			if err == nil {
				return missing, nil
			}
			missing = err.Error()
		}
		wait(ctx, look)
		if ctx.Err() != nil {
			return missing, fmt.Errorf("not whole after %v: %s", healLimit, missing)
		}
	}
}
