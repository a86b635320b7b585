package allowance

import (
	"testing"
	"time"
)

func TestAllowance(t *testing.T) {
	t.Parallel()
	const most, every = 100, 2 * time.Second
	now := time.Unix(1_800_000_000, 0)
	a := New(most, every)
	a.now = func() time.Time { return now }
	taken := func(user uint64) (n int) {
		for a.Take(user, 1) == 0 && n < 2*most {
			n++
		}
		return n
	}
	if n := taken(1); n != most {
		t.Errorf("%d units were free", n)
	}
	if wait := a.Take(1, 1); wait <= 0 || wait > every {
		t.Errorf("one more after %v", wait)
	}
	if a.Take(2, 1) != 0 {
		t.Error("somebody else must wait")
	}
	a.Add(1, 1)
	if n := taken(1); n != 1 {
		t.Errorf("after one was given back %d are free", n)
	}
	now = now.Add(10 * every)
	if n := taken(1); n != 10 {
		t.Errorf("after ten times the pause %d are free", n)
	}
	now = now.Add(time.Hour)
	if a.Take(1, 1) != 0 {
		t.Error("after an hour none is free")
	}
	a.Add(1, -most-10) // it turned out to be large
	if wait := a.Take(1, 1); wait < 11*every || wait > 13*every {
		t.Errorf("after a large one the next is free in %v", wait)
	}
	for user := range uint64(3 * MaxUsers) {
		_ = a.Take(user, 1)
	}
	if len(a.free) > MaxUsers {
		t.Errorf("%d users are remembered", len(a.free))
	}
}
