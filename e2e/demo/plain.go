package demo

import (
	"fmt"
	"io"
	"time"
)

// plainEvery is how often counters are printed while nothing else happens.
const plainEvery = 5 * time.Second

// plain prints what happens as lines, for where there is no screen. One
// goroutine uses it.
type plain struct {
	w       io.Writer
	begun   int // faults of which it printed the beginning
	over    int // and the end
	settled bool
	counted time.Duration
}

// show prints what is new in a state.
func (p *plain) show(s State) {
	at := func(format string, args ...any) {
		fmt.Fprintf(p.w, "%6.1f s  %s\n", s.Since.Seconds(), fmt.Sprintf(format, args...))
	}
	for i, f := range s.Faults {
		if i >= p.begun {
			p.begun++
			at("%s: %d messages unacknowledged", f.What, f.Unacknowledged)
		}
		if i >= p.over && (f.Whole || f.Err != "") {
			p.over++
			if f.Err != "" {
				at("%s: NOT HEALED: %s", f.What, f.Err)
			} else {
				at("%s: whole again after %s", f.What, seconds(f.For))
			}
		}
	}
	if s.Phase == Settling && !p.settled {
		p.settled = true
		at("nobody types any more; the last messages arrive")
	}
	if s.Verdict != nil {
		at("%s", counts(s))
		printVerdict(p.w, s)
		return
	}
	if s.Since-p.counted >= plainEvery {
		p.counted = s.Since
		at("%s", counts(s))
	}
}

func counts(s State) string {
	c := Counts{s.Crowd.Typed + s.People.Typed, s.Crowd.Acknowledged + s.People.Acknowledged, s.Crowd.Shown + s.People.Shown}
	return fmt.Sprintf("typed %s, acknowledged %s, shown %s; lost %d, doubled %d, reordered %d",
		thousands(c.Typed), thousands(c.Acknowledged), thousands(c.Shown), s.Checked.Lost, s.Checked.Doubled, s.Checked.Reordered)
}

// printVerdict prints what stays in the terminal.
func printVerdict(w io.Writer, s State) {
	fmt.Fprintf(w, "\n%s\n", s.Verdict.Headline)
	for _, l := range s.Verdict.Lines {
		fmt.Fprintf(w, "  %s\n", l)
	}
	fmt.Fprintf(w, "  the same faults again: %s\n", s.Verdict.Replay)
}
