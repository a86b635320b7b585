package arena

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// fakers are where Debian and others install libfaketime.
var fakers = []string{
	"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1",
}

// Clock is the wall clock of one program, which libfaketime shows it. The
// servers read the kernel's clock without asking any library, and that one is
// the whole machine's.
type Clock struct {
	library, file string
	// Missing says why the clock cannot be set; nil where it can.
	Missing error
}

// newClock returns a clock that is right.
func newClock(file string) *Clock {
	for _, pattern := range fakers {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			c := &Clock{library: found[0], file: file}
			c.Missing = c.Step(0)
			return c
		}
	}
	return &Clock{Missing: errors.New("libfaketime is not installed (Debian: apt-get install faketime)")}
}

// environ is for the program whose clock it is.
func (c *Clock) environ() []string {
	if c.Missing != nil {
		return nil
	}
	return []string{
		"LD_PRELOAD=" + c.library, "FAKETIME_TIMESTAMP_FILE=" + c.file,
		"FAKETIME_CACHE_DURATION=1", // seconds until a step is seen
		"FAKETIME_DONT_FAKE_MONOTONIC=1",
	}
}

// Step puts the clock so far from the right time.
func (c *Clock) Step(by time.Duration) error {
	if c.Missing != nil {
		return c.Missing
	}
	next := c.file + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+d\n", int(by.Seconds())), 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.file) // never seen half written
}
