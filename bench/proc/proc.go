// Package proc measures what processes of this machine use: CPU time and resident
// memory, from /proc. On systems without it nothing is measured.
package proc

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNotMeasured: the process belongs to another machine or another user, or the
// system has no /proc.
var ErrNotMeasured = errors.New("not measured")

// Process is one to watch.
type Process struct {
	Name string
	PID  int
}

// Parse reads NAME=PID.
func Parse(s string) (Process, error) {
	name, number, ok := strings.Cut(s, "=")
	pid, err := strconv.Atoi(number)
	if !ok || name == "" || err != nil || pid <= 0 {
		return Process{}, fmt.Errorf("%q is not NAME=PID, as in chat=4711", s)
	}
	return Process{Name: name, PID: pid}, nil
}

// ParseListener reads NAME=HOST:PORT and checks only its form.
func ParseListener(s string) (name, address string, err error) {
	name, address, ok := strings.Cut(s, "=")
	if _, _, bad := net.SplitHostPort(address); !ok || name == "" || bad != nil {
		return "", "", fmt.Errorf("%q is not NAME=HOST:PORT, as in redis=127.0.0.1:7721", s)
	}
	return name, address, nil
}

// Usage is what a process has used: CPU since its start, and memory now.
type Usage struct {
	CPU time.Duration
	RSS int64 // bytes
}

// Set is the processes that a measurement watches.
type Set struct {
	Processes []Process
	// Missing are the names of those that could not be found.
	Missing []string
}

// Add adds a process.
func (s *Set) Add(p Process) { s.Processes = append(s.Processes, p) }

// AddListener adds the process that listens on an address of this machine. One
// that is in the set already is not added twice.
func (s *Set) AddListener(name, address string) {
	pid, err := Listener(address)
	switch {
	case err != nil:
		s.Missing = append(s.Missing, name)
	case !slices.ContainsFunc(s.Processes, func(p Process) bool { return p.PID == pid }):
		s.Processes = append(s.Processes, Process{Name: name, PID: pid})
	}
}

// Group is a name without the number of the instance: "chat 2" is one of "chat".
func Group(name string) string {
	base, number, ok := strings.Cut(name, " ")
	if _, err := strconv.Atoi(number); ok && err == nil {
		return base
	}
	return name
}

// Groups lists the groups of the set in order of appearance.
func (s *Set) Groups() []string {
	var out []string
	for _, p := range s.Processes {
		if !slices.Contains(out, Group(p.Name)) {
			out = append(out, Group(p.Name))
		}
	}
	return out
}

// Snapshot reads all processes; one that has ended is left out.
func (s *Set) Snapshot() Snapshot {
	out := make(Snapshot, len(s.Processes))
	for _, p := range s.Processes {
		if u, err := Read(p.PID); err == nil {
			out[p] = u
		}
	}
	return out
}

// Snapshot is what each process had used at one moment.
type Snapshot map[Process]Usage

// Used is one group's part of what was used between two snapshots.
type Used struct {
	CPU       time.Duration
	RSS       int64 // at the end
	Growth    int64 // of RSS
	Instances int
}

// Since returns what the group used since an earlier snapshot. ok is false when
// one of its processes is missing from either.
func (s Snapshot) Since(before Snapshot, group string) (u Used, ok bool) {
	for p, was := range before {
		if Group(p.Name) != group {
			continue
		}
		now, alive := s[p]
		if !alive {
			return Used{}, false
		}
		u.CPU += now.CPU - was.CPU
		u.RSS += now.RSS
		u.Growth += now.RSS - was.RSS
		u.Instances++
	}
	return u, u.Instances > 0
}
