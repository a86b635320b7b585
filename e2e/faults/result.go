package faults

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/shared/planted"
)

// Done is a fault that was done.
type Done struct {
	Step Step
	// Unacknowledged messages there were when it began.
	Unacknowledged int
	// Healed is how long after its end everything worked again.
	Healed time.Duration
	// Missing is what did not work until then; "" where all did at once.
	Missing string
	// Err says why it could not be done, or did not heal.
	Err error
}

// Result is what came of a run.
type Result struct {
	Seed        uint64
	Bug         planted.Bug
	Took        time.Duration
	Interrupted bool
	Done        []Done
	Counts      device.Counts
	Report      *check.Report
	// Kept is the folder with the evidence; "" if there is none.
	Kept string

	leftOut  map[string]string // kind: why
	failures []error
}

func (r *Result) leaveOut(k Kind, why error) {
	if r.leftOut == nil {
		r.leftOut = make(map[string]string)
	}
	r.leftOut[k.Name] = why.Error()
}

func (r *Result) fail(where string, err error) {
	r.failures = append(r.failures, fmt.Errorf("%s: %w", where, err))
}

// Err is nil if the system kept its promises and healed from every fault, and
// there were faults at all.
func (r *Result) Err() error {
	errs := slices.Clone(r.failures)
	if r.Report != nil {
		errs = append(errs, r.Report.Err())
	}
	if len(r.Done) == 0 {
		errs = append(errs, errors.New("no fault was done"))
	}
	return errors.Join(errs...)
}

// row is what a table says of one kind of fault.
type row struct {
	count   int
	unacked []int
	healed  []time.Duration
}

// rows gathers the faults by kind.
func (r *Result) rows() map[string]*row {
	rows := make(map[string]*row)
	for _, d := range r.Done {
		of := rows[d.Step.Kind.Name]
		if of == nil {
			of = &row{}
			rows[d.Step.Kind.Name] = of
		}
		of.count++
		if d.Err == nil {
			of.healed = append(of.healed, d.Healed)
		}
		if d.Step.Kind.held {
			of.unacked = append(of.unacked, d.Unacknowledged)
		}
	}
	return rows
}

// String is the table of faults, then what the checker found.
func (r *Result) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\ttimes\tunacknowledged at its beginning\twhole again after\t")
	fmt.Fprintln(w, "\t\tleast, median\tmedian\tworst")
	rows := r.rows()
	for _, k := range Kinds {
		of := rows[k.Name]
		if of == nil {
			continue
		}
		unacked, median, worst := "", "never", "never"
		if n := len(of.unacked); n > 0 {
			slices.Sort(of.unacked)
			unacked = fmt.Sprintf("%d, %d", of.unacked[0], of.unacked[n/2])
		}
		if n := len(of.healed); n > 0 {
			slices.Sort(of.healed)
			median, worst = seconds(of.healed[n/2]), seconds(of.healed[n-1])
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", k.Name, of.count, unacked, median, worst)
	}
	_ = w.Flush() // into memory
	for _, kind := range slices.Sorted(maps.Keys(r.leftOut)) {
		fmt.Fprintf(&b, "%s: not run: %s\n", kind, r.leftOut[kind])
	}
	fmt.Fprintf(&b, "\n%d faults in %v, seed %d", len(r.Done), r.Took.Round(time.Second), r.Seed)
	if r.Bug != "" {
		fmt.Fprintf(&b, ", with the bug %s planted", r.Bug)
	}
	fmt.Fprintf(&b, "; %d messages were typed, %d were not because too much waited\n\n",
		r.Counts.Typed, r.Counts.HeldBack+r.Counts.Missed)
	if r.Report != nil {
		b.WriteString(r.Report.String())
	}
	for _, err := range r.failures {
		fmt.Fprintf(&b, "FAILED: %v\n", err)
	}
	if r.Interrupted {
		b.WriteString("the run was interrupted\n")
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "journals, logs and the plan are in %s\n", r.Kept)
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
