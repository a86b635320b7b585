package faults

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/msrchat/msrchat/e2e/arena"
)

// Step is one fault of a plan.
type Step struct {
	N       int
	Kind    Kind
	Variant string // "" where the kind has none
	// Target picks one of what there is: the remainder by its number.
	Target int
	// Hold is how long the fault lasts, where it does not end by itself.
	Hold time.Duration
}

func (s Step) String() string {
	name := s.Kind.Name
	if s.Variant != "" {
		name += " " + s.Variant
	}
	return fmt.Sprintf("%s #%d %.1fs", name, s.Target, s.Hold.Seconds())
}

// On names what the step is done to in an arena: "chat-2"; "" where that is no
// single process or wire.
func (s Step) On(a *arena.Arena) string {
	_, target, _ := strings.Cut(s.Kind.Name, "-")
	if p, err := among(a.Of(target), s); err == nil {
		return p.Name
	}
	if w, err := among(a.Wires(arena.Pair(target)), s); err == nil {
		return w.Name
	}
	return ""
}

// Faults last from shortest to longest: long enough that the parts notice (links
// between chat servers after three seconds of silence), and some that are not.
const (
	shortest = 500 * time.Millisecond
	longest  = 4 * time.Second
)

// Plan makes n steps from a seed, and from nothing else: rounds in which each
// kind comes once, in an order of its own.
func Plan(seed uint64, kinds []Kind, n int) []Step {
	random := rand.New(rand.NewPCG(seed, 0)) // the same on every machine
	steps := make([]Step, 0, n)
	for round := 0; len(steps) < n && len(kinds) > 0; round++ {
		for _, at := range random.Perm(len(kinds)) {
			if len(steps) == n {
				break
			}
			s := Step{
				N: len(steps) + 1, Kind: kinds[at], Target: random.IntN(1000),
				Hold: shortest + time.Duration(random.Int64N(int64(longest-shortest))),
			}
			if v := s.Kind.Variants; len(v) > 0 {
				s.Variant = v[(round+at)%len(v)]
			}
			steps = append(steps, s)
		}
	}
	return steps
}

// Print shows a plan.
func Print(w io.Writer, steps []Step) {
	for _, s := range steps {
		fmt.Fprintf(w, "%4d  %s\n", s.N, s)
	}
}
