package demo

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
)

func state(change func(*State)) State {
	s := State{
		Seed: 42, Began: time.Now().Add(-23 * time.Second), Of: time.Minute, Looked: time.Now(),
		Crowd: Counts{1204, 1180, 2350}, People: Counts{24, 22, 44},
		Faults: []Fault{
			{What: "kill -9 mysql", Unacknowledged: 21, Result: "whole after 1.7 s"},
			{What: "freeze-chat chat-1", Unacknowledged: 20, Began: time.Now()},
		},
	}
	change(&s)
	return s
}

func TestView(t *testing.T) {
	over := func(s *State) { s.Faults[1].Result = "whole after 0.4 s" }
	for name, c := range map[string]struct {
		state State
		want  []string // in this order
		not   string
	}{
		"at a fault": {
			state(func(*State) {}),
			[]string{
				"seed 42", "23s of 1m0s", "q verdict now", "NOW freeze-chat chat-1 · 20 unacknowledged · 0.",
				"20 devices", "1204", "1180", "2350", "ann and ben", "lost 0  doubled 0  reordered 0  checked 0 s ago",
				"kill -9 mysql", "21  whole after 1.7 s", "freeze-chat chat-1", "20  …",
			},
			"ALL IS WELL",
		},
		"in between": {
			state(func(s *State) { over(s); s.Looked = time.Time{} }),
			[]string{"ALL IS WELL", "20 devices", "lost 0  doubled 0  reordered 0  not checked yet", "freeze-chat"},
			"NOW",
		},
		"the checker found something": {
			state(func(s *State) { s.Broken = Counts{3, 1, 2} }),
			[]string{"lost 3  doubled 1  reordered 2"},
			"",
		},
		"the end begins": {
			state(func(s *State) { over(s); s.Settling = true }),
			[]string{"SETTLING nobody types any more"},
			"",
		},
		"it did not heal": {
			state(func(s *State) { s.Faults[1].Result = notHealed + ": not whole after 1m" }),
			[]string{"freeze-chat chat-1 NOT HEALED: not whole after 1m"},
			"ALL IS WELL",
		},
		"all promises kept": {
			state(func(s *State) { over(s); s.Kept, s.Verdict = true, []string{"NOTHING WAS LOST", "each", "again"} }),
			[]string{
				"any key, leaves", "NOTHING WAS LOST", "lost 0", "checked 0 s ago", "each", "again", "kill -9 mysql",
			},
			"verdict now",
		},
		"a promise broken": {
			state(func(s *State) { s.Broken, s.Verdict = Counts{3}, []string{"A PROMISE WAS BROKEN", "3 lost"} }),
			[]string{"any key, leaves", "A PROMISE WAS BROKEN", "lost 3", "3 lost"},
			"NOTHING WAS LOST",
		},
	} {
		t.Run(name, func(t *testing.T) {
			frame := ansi.Strip(view(c.state, 100, 16))
			rest := frame
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("%q is not in its place:\n%s", want, frame)
					continue
				}
				rest = after
			}
			if c.not != "" && strings.Contains(frame, c.not) {
				t.Errorf("%q is there:\n%s", c.not, frame)
			}
		})
	}
}

// Whatever the size, nothing is wider or higher, and nothing panics.
func TestViewFits(t *testing.T) {
	verdict := []string{strings.Repeat("long ", 50), "好" + strings.Repeat("宽", 80), "b", "c"}
	many := func(s *State) {
		for i := range 40 {
			s.Faults = append(s.Faults, Fault{What: strings.Repeat("x", i), Result: "whole"})
		}
	}
	for _, s := range []State{{}, state(func(*State) {}), state(func(s *State) { s.Verdict = verdict }), state(many)} {
		for _, width := range []int{0, 1, 20, 80, 140, 300} {
			for height := range 20 {
				lines := strings.Split(view(s, width, height), "\n")
				if len(lines) > max(height, 1) {
					t.Errorf("%d lines at %dx%d", len(lines), width, height)
				}
				for _, l := range lines {
					if w := ansi.StringWidth(l); w > width {
						t.Errorf("a line of %d columns at %dx%d: %q", w, width, height, l)
					}
				}
			}
		}
	}
}

// The newest faults stay, where not all have room.
func TestTheNewestFaultsAreShown(t *testing.T) {
	s := State{}
	for i := range 9 {
		s.Faults = append(s.Faults, Fault{What: fmt.Sprint("fault ", i), Result: "whole"})
	}
	text := ansi.Strip(view(s, 80, 15))
	if strings.Contains(text, "fault 5") || !strings.Contains(text, "fault 6") || !strings.Contains(text, "fault 8") {
		t.Errorf("in 15 lines:\n%s", text)
	}
}
