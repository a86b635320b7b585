package drain

import (
	"math"
	"time"
)

// pace is the plan of one drain: how many of total connections are asked by when.
type pace struct {
	total int
	limit time.Duration // all are asked by then
	asked int
	due   float64
	// hurried says that the limit asked for more than the rate allows.
	hurried bool
}

// next returns how many more are to be asked at a time after the start, when the
// last step took so long and this server's share of the rate is share
// connections a second.
func (p *pace) next(elapsed, step time.Duration, share float64) int {
	p.due += share * step.Seconds()
	upTo := int(math.Ceil(p.due))
	if least := int(math.Ceil(float64(p.total) * elapsed.Seconds() / max(p.limit, step).Seconds())); least > upTo {
		upTo, p.hurried = least, true
	}
	n := max(min(upTo, p.total)-p.asked, 0)
	p.asked += n
	return n
}
