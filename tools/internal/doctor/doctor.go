// Package doctor judges what is known about a fleet and its machine: for each
// check a verdict, what was found, and what to do. The functions here only
// judge; package fleet queries the agents and the database, package machine the
// machine.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Verdict is how bad it is.
type Verdict string

// The verdicts. Fail breaks a promise or keeps the fleet from working; Warn may
// do so later or under load.
const (
	OK        Verdict = "ok"
	Warn      Verdict = "warn"
	Fail      Verdict = "FAIL"
	Unchecked Verdict = "not checked"
)

// Finding is the outcome of one check. Todo is what to do, if anything.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`
	Todo    string  `json:"todo,omitempty"`
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Verdict: OK, Found: fmt.Sprintf(format, args...)}
}

// NotChecked is the finding of a check that could not be made.
func NotChecked(check, why string) Finding {
	return Finding{Check: check, Verdict: Unchecked, Found: why}
}

// Report is all of them, in the order of the table.
type Report []Finding

// Count is how many findings have a verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, f := range r {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// WriteTable prints the report for people: what to do is below its check.
func (r Report) WriteTable(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tVERDICT\tFOUND")
	for _, f := range r {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Check, f.Verdict, oneLine(f.Found))
		if f.Todo != "" {
			fmt.Fprintf(table, "\t\twhat to do: %s\n", oneLine(f.Todo))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d ok, %d warnings, %d failed, %d not checked\n",
		r.Count(OK), r.Count(Warn), r.Count(Fail), r.Count(Unchecked))
	return err
}

// oneLine keeps a check's output from breaking the table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// WriteJSON prints the report for programs, one object a finding.
func (r Report) WriteJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
