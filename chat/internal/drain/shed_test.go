package drain

import (
	"testing"
	"time"
)

func TestShedPace(t *testing.T) {
	for _, c := range []struct {
		connected, atOnce, within10s int
	}{
		{1000, 50, 550}, {100, 5, 55}, {10, 2, 22}, {1, 2, 22},
	} {
		s := newShedding(nil)
		now := s.at
		left := func() int {
			n := s.allow(1<<30, c.connected, now)
			s.allowed -= float64(n)
			return n
		}
		now = now.Add(time.Hour) // unused allowance does not accumulate
		if got := left(); got != c.atOnce {
			t.Errorf("%d connected: %d leave at once, want %d", c.connected, got, c.atOnce)
		}
		if got := left(); got != 0 {
			t.Errorf("%d more at the same moment", got)
		}
		sum := c.atOnce
		for range 100 { // ten seconds, in which three replicas repeat their orders
			now = now.Add(100 * time.Millisecond)
			sum += left() + left() + left()
		}
		if sum > c.within10s || sum < c.within10s-2 {
			t.Errorf("%d connected: %d left within ten seconds, want %d", c.connected, sum, c.within10s)
		}
	}
	s := newShedding(nil)
	if got := s.allow(3, 1000, s.at.Add(time.Second)); got != 3 {
		t.Errorf("%d leave, want the 3 that are too many", got)
	}
}
