package directory

import (
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
)

func TestLookupsAreCounted(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	l := newLookups()
	l.now = func() time.Time { return now }
	taken := func(user uint64) (n int) {
		for l.take(user) == nil {
			if n++; n > 2*maxLookups {
				break
			}
		}
		return n
	}
	if n := taken(1); n != maxLookups {
		t.Errorf("%d look-ups were free", n)
	}
	if e := errs.From(l.take(1)); e.Code != errs.CodeRateLimited || e.RetryAfter <= 0 || e.RetryAfter > lookupEvery {
		t.Errorf("one more: %v after %v", e, e.RetryAfter)
	}
	if l.take(2) != nil {
		t.Error("somebody else is slowed down")
	}
	l.giveBack(1)
	if n := taken(1); n != 1 {
		t.Errorf("after one was given back %d are free", n)
	}
	now = now.Add(10 * lookupEvery)
	if n := taken(1); n != 10 {
		t.Errorf("after ten times the pause %d are free", n)
	}
	now = now.Add(time.Hour)
	if n := taken(1); n != maxLookups {
		t.Errorf("after an hour %d are free", n)
	}
	for user := range uint64(3 * maxLookingUp) {
		_ = l.take(user)
	}
	if len(l.free) > maxLookingUp {
		t.Errorf("%d users are remembered", len(l.free))
	}
}
