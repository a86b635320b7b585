// Package process finds, watches and stops the processes of a fleet, always by
// what the kernel says about a process and never by a name alone.
//
// It reads /proc. On systems without it nothing is found, and callers rely on
// Nomad.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is one running process. Start distinguishes it from a later one with
// the same id.
type Process struct {
	PID    int
	Parent int
	Start  uint64 // clock ticks after boot
	Args   []string
	Dir    string // working directory, "" if it cannot be read
}

// String describes the process for people.
func (p Process) String() string {
	const longest = 100 // characters of a command line: one terminal line
	line := strings.Join(p.Args, " ")
	if runes := []rune(line); len(runes) > longest {
		line = string(runes[:longest]) + "…"
	}
	text := fmt.Sprintf("pid %d (%s)", p.PID, line)
	if p.Dir != "" && p.Dir != "/" {
		text += " in " + p.Dir
	}
	return text
}

// Find returns the process if it runs. A zombie does not run: it holds nothing
// and only waits for its parent.
func Find(pid int) (Process, bool) {
	st, err := readStat(pid)
	if err != nil || st.zombie {
		return Process{}, false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return Process{}, false
	}
	dir, _ := os.Readlink(filepath.Join(proc, "cwd")) // fails for another user's process
	return Process{
		PID: pid, Parent: st.parent, Start: st.start,
		Args: strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00"),
		Dir:  strings.TrimSuffix(dir, " (deleted)"),
	}, true
}

// Running says whether this process still runs.
func (p Process) Running() bool {
	st, err := readStat(p.PID)
	return err == nil && !st.zombie && st.start == p.Start
}

// stat is the part of /proc/PID/stat that is needed.
type stat struct {
	zombie bool
	parent int
	start  uint64
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text))
}

// parseStat counts the fields from the last parenthesis, because the name
// before it may contain any character.
func parseStat(text string) (stat, error) {
	const stateField, parentField, startField = 0, 1, 19 // proc(5): fields 3, 4 and 22
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	if end < 0 || len(fields) <= startField {
		return stat{}, fmt.Errorf("process state %q: too short", text)
	}
	parent, err := strconv.Atoi(fields[parentField])
	if err != nil {
		return stat{}, fmt.Errorf("process state %q: %w", text, err)
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process state %q: %w", text, err)
	}
	return stat{zombie: fields[stateField] == "Z" || fields[stateField] == "X", parent: parent, start: start}, nil
}

// all lists every visible process.
func all() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := Find(pid); ok && pid != os.Getpid() {
			list = append(list, p)
		}
	}
	return list
}

// Stop sends SIGTERM, and SIGKILL to those that still run after grace. It
// returns once all are gone, or the context's error.
func Stop(ctx context.Context, list []Process, grace time.Duration) error {
	signal(list, syscall.SIGTERM)
	graceful, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if AwaitGone(graceful, list) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	signal(list, syscall.SIGKILL)
	// A killed process ends at once unless it hangs in the kernel (a broken
	// disk).
	killed, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := AwaitGone(killed, list); err != nil {
		return fmt.Errorf("%v does not end although it was killed: %w", running(list), err)
	}
	return nil
}

func signal(list []Process, sig syscall.Signal) {
	for _, p := range list {
		if p.Running() {
			_ = syscall.Kill(p.PID, sig) // an error means that it has ended meanwhile
		}
	}
}

// Kill sends SIGKILL to a process and says whether it was running. A zombie is
// not.
func Kill(pid int) bool {
	if st, err := readStat(pid); err != nil || st.zombie {
		return false
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // an error means that it has ended meanwhile
	return true
}

func running(list []Process) []Process {
	return slices.DeleteFunc(slices.Clone(list), func(p Process) bool { return !p.Running() })
}

// AwaitGone returns once none of the processes runs, or the context's error.
func AwaitGone(ctx context.Context, list []Process) error {
	const every = 50 * time.Millisecond // polled, because they are not children of this process
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for len(running(list)) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// Record writes a pid file: number and start time.
func Record(path string, p Process) error {
	return os.WriteFile(path, fmt.Appendf(nil, "%d %d\n", p.PID, p.Start), 0o644)
}

// Recorded returns the process of a pid file, if that one still runs.
func Recorded(path string) (Process, bool, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Process{}, false, nil
	}
	if err != nil {
		return Process{}, false, err
	}
	var pid int
	var start uint64
	if _, err := fmt.Sscanf(string(text), "%d %d", &pid, &start); err != nil {
		return Process{}, false, fmt.Errorf("pid file %s: %w", path, err)
	}
	p, ok := Find(pid)
	return p, ok && p.Start == start, nil
}
