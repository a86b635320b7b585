package fleet

import (
	"math"
	"time"
)

// recently is the time over which recent averages: long compared to the second
// between reports, short compared to a restart.
const recently = 10 * time.Second

// recent is a count with exponential decay. The zero value is empty.
type recent struct {
	n  float64
	at time.Time // of n
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
