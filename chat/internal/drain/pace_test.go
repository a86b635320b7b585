package drain

import (
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
)

func TestPace(t *testing.T) {
	const step = 100 * time.Millisecond
	for _, test := range []struct {
		name    string
		total   int
		share   float64
		limit   time.Duration
		within  time.Duration // when the last is asked, at the latest and about
		hurried bool
	}{
		{"at the rate", 1000, 500, 10 * time.Second, 2 * time.Second, false},
		{"few leave at once", 3, 500, 10 * time.Second, step, false},
		{"the limit comes first", 10_000, 500, 5 * time.Second, 5 * time.Second, true},
		{"a slow share", 5, 2, 10 * time.Second, 2500 * time.Millisecond, false},
	} {
		p := pace{total: test.total, limit: test.limit}
		asked, at := 0, time.Duration(0)
		for asked < test.total && at < time.Minute {
			at += step
			asked += p.next(at, step, test.share)
		}
		if asked != test.total || at > test.within || at < test.within-test.within/4-step {
			t.Errorf("%s: %d of %d asked after %v, want %v", test.name, asked, test.total, at, test.within)
		}
		if p.hurried != test.hurried {
			t.Errorf("%s: hurried %v", test.name, p.hurried)
		}
	}
}

func TestServersThatLeftLatelyAreCounted(t *testing.T) {
	now := time.Now()
	list := func(ids ...string) (out []discovery.Instance) {
		for _, id := range ids {
			out = append(out, discovery.Instance{ID: id})
		}
		return out
	}
	g := newGroup("me")
	g.set(list("me", "a", "b", "c"), now)
	g.set(list("c"), now) // this server left too, but only others count
	if n := g.since(time.Minute, now); n != 2 {
		t.Errorf("%d left, want 2", n)
	}
	g.set(list("b", "c"), now)
	if n := g.since(time.Minute, now); n != 1 {
		t.Errorf("%d left after one came back, want 1", n)
	}
	if n := g.since(time.Minute, now.Add(2*time.Minute)); n != 0 {
		t.Errorf("%d left long ago, and are counted", n)
	}
}
