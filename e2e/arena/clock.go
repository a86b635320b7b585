package arena

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

//go:embed preload/clock.c
var clockSource []byte

// Clock is the wall clock that one program sees through a small preloaded
// library. Go programs read the kernel's clock without any library: theirs is
// the whole machine's.
type Clock struct {
	library, file string
	// Missing says why the clock cannot be set; nil where it can.
	Missing error
}

// newClock makes a clock that is right, in a folder.
func newClock(dir string) *Clock {
	c := &Clock{library: filepath.Join(dir, "clock.so"), file: filepath.Join(dir, "clock")}
	c.Missing = c.build(filepath.Join(dir, "clock.c"))
	return c
}

func (c *Clock) build(source string) error {
	if runtime.GOOS != "linux" {
		return errors.New("a program's clock can be set on Linux only")
	}
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O2", "-o", c.library, source).CombinedOutput(); err != nil {
		return fmt.Errorf("a program's clock needs a C compiler: %w %s", err, out)
	}
	return c.Step(0)
}

// environ is the environment of the program whose clock it is.
func (c *Clock) environ() []string {
	if c.Missing != nil {
		return nil
	}
	return []string{"LD_PRELOAD=" + c.library, "MSRCHAT_CLOCK=" + c.file}
}

// Step sets the clock ahead of the right time, or behind it, at once.
func (c *Clock) Step(by time.Duration) error {
	if c.Missing != nil {
		return c.Missing
	}
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_WRONLY, 0o600) // the same file: it is mapped
	if err != nil {
		return err
	}
	_, err = f.Write(binary.NativeEndian.AppendUint64(nil, uint64(by/time.Second)))
	return errors.Join(err, f.Close())
}
