package fleet

import (
	"math"
	"time"
)

// recently is over what time recent averages: long against a report's second,
// short against a restart.
const recently = 10 * time.Second

// recent counts what happened lately; each event fades. The zero value is empty.
type recent struct {
	n  float64
	at time.Time // as of when n is
}

func (r *recent) add(n int, now time.Time) { r.n, r.at = r.count(now)+float64(n), now }

// count is about how many there were within the last ten seconds.
func (r *recent) count(now time.Time) float64 {
	if r.n == 0 {
		return 0
	}
	return r.n * math.Exp(-now.Sub(r.at).Seconds()/recently.Seconds())
}

// rate is how many there are per second.
func (r *recent) rate(now time.Time) float64 { return r.count(now) / recently.Seconds() }
