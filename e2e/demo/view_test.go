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
		Seed: 42, Phase: Talking, Since: 23 * time.Second, Of: time.Minute, Devices: 20,
		Crowd: Counts{1204, 1180, 2350}, People: Counts{24, 22, 44}, Checked: Checked{Ago: 1500 * time.Millisecond},
		Faults: []Fault{
			{What: "kill -9 mysql", Unacknowledged: 21, For: 1700 * time.Millisecond, Whole: true},
			{What: "freeze chat-1 for 2.1 s", Unacknowledged: 20, For: 400 * time.Millisecond},
		},
	}
	change(&s)
	return s
}

func TestView(t *testing.T) {
	for name, c := range map[string]struct {
		state   State
		width   int
		focused bool
		want    []string // in this order
		not     string
	}{
		"at a fault": {
			state(func(*State) {}),
			140, true,
			[]string{"seed 42", "0:23 of 1:00", "q verdict now", "NOW freeze chat-1 for 2.1 s · 20 unacknowledged · 0.4 s", "kill -9 mysql", "21  1.7 s", "freeze chat-1", "20  …", "20 devices", "1,204", "1,180", "2,350", "ann and ben", "lost 0  doubled 0  reordered 0  checked 1 s ago"},
			"ALL IS WELL",
		},
		"in between": {
			state(func(s *State) { s.Faults[1].Whole, s.Checked.Ago = true, -1 }),
			80, false,
			[]string{"ALL IS WELL", "20 devices", "lost 0  doubled 0  reordered 0  not checked yet", "freeze chat-1"},
			"q verdict now",
		},
		"the checker found something": {
			state(func(s *State) { s.Checked = Checked{Lost: 3, Doubled: 1, Reordered: 2} }),
			140, true,
			[]string{"lost 3  doubled 1  reordered 2"},
			"",
		},
		"the end begins": {
			state(func(s *State) { s.Phase, s.Faults[1].Whole = Settling, true }),
			140, true,
			[]string{"SETTLING nobody types any more"},
			"",
		},
		"it did not heal": {
			state(func(s *State) { s.Faults[1].Err = "not whole after 1m" }),
			140, true,
			[]string{"NOT HEALED freeze chat-1 for 2.1 s: not whole after 1m"},
			"ALL IS WELL",
		},
		"all promises kept": {
			state(func(s *State) {
				s.Phase, s.Checked.Final = Judged, true
				s.Verdict = &Verdict{Kept: true, Headline: "NOTHING WAS LOST", Lines: []string{"each once"}, Replay: "./again --seed 42"}
			}),
			140, true,
			[]string{"any key leaves", "NOTHING WAS LOST", "lost 0", "checked at the end", "each once", "the same faults again: ./again --seed 42", "kill -9 mysql"},
			"F4",
		},
		"a promise broken": {
			state(func(s *State) {
				s.Phase, s.Checked = Judged, Checked{Lost: 3, Final: true}
				s.Verdict = &Verdict{Headline: "A PROMISE WAS BROKEN", Lines: []string{"3 lost"}}
			}),
			100, false,
			[]string{"F4, then any key, leaves", "A PROMISE WAS BROKEN", "lost 3", "3 lost"},
			"any key leaves",
		},
	} {
		t.Run(name, func(t *testing.T) {
			frame := ansi.Strip(strings.Join(view(c.state, c.width, 15, c.focused), "\n"))
			rest := frame
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					// Beside each other, so the order of lines is not that of the list.
					if !strings.Contains(frame, want) {
						t.Errorf("%q is not there:\n%s", want, frame)
					}
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
	verdict := &Verdict{Headline: strings.Repeat("long ", 50), Lines: []string{"好" + strings.Repeat("宽", 80), "b", "c"}}
	for _, s := range []State{{}, state(func(*State) {}), state(func(s *State) { s.Verdict = verdict }), state(func(s *State) {
		for i := range 40 {
			s.Faults = append(s.Faults, Fault{What: strings.Repeat("x", i), Whole: true})
		}
	})} {
		for _, width := range []int{0, 1, 20, 80, 103, 104, 140, 300} {
			for height := range 20 {
				lines := view(s, width, height, true)
				if len(lines) > height {
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
func TestFaultLinesKeepTheNewest(t *testing.T) {
	s := State{}
	for i := range 9 {
		s.Faults = append(s.Faults, Fault{What: fmt.Sprint("fault ", i), Whole: true})
	}
	text := ansi.Strip(strings.Join(faultLines(s, 4), "\n"))
	if strings.Contains(text, "fault 5") || !strings.Contains(text, "fault 6") || !strings.Contains(text, "fault 8") {
		t.Errorf("in four lines:\n%s", text)
	}
}

func TestPlainTellsEachThingOnce(t *testing.T) {
	var b strings.Builder
	p := &plain{w: &b}
	steps := []State{
		state(func(s *State) { s.Faults = s.Faults[:0]; s.Since = time.Second }),
		state(func(*State) {}),
		state(func(*State) {}),
		state(func(s *State) { s.Faults[1].Whole, s.Faults[1].For = true, 900*time.Millisecond }),
		state(func(s *State) { s.Faults[1].Whole, s.Phase = true, Settling }),
		state(func(s *State) {
			s.Faults[1].Whole, s.Phase, s.Verdict = true, Judged, &Verdict{Headline: "NOTHING WAS LOST", Replay: "again"}
		}),
	}
	for _, s := range steps {
		p.show(s)
	}
	for _, once := range []string{
		"kill -9 mysql: 21 messages unacknowledged", "kill -9 mysql: whole again after 1.7 s", "freeze chat-1 for 2.1 s: 20 messages",
		"freeze chat-1 for 2.1 s: whole again after 0.9 s", "nobody types any more", "NOTHING WAS LOST",
	} {
		if n := strings.Count(b.String(), once); n != 1 {
			t.Errorf("%q is there %d times:\n%s", once, n, &b)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
