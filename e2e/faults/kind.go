// Package faults injects faults into a running system while people talk
// and proves afterwards that nothing was lost. What happens when is a plan that
// follows from a seed alone, so that a run can be made again.
package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/e2e/arena"
)

// Kind is a kind of fault: what is done to what.
type Kind struct {
	// Name is a family and a target: "kill-chat".
	Name string
	// Help says what happens.
	Help string
	// Variants are the ways of doing it, taken in turn.
	Variants []string
	// Missing says why it cannot be done in an arena; nil: it always can.
	Missing func(*arena.Arena) error
	begin   begin
	// held: MySQL is held around the fault's beginning, so that many messages are
	// unacknowledged then.
	held bool
}

// begin begins a fault.
type begin func(context.Context, *arena.Arena, Step) (effect, error)

// effect is a fault at work.
type effect struct {
	// end ends it after a while; nil for one that ends by itself.
	end func() error
	// back says whether what was hit is there again; nil where the arena's own
	// condition tells.
	back func() bool
}

// Family is the first part of the name.
func (k Kind) Family() string {
	family, _, _ := strings.Cut(k.Name, "-")
	return family
}

// programs are the kinds of processes.
var programs = []string{"chat", "gate", "status", "redis", "mysql", "consul"}

// Kinds are all kinds of faults.
var Kinds = kinds()

func kinds() []Kind {
	var all []Kind
	for _, p := range programs {
		all = append(all, Kind{
			Name: "kill-" + p, Help: "SIGKILL; it is started again after a second",
			begin: signal(p, syscall.SIGKILL), held: true,
		})
	}
	for _, p := range programs {
		all = append(all, Kind{Name: "freeze-" + p, Help: "SIGSTOP, later SIGCONT", begin: freeze(p), held: true})
	}
	for _, p := range []string{"chat", "redis", "mysql", "consul"} {
		all = append(all, Kind{
			Name: "restart-" + p, Help: "SIGTERM; it is started again after a second",
			begin: signal(p, syscall.SIGTERM), held: true,
		})
	}
	all = append(all, Kind{Name: "flush-redis", Help: "FLUSHALL", begin: flush})
	for _, pair := range arena.Pairs {
		all = append(all, Kind{
			Name: "net-" + string(pair), Help: "connections of one server closed, reset, swallowed or delayed",
			Variants: []string{"cut", "delay", "hang", "reset"}, begin: network(pair),
		})
	}
	return append(all,
		Kind{
			Name: "relay-frames", Help: "a third of the frames between chat servers dropped, doubled or reordered",
			Variants: []string{"drop", "double", "reorder"}, begin: spoil,
		},
		Kind{
			Name: "disk-full", Help: "MariaDB's disk has no room left",
			begin: fill, Missing: func(a *arena.Arena) error { return a.Disk.Missing },
		},
		Kind{
			Name: "clock-redis", Help: "the clock of Redis jumps an hour ahead, or back, and later to the right time",
			Variants: []string{"ahead", "back"}, begin: jump,
			Missing: func(a *arena.Arena) error { return a.Clock.Missing },
		},
	)
}

// Named finds kinds by names or families; no names are all of them.
func Named(names []string) ([]Kind, error) {
	if len(names) == 0 {
		return Kinds, nil
	}
	var found []Kind
	for _, name := range names {
		exists := false
		for _, k := range Kinds {
			if k.Name != name && k.Family() != name {
				continue
			}
			exists = true
			if !slices.ContainsFunc(found, func(f Kind) bool { return f.Name == k.Name }) {
				found = append(found, k)
			}
		}
		if !exists {
			return nil, fmt.Errorf("there is no fault %q; --list shows them", name)
		}
	}
	return found, nil
}

// among picks what a step is done to.
func among[T any](all []T, s Step) (T, error) {
	if len(all) == 0 {
		var none T
		return none, fmt.Errorf("the arena has nothing for %s", s.Kind.Name)
	}
	return all[s.Target%len(all)], nil
}

// signal sends a signal that ends the program; a new one is started.
func signal(program string, sig syscall.Signal) begin {
	return func(_ context.Context, a *arena.Arena, s Step) (effect, error) {
		p, err := among(a.Of(program), s)
		if err != nil {
			return effect{}, err
		}
		starts := p.Starts()
		return effect{back: func() bool { return p.Starts() > starts }}, p.Signal(sig)
	}
}

func freeze(program string) begin {
	return func(_ context.Context, a *arena.Arena, s Step) (effect, error) {
		p, err := among(a.Of(program), s)
		if err != nil {
			return effect{}, err
		}
		return effect{end: func() error { return p.Signal(syscall.SIGCONT) }}, p.Signal(syscall.SIGSTOP)
	}
}

func flush(ctx context.Context, a *arena.Arena, _ Step) (effect, error) {
	return effect{}, a.Flush(ctx)
}

func network(pair arena.Pair) begin {
	return func(_ context.Context, a *arena.Arena, s Step) (effect, error) {
		w, err := among(a.Wires(pair), s)
		if err != nil {
			return effect{}, err
		}
		do := map[string]func() error{"cut": w.Cut, "reset": w.Reset, "hang": w.Hang, "delay": w.Delay}[s.Variant]
		return effect{end: w.Mend}, do()
	}
}

func spoil(_ context.Context, a *arena.Arena, s Step) (effect, error) {
	return effect{end: func() error { return a.Spoil("") }}, a.Spoil(s.Variant)
}

func fill(_ context.Context, a *arena.Arena, _ Step) (effect, error) {
	return effect{end: a.Disk.Empty}, a.Disk.Fill()
}

// jump makes all that expires in Redis expire at once, or much later.
func jump(_ context.Context, a *arena.Arena, s Step) (effect, error) {
	by := time.Hour
	if s.Variant == "back" {
		by = -by
	}
	return effect{end: func() error { return a.Clock.Step(0) }}, a.Clock.Step(by)
}
