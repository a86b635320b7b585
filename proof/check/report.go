package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Kind is a way in which a promise was broken.
type Kind string

// The kinds of violation.
const (
	Lost       Kind = "lost"       // acknowledged, but not in the log
	Doubled    Kind = "doubled"    // in the log more than once
	Renumbered Kind = "renumbered" // acknowledged under another number than the log has
	Altered    Kind = "altered"    // in the log with another text or sender than typed
	Gap        Kind = "gap"        // a number below the head that no message has, or two have
	Untyped    Kind = "untyped"    // in the log, but nobody typed it
	Reordered  Kind = "reordered"  // one device's messages are in another order than typed
	Rejected   Kind = "rejected"   // refused for good, but in the log
	Unsettled  Kind = "unsettled"  // neither acknowledged nor refused nor in the log, though it is quiet

	Missing    Kind = "missing"    // not shown to a device of a member
	Repeated   Kind = "repeated"   // shown twice to a device
	Disordered Kind = "disordered" // shown to a device after a later one, or before an earlier one
	Distorted  Kind = "distorted"  // shown with another text, sender or id than the log has there
	Ghost      Kind = "ghost"      // shown, but not in the log
	Foreign    Kind = "foreign"    // shown to somebody who is not a member of the conversation
	Late       Kind = "late"       // on a device only after more than a heartbeat of quiet and connection

	// Of own states.
	Stale     Kind = "stale"     // a device lacks the newest
	Diverged  Kind = "diverged"  // under one number, devices or the database have different ones
	Fallen    Kind = "fallen"    // a number or a read mark fell on a device
	Ahead     Kind = "ahead"     // a read mark above the log's head, or a number above the database's
	Forgotten Kind = "forgotten" // a read mark below the one that was set
	Undrafted Kind = "undrafted" // a draft that nobody typed

	Unjoined Kind = "unjoined" // a device that never learned its conversations
	Reset    Kind = "reset"    // a device learned that the logs were restored
	Restless Kind = "restless" // the run did not become quiet
	NoSample Kind = "nosample" // too little happened to prove anything
)

// kinds is the order in which a report names them.
var kinds = []Kind{
	Lost, Doubled, Renumbered, Altered, Gap, Untyped, Reordered, Rejected, Unsettled,
	Missing, Repeated, Disordered, Distorted, Ghost, Foreign, Late,
	Stale, Diverged, Fallen, Ahead, Forgotten, Undrafted,
	Unjoined, Reset, Restless, NoSample,
}

// Violation is how often a promise was broken in one way.
type Violation struct {
	Kind     Kind     `json:"kind"`
	Count    int      `json:"count"`
	Examples []string `json:"examples"` // the first few
}

// maxExamples is how many examples a report keeps of each kind.
const maxExamples = 5

// Lateness is how long devices needed, once it was quiet, for the messages and own
// states that they did not have by then: the longest connection without one.
type Lateness struct {
	Count  int           `json:"count"`
	Median time.Duration `json:"median_ns"`
	P99    time.Duration `json:"p99_ns"`
	Worst  time.Duration `json:"worst_ns"`
}

// summarise sorts times and picks from them.
func summarise(times []time.Duration) Lateness {
	if len(times) == 0 {
		return Lateness{}
	}
	slices.Sort(times)
	last := len(times) - 1
	return Lateness{Count: len(times), Median: times[last/2], P99: times[last*99/100], Worst: times[last]}
}

// Report is what a check found. A count is a number of messages unless it says
// otherwise.
type Report struct {
	Devices       int `json:"devices"`
	Complete      int `json:"complete"` // devices that had to show everything
	Conversations int `json:"conversations"`
	Typed         int `json:"typed"`
	Acked         int `json:"acked"`
	Refused       int `json:"refused"`
	Unsettled     int `json:"unsettled"`
	Logged        int `json:"logged"`
	Shown         int `json:"shown"`      // on all screens
	Marked        int `json:"marked"`     // read marks that were set
	Drafted       int `json:"drafted"`    // drafts that were set
	Stated        int `json:"stated"`     // own states, on all devices
	Reconnects    int `json:"reconnects"` // connections beyond each device's first

	Lateness   Lateness    `json:"lateness"`
	Partial    bool        `json:"partial"` // completeness was not checked
	Violations []Violation `json:"violations"`
}

// violations are those that were found, in the order of the kinds.
func (c *checker) violations() []Violation {
	found := []Violation{} // as JSON: [], not null
	for _, k := range kinds {
		if v := c.found[k]; v != nil {
			found = append(found, *v)
		}
	}
	return found
}

// Count is how often a promise was broken in one way.
func (r *Report) Count(k Kind) int {
	for _, v := range r.Violations {
		if v.Kind == k {
			return v.Count
		}
	}
	return 0
}

// Err is nil if no promise was broken.
func (r *Report) Err() error {
	if len(r.Violations) == 0 {
		return nil
	}
	var b strings.Builder
	for i, v := range r.Violations {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", v.Count, v.Kind)
	}
	return errors.New("the run broke its promises: " + b.String() + " (" + r.Violations[0].Examples[0] + ")")
}

// String is the report as a table for a person.
func (r *Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("devices", "%d, %d of them held to everything, %d reconnects", r.Devices, r.Complete, r.Reconnects)
	row("conversations", "%d", r.Conversations)
	row("typed", "%d: %d acknowledged, %d refused, %d unsettled", r.Typed, r.Acked, r.Refused, r.Unsettled)
	row("in the log", "%d", r.Logged)
	row("shown", "%d", r.Shown)
	row("own states", "%d read marks and %d drafts set, %d states on devices", r.Marked, r.Drafted, r.Stated)
	if l := r.Lateness; l.Count > 0 {
		row("shown after quiet", "%d: after %v in the middle, %v at 99 %%, %v at worst",
			l.Count, round(l.Median), round(l.P99), round(l.Worst))
	}
	for _, v := range r.Violations {
		row(strings.ToUpper(string(v.Kind)), "%d", v.Count)
		for _, example := range v.Examples {
			row("", "%s", example)
		}
	}
	_ = w.Flush() // into memory
	switch {
	case len(r.Violations) > 0:
		b.WriteString("the run broke its promises\n")
	case r.Partial:
		b.WriteString("no promise was broken; whether everything arrived was not checked:" +
			" the run did not become quiet\n")
	default:
		b.WriteString("no promise was broken\n")
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
