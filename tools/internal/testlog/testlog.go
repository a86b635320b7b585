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

// event is a line of go test -json (see go doc test2json).
type event struct {
	Action  string  `json:"Action"`
	Package string  `json:"Package"`
	Test    string  `json:"Test"`
	Output  string  `json:"Output"`
	Elapsed float64 `json:"Elapsed"` // seconds
}

// Log collects events and writes the account. It is for one goroutine.
type Log struct {
	out     io.Writer
	outputs map[string][]string // by package and test; "" is the package's own
	passed  map[string]int      // tests by package
	skipped []string            // one line each
	failed  bool
}

// New makes a Log that writes to out.
func New(out io.Writer) *Log {
	return &Log{out: out, outputs: map[string][]string{}, passed: map[string]int{}}
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
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		l.keep(key, e.Output)
	case "build-output":
		fmt.Fprint(l.out, e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			l.endPackage(e, l.outputs[key])
		} else {
			l.endTest(e, l.outputs[key])
		}
		delete(l.outputs, key)
	}
}

func (l *Log) keep(key, output string) {
	kept := append(l.outputs[key], output)
	if len(kept) > maxOutput {
		kept = slices.Delete(kept, 0, len(kept)-maxOutput)
	}
	l.outputs[key] = kept
}

func (l *Log) endTest(e event, output []string) {
	switch e.Action {
	case "pass":
		l.passed[e.Package]++
	case "skip":
		l.skipped = append(l.skipped, fmt.Sprintf("%s %s: %s", shorten(e.Package), e.Test, reason(output)))
	case "fail":
		l.failed = true
		for _, line := range output {
			if !strings.HasPrefix(line, "=== ") {
				fmt.Fprint(l.out, line)
			}
		}
	}
}

func (l *Log) endPackage(e event, output []string) {
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
	switch e.Action {
	case "fail":
		l.failed = true
		for _, line := range output { // a panic, a timeout, a failed build
			fmt.Fprint(l.out, line)
		}
		fmt.Fprintf(l.out, "FAIL  %s  %s\n", shorten(e.Package), took)
	case "skip": // no test files
	default:
		fmt.Fprintf(l.out, "ok    %s  %d tests, %s\n", shorten(e.Package), l.passed[e.Package], took)
	}
}

// Close writes what was not run and tells whether anything failed.
func (l *Log) Close() (failed bool) {
	slices.Sort(l.skipped)
	for _, line := range l.skipped {
		fmt.Fprintf(l.out, "not run: %s\n", line)
	}
	return l.failed
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

// shorten leaves out what all our import paths begin with.
func shorten(path string) string { return strings.TrimPrefix(path, "github.com/msrchat/msrchat/") }
