package faults

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/shared/planted"
)

// Trial is a short run that shows whether the checker finds a planted bug: the
// faults that make the bug do harm, and what the checker has to call it.
type Trial struct {
	Bug planted.Bug // "" is the trial of the checker itself: it must find nothing
	// faults are kinds, some with a variant; none where the bug does harm by itself.
	faults []string
	// pause is what lies between two faults, rate how much is typed; a second and
	// 200 if 0.
	pause time.Duration
	rate  float64
	// devices is how many each person has, 1 if 0.
	devices int
	// Expect is any of what the checker has to find.
	Expect []check.Kind
}

// Trials are one for each bug, and one without.
var Trials = []Trial{
	{faults: []string{"kill-chat", "freeze-mysql", "flush-redis", "relay-frames drop", "restart-chat"}, devices: 2},
	// The process takes with it what it had acknowledged.
	{Bug: planted.AckBeforeCommit, faults: []string{"kill-chat", "kill-chat"}, Expect: []check.Kind{check.Lost}},
	// The pushes of a conversation's last message are dropped.
	{Bug: planted.RepairOff, faults: []string{"relay-frames drop"}, Expect: []check.Kind{check.Missing, check.Late}},
	// Clients of the dead server send again what it had committed.
	{
		Bug: planted.DedupeOff, faults: []string{"kill-chat", "kill-chat"},
		Expect: []check.Kind{check.Doubled, check.Untyped},
	},
	// People go on typing until they are asked to leave.
	{
		Bug: planted.DrainWithoutFlush, faults: []string{"restart-chat", "restart-chat"},
		Expect: []check.Kind{check.Lost},
	},
	// Several messages of a device wait in one lane.
	{Bug: planted.LanesReordered, faults: []string{"freeze-mysql"}, Expect: []check.Kind{check.Reordered}},
	// 500 a second over three servers: each has had its thousandth after seven
	// seconds.
	{
		Bug: planted.DropThousandth, faults: []string{"flush-redis", "flush-redis"}, pause: 8 * time.Second, rate: 500,
		Expect: []check.Kind{check.Lost},
	},
	// Of each conversation one member is pushed nothing by the other servers. Visitors
	// after a fault would wait for the periodic check, which heals it.
	{Bug: planted.StaleMembers, Expect: []check.Kind{check.Missing, check.Late}},
	// What one device sets the others of its person do not learn.
	{Bug: planted.StateNotTold, faults: []string{"flush-redis"}, devices: 2, Expect: []check.Kind{check.Stale}},
}

// String names the trial.
func (t Trial) String() string {
	if t.Bug == "" {
		return "no bug"
	}
	return string(t.Bug)
}

// steps are the trial's faults as a plan.
func (t Trial) steps() []Step {
	steps := make([]Step, len(t.faults))
	for i, f := range t.faults {
		name, variant, _ := strings.Cut(f, " ")
		at := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == name })
		steps[i] = Step{N: i + 1, Kind: Kinds[at], Variant: variant, Target: i, Hold: 1500 * time.Millisecond}
	}
	return steps
}

// Run runs the trial with servers from a folder; see arena.Build. The error says
// that it could not; Verdict says what came of it.
func (t Trial) Run(ctx context.Context, bin string, out io.Writer) (*Result, error) {
	cfg := Config{
		Bin: bin, Steps: t.steps(), Interval: t.pause, Rate: t.rate, Clients: 24, Devices: t.devices, Seed: 1,
		Bug: t.Bug, Output: out,
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	if cfg.Rate == 0 {
		cfg.Rate = 200
	}
	return Run(ctx, cfg)
}

// Verdict is nil if the checker found what it had to find, and nothing where
// there was nothing.
func (t Trial) Verdict(r *Result) error {
	if t.Bug == "" {
		return r.Err()
	}
	for _, k := range t.Expect {
		if r.Report.Count(k) > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s was not found: want any of %v, the checker says: %w", t.Bug, t.Expect, r.Err())
}
