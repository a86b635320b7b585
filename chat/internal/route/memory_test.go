package route_test

import (
	"slices"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"
)

// recall is where a server would send an event for a user, by what it remembers.
func (s *server) recall(t *testing.T, user uint64) (instances []string) {
	t.Helper()
	for _, place := range s.Recall(t.Context(), []uint64{user}, s.others)[user] {
		instances = append(instances, place.Instance)
	}
	slices.Sort(instances)
	return instances
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// The same on Redis: routes that are a moment old, until they are forgotten.
func TestRoutesAreRememberedForAMoment(t *testing.T) {
	t.Parallel()
	r := testenv.Redis(t)
	a, b, c := three(t, r)
	var added []uint64
	c.added = func(user uint64) {
		if routes, _ := a.at(t, user); !slices.Contains(routes, "c") {
			t.Error("told of a connection whose route is not written")
		}
		added = append(added, user)
	}
	b.Add(t.Context(), 1, 11)
	want(t, "not told of connections", a.recall(t, 1), "b")
	if a.Forget(1) {
		t.Error("used what cannot be remembered")
	}
	a.told.Store(true)
	want(t, "asked", a.recall(t, 1), "b")
	if a.Forget(1) {
		t.Error("it was read, and not used from memory")
	}
	want(t, "asked again", a.recall(t, 1), "b")
	began := time.Now()
	c.Add(t.Context(), 1, 12)
	if got := a.recall(t, 1); time.Since(began) < 900*time.Millisecond {
		want(t, "remembered", got, "b")
		if !a.Forget(1) {
			t.Error("memory was used, and Forget does not say so")
		}
	}
	want(t, "forgotten, and asked anew", a.recall(t, 1), "b", "c")
	if !slices.Equal(added, []uint64{1}) {
		t.Errorf("told of %v", added)
	}
	b.Remove(1, 11)
	testenv.Until(t, "what is old is asked anew", func() bool { return slices.Equal(a.recall(t, 1), []string{"c"}) })
	a.ForgetAll()
	c.Remove(1, 12)
	a.until(t, "the last has gone", 1)
	want(t, "nowhere", a.recall(t, 1))
}

// Where Redis does not answer, or a server's routes are incomplete, nothing is remembered.
func TestWhatIsNotKnownIsNotRemembered(t *testing.T) {
	t.Parallel()
	r := testenv.Redis(t)
	a, b, _ := three(t, r)
	a.told.Store(true)
	b.Add(t.Context(), 1, 11)
	client := testenv.OpenRedis(t, r)
	testenv.Until(t, "b's liveness is gone when a asks", func() bool {
		a.ForgetAll()
		for _, key := range testenv.RedisKeys(t, r, "*beacon:b") {
			client.Del(t.Context(), key)
		}
		return slices.Equal(a.recall(t, 2), []string{"b"})
	})
	b.until(t, "b is complete again", 9)
	testenv.Until(t, "and soon nothing is sent to it for nobody", func() bool { return len(a.recall(t, 2)) == 0 })
}
