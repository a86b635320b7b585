package demo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/msrchat/msrchat/proof/check"

	"github.com/msrchat/msrchat/e2e/faults"
)

func sum(r *faults.Result, kinds ...check.Kind) (n int) {
	if r.Report == nil {
		return 0
	}
	for _, k := range kinds {
		n += r.Report.Count(k)
	}
	return n
}

func lost(r *faults.Result) int { return sum(r, check.Lost, check.Renumbered, check.Missing) }

func doubled(r *faults.Result) int { return sum(r, check.Doubled, check.Repeated) }

func reordered(r *faults.Result) int { return sum(r, check.Reordered, check.Disordered) }

// verdict puts into words what a run came to.
func verdict(r *faults.Result, o outcome, replay string) *Verdict {
	v := &Verdict{Kept: r.Err() == nil, Replay: replay}
	if !v.Kept {
		v.Headline = "A PROMISE WAS BROKEN"
		v.Lines = strings.Split(r.Err().Error(), "\n")
		if r.Kept != "" {
			v.Lines = append(v.Lines, "journals, logs and the plan are in "+r.Kept)
		}
		return v
	}
	acked := r.Report.Acked + o.Acknowledged
	v.Headline = fmt.Sprintf("NOTHING WAS LOST, DOUBLED OR REORDERED: %s acknowledged messages, %s", thousands(acked), times(len(r.Done), "fault"))
	v.Lines = []string{
		fmt.Sprintf("%d devices: %s messages acknowledged, each in MariaDB once, numbered without a gap, in the order typed",
			r.Report.Devices, thousands(r.Report.Acked)),
		fmt.Sprintf("what they showed: %s, each message once on both screens of its conversation, in order", thousands(r.Report.Shown)),
		fmt.Sprintf("ann and ben: numbers 1 to %d in both histories and on both screens%s", o.Logged, byHand(o.ByHand)),
	}
	return v
}

func byHand(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them typed by hand", n)
}

func times(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// thousands is a number with a comma before every three digits.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
