package drain

import (
	"math"
	"time"
)

// pace is the plan of one drain: how many of total connections are asked until when.
type pace struct {
	total int
	limit time.Duration // after this time all have been asked
	asked int
	due   float64
	// hurried says that the limit asked for more than the rate allows.
	hurried bool
}

// next returns how many more connections are to be asked now. elapsed is the time
// since the start and step that since the last call; share is this server's part of
// the rate, in connections a second.
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
