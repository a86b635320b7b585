// Package testlog makes a short account of what `go test -json` reports: a line
// for each package, the output of what failed, and what was not run and why.
package testlog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// maxOutput is how many lines of one test are kept: the last ones, which tell
// why it failed.
const maxOutput = 400

// raceReport is how the race detector begins a report.
const raceReport = "WARNING: DATA RACE"

// event is a line of go test -json (see go doc test2json).
type event struct {
	Action  string  `json:"Action"`
	Package string  `json:"Package"`
	Test    string  `json:"Test"`
	Output  string  `json:"Output"`
	Elapsed float64 `json:"Elapsed"` // seconds
}

// Test is a test of a package. A subtest's name has a slash; a package's own
// output has no name.
type Test struct{ Package, Name string }

// String names the test as the account does: "client TestSend".
func (t Test) String() string { return Short(t.Package) + " " + t.Name }

// Outcome is the result of a run's top-level tests, each kind in the order in
// which they ended.
type Outcome struct {
	Passed, Skipped []Test
	// Failed includes those that had started and not ended when their package did,
	// by a panic or the time limit.
	Failed []Test
	// Unnamed are packages whose failure no test of theirs explains: they were not
	// built, failed in TestMain, or had a data race outside of a test.
	Unnamed []string
}

// OK says that nothing failed.
func (o Outcome) OK() bool { return len(o.Failed)+len(o.Unnamed) == 0 }

// Log collects events and writes the account. It is for one goroutine.
type Log struct {
	out     io.Writer
	outputs map[Test][]string
	running map[Test]bool   // subtests too
	counts  map[string]int  // passed tests by package, with subtests
	raced   map[string]bool // packages with a data race outside of a test
	notRun  []string        // one line each
	outcome Outcome
}

// New makes a Log that writes to out.
func New(out io.Writer) *Log {
	return &Log{
		out: out, outputs: map[Test][]string{}, running: map[Test]bool{},
		counts: map[string]int{}, raced: map[string]bool{},
	}
}

// Read takes events until in ends. Lines that are none (a compiler's) are
// written through.
func (l *Log) Read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			l.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (l *Log) line(line []byte) {
	var e event
	if line[0] != '{' || json.Unmarshal(line, &e) != nil {
		_, _ = l.out.Write(line)
		return
	}
	t := Test{e.Package, e.Test}
	switch e.Action {
	case "run":
		l.running[t] = true
	case "output":
		l.keep(t, e.Output)
	case "build-output":
		fmt.Fprint(l.out, e.Output)
	case "pass", "skip", "fail":
		if t.Name == "" {
			l.endPackage(e)
		} else {
			l.endTest(t, e.Action)
		}
		delete(l.running, t)
		delete(l.outputs, t)
	}
}

func (l *Log) keep(t Test, output string) {
	if t.Name == "" && strings.Contains(output, raceReport) {
		l.raced[t.Package] = true
	}
	kept := append(l.outputs[t], output)
	if len(kept) > maxOutput {
		kept = slices.Delete(kept, 0, len(kept)-maxOutput)
	}
	l.outputs[t] = kept
}

func (l *Log) endTest(t Test, action string) {
	top := !strings.Contains(t.Name, "/")
	switch action {
	case "pass":
		l.counts[t.Package]++
		if top {
			l.outcome.Passed = append(l.outcome.Passed, t)
		}
	case "skip":
		l.notRun = append(l.notRun, fmt.Sprintf("%s: %s", t, reason(l.outputs[t])))
		if top {
			l.outcome.Skipped = append(l.outcome.Skipped, t)
		}
	case "fail":
		for _, line := range l.outputs[t] {
			if !strings.HasPrefix(line, "=== ") {
				fmt.Fprint(l.out, line)
			}
		}
		if top {
			l.outcome.Failed = append(l.outcome.Failed, t)
		}
	}
}

func (l *Log) endPackage(e event) {
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
	switch e.Action {
	case "fail":
		l.failPackage(e.Package)
		fmt.Fprintf(l.out, "FAIL  %s  %s\n", Short(e.Package), took)
	case "skip": // no test files
	default:
		fmt.Fprintf(l.out, "ok    %s  %d tests, %s\n", Short(e.Package), l.counts[e.Package], took)
	}
}

// failPackage ends the tests that a package took with it, and shows its own
// output: a panic, the time limit, a failed build.
func (l *Log) failPackage(name string) {
	var left []Test
	for t := range l.running {
		if t.Package == name {
			left = append(left, t)
		}
	}
	slices.SortFunc(left, func(a, b Test) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range left {
		l.endTest(t, "fail")
		delete(l.running, t)
		delete(l.outputs, t)
	}
	for _, line := range l.outputs[Test{Package: name}] {
		fmt.Fprint(l.out, line)
	}
	ours := func(t Test) bool { return t.Package == name }
	if l.raced[name] || !slices.ContainsFunc(l.outcome.Failed, ours) {
		l.outcome.Unnamed = append(l.outcome.Unnamed, name)
	}
}

// Close writes what was not run and returns the results of the tests.
func (l *Log) Close() Outcome {
	slices.Sort(l.notRun)
	for _, line := range l.notRun {
		fmt.Fprintf(l.out, "not run: %s\n", line)
	}
	return l.outcome
}

// reason is what the test said when it was skipped: the text after
// "file_test.go:12: ".
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
		return line
	}
	return "no reason given"
}

// Short leaves out of a package's path what all of ours begin with.
func Short(path string) string { return strings.TrimPrefix(path, "github.com/msrchat/msrchat/") }
