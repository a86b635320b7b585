package main

import (
	"fmt"
	"os"
	"time"
)

// plainEvery is how often progress is printed where it is no terminal.
const plainEvery = 5 * time.Second

// progress shows on standard error how far a measurement is. It belongs to one
// goroutine.
type progress struct {
	quiet, terminal bool
	last            time.Time // of the last plain line
	wide            int       // the width of what the terminal shows
}

func newProgress(quiet bool) *progress {
	info, err := os.Stderr.Stat()
	return &progress{quiet: quiet, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// update replaces the line on a terminal; elsewhere it prints one every
// plainEvery.
func (p *progress) update(format string, args ...any) {
	if p.quiet {
		return
	}
	text := fmt.Sprintf(format, args...)
	if p.terminal {
		fmt.Fprintf(os.Stderr, "\r%-*s", p.wide, text)
		p.wide = len(text)
		return
	}
	if time.Since(p.last) >= plainEvery {
		p.last = time.Now()
		fmt.Fprintln(os.Stderr, text)
	}
}

// line prints a line for what begins now.
func (p *progress) line(format string, args ...any) {
	if p.quiet {
		return
	}
	p.clear()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	p.last = time.Now()
}

// clear removes the line of update.
func (p *progress) clear() {
	if p.terminal && p.wide > 0 {
		fmt.Fprintf(os.Stderr, "\r%-*s\r", p.wide, "")
		p.wide = 0
	}
}
