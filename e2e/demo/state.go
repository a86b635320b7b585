package demo

import (
	"fmt"
	"strings"
	"time"

	"github.com/msrchat/msrchat/e2e/faults"
)

// Phase is how far a demo has come.
type Phase string

// The phases, in their order.
const (
	Talking  Phase = "talking"
	Settling Phase = "settling" // nobody types any more
	Judged   Phase = "judged"
)

// State is what the director's pane shows at a moment.
type State struct {
	Seed  uint64        `json:"seed"`
	Phase Phase         `json:"phase"`
	Since time.Duration `json:"since"` // the beginning
	Of    time.Duration `json:"of"`    // how long it shall be

	// Faults are those so far, the newest at the end.
	Faults []Fault `json:"faults"`
	// Crowd are the devices, People are ann and ben.
	Crowd  Counts `json:"crowd"`
	People Counts `json:"people"`
	// Devices is how many the crowd has.
	Devices int     `json:"devices"`
	Checked Checked `json:"checked"`

	Verdict *Verdict `json:"verdict,omitempty"`
}

// Fault is one that is at work, or was.
type Fault struct {
	What string `json:"what"` // "kill -9 chat-2"
	// Unacknowledged messages there were when it began.
	Unacknowledged int `json:"unacknowledged"`
	// For is how long it has lasted, or how long after its end everything worked.
	For   time.Duration `json:"for"`
	Whole bool          `json:"whole"`
	Err   string        `json:"err,omitempty"` // why it is not
}

// Counts are numbers of messages.
type Counts struct {
	Typed        int `json:"typed"`
	Acknowledged int `json:"acknowledged"`
	Shown        int `json:"shown"` // on all screens
}

// Checked is what the checker found so far.
type Checked struct {
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
	Reordered int `json:"reordered"`
	// Ago is how long ago it looked; negative: it has not. Final: it looked at all
	// of the run.
	Ago   time.Duration `json:"ago"`
	Final bool          `json:"final"`
}

// Verdict is the end.
type Verdict struct {
	Kept     bool     `json:"kept"` // all promises
	Headline string   `json:"headline"`
	Lines    []string `json:"lines"`
	Replay   string   `json:"replay"`
}

// describe says what a step does, and to what.
func describe(s faults.Step, on string) string {
	if on == "" {
		on = "chat servers"
	}
	_, target, _ := strings.Cut(s.Kind.Name, "-")
	hold := fmt.Sprintf("for %.1f s", s.Hold.Seconds())
	switch s.Kind.Family() {
	case "kill":
		return "kill -9 " + on
	case "restart":
		return "restart " + on
	case "freeze":
		return "freeze " + on + " " + hold
	case "flush":
		return "FLUSHALL " + on
	case "net":
		return fmt.Sprintf("%s %s of %s %s", s.Variant, target, on, hold)
	case "relay":
		return fmt.Sprintf("%s frames between %s %s", s.Variant, on, hold)
	}
	return s.Kind.Name + " " + hold
}
