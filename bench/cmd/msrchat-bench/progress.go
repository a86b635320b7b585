package main

import (
	"fmt"
	"os"
	"time"
)

// plainEvery is how often progress is a line where it cannot be one that
// changes.
const plainEvery = 5 * time.Second

// progress shows on standard error what is going on. It is for one goroutine.
type progress struct {
	quiet, terminal bool
	last            time.Time // of the last plain line
	wide            int       // of what the terminal shows
}

func newProgress(quiet bool) *progress {
	info, err := os.Stderr.Stat()
	return &progress{quiet: quiet, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// update replaces the line on a terminal; elsewhere it is one line now and then.
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

// line says what begins now.
func (p *progress) line(format string, args ...any) {
	if p.quiet {
		return
	}
	p.clear()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	p.last = time.Now()
}

// clear removes the changing line.
func (p *progress) clear() {
	if p.terminal && p.wide > 0 {
		fmt.Fprintf(os.Stderr, "\r%-*s\r", p.wide, "")
		p.wide = 0
	}
}
