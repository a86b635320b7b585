package fleet_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

func TestAssignmentFollowsLoadBothWays(t *testing.T) {
	w := two(t)
	w.load("a", 100)
	w.load("b", 10)
	if got := w.spread(80, fleet.Request{}); got["b"] != 80 {
		t.Errorf("a 100, b 10: 80 users went %v", got)
	}
	w.live(20 * time.Second) // the pending assignments expire
	w.load("a", 10)
	w.load("b", 100)
	if got := w.spread(80, fleet.Request{}); got["a"] != 80 {
		t.Errorf("a 10, b 100: 80 users went %v", got)
	}
	w.live(20 * time.Second)
	w.load("b", 10)
	if got := w.spread(80, fleet.Request{}); got["a"] != 40 || got["b"] != 40 {
		t.Errorf("equal load: 80 users went %v", got)
	}
}

func TestPreferences(t *testing.T) {
	zone := func(z string) func(*discovery.Instance) {
		return func(i *discovery.Instance) { i.Meta = map[string]string{"zone": z, "release": i.Meta["release"]} }
	}
	release := func(w *world, id, name string, started time.Time) {
		w.edit(id, func(i *discovery.Instance) {
			i.Meta = map[string]string{"release": name, "zone": i.Meta["zone"]}
		})
		w.change(id, func(r *fleet.Report) { r.Release, r.StartedAt = name, started })
	}
	for _, c := range []struct {
		name string
		do   func(w *world)
		req  fleet.Request
		want string
	}{
		{"the avoided one is left out", func(w *world) { w.load("b", 500) }, fleet.Request{Avoid: []string{"a"}}, "b"},
		{"unless it is the only one", func(w *world) { w.drain("b") }, fleet.Request{Avoid: []string{"a", "b"}}, "a"},
		{"a proven one before less load and a newer release", func(w *world) {
			release(w, "a", "v1", w.now)
			release(w, "b", "v2", w.now.Add(time.Minute))
			w.load("a", 500)
			w.table.SetProbes([]discovery.Instance{{ID: "a", Passing: true}, {ID: "b"}})
		}, fleet.Request{}, "a"},
		{"no probe passes: all are alike", func(w *world) {
			w.load("a", 500)
			w.table.SetProbes([]discovery.Instance{{ID: "a"}, {ID: "b"}})
		}, fleet.Request{}, "b"},
		{"the one without a probe is not doubted", func(w *world) {
			w.load("a", 500)
			w.table.SetProbes([]discovery.Instance{{ID: "b"}})
		}, fleet.Request{}, "a"},
		{"own zone before less load", func(w *world) {
			w.edit("a", zone("north"))
			w.edit("b", zone("south"))
			w.load("b", 500)
		}, fleet.Request{Zone: "south"}, "b"},
		{"another zone when the own one is full", func(w *world) {
			w.edit("a", zone("north"))
			w.edit("b", zone("south"))
			w.load("b", 1000)
		}, fleet.Request{Zone: "south"}, "a"},
		{"no zone asked, none preferred", func(w *world) {
			w.edit("a", zone("north"))
			w.load("a", 50)
		}, fleet.Request{}, "b"},
		{"the newest release before less load", func(w *world) {
			release(w, "b", "v2", w.now)
			w.load("b", 500)
		}, fleet.Request{}, "b"},
		{"the newest release before the own zone", func(w *world) {
			w.edit("a", zone("north"))
			release(w, "b", "v2", w.now)
		}, fleet.Request{Zone: "north"}, "b"},
		{"the older release when the newest is full", func(w *world) {
			release(w, "b", "v2", w.now)
			w.load("b", 1000)
		}, fleet.Request{}, "a"},
		{"the older release while the newest fails", func(w *world) {
			release(w, "b", "v2", w.now)
			w.fail("b")
			w.live(3 * time.Second)
		}, fleet.Request{}, "a"},
		{"a restart does not make a release newer", func(w *world) {
			release(w, "b", "v2", w.now)
			w.live(time.Second)
			w.hangUp("a")
			w.reports["a"] = fleet.Report{Instance: "a", BootID: 2, StartedAt: w.now, Load: fleet.Load{Capacity: 1000}}
			w.open("a")
			w.load("b", 500)
		}, fleet.Request{}, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := two(t)
			c.do(w)
			if got := w.spread(20, c.req); got[c.want] != 20 {
				t.Errorf("20 users went %v, want %s", got, c.want)
			}
		})
	}
}

func TestAnAssignmentIsPending(t *testing.T) {
	one := func(t *testing.T) *world {
		t.Helper()
		w := two(t)
		w.drain("b")
		w.change("a", func(r *fleet.Report) { r.Load.Capacity = 3 })
		return w
	}
	exhausted := func(w *world) bool {
		_, err := w.table.Assign(fleet.Request{})
		return errs.CodeOf(err) == errs.CodeExhausted
	}
	t.Run("it counts towards capacity until it expires", func(t *testing.T) {
		w := one(t)
		first := w.assign(fleet.Request{})
		if got := first.Expires.Sub(w.now); got != 10*time.Second {
			t.Errorf("pending for %v", got)
		}
		w.live(5 * time.Second)
		w.assign(fleet.Request{})
		w.assign(fleet.Request{})
		if !exhausted(w) {
			t.Fatal("a fourth user on a server for three")
		}
		w.live(5 * time.Second)
		w.assign(fleet.Request{})
		if !exhausted(w) {
			t.Fatal("more than the first one expired")
		}
	})
	t.Run("it ends when its user arrives", func(t *testing.T) {
		w := one(t)
		used := w.assign(fleet.Request{}).ID
		w.assign(fleet.Request{})
		r := w.reports["a"]
		r.Load.Connections = 1
		w.reports["a"] = r
		w.report("a", used, used, "of another replica")
		if v := w.table.View().Servers[0]; v.Pending != 1 || v.Load.Connections != 1 {
			t.Errorf("%d pending, load %+v", v.Pending, v.Load)
		}
		w.assign(fleet.Request{})
		if !exhausted(w) {
			t.Error("a fourth user on a server for three")
		}
	})
	t.Run("also when the user arrives elsewhere", func(t *testing.T) {
		w := one(t)
		id := w.assign(fleet.Request{}).ID
		w.report("b", id)
		if v := w.table.View().Servers; v[0].Pending != 0 || v[1].Pending != 0 {
			t.Errorf("pending %d and %d", v[0].Pending, v[1].Pending)
		}
	})
	t.Run("not for a server that is gone", func(t *testing.T) {
		w := one(t)
		id := w.assign(fleet.Request{}).ID
		w.unlist("a")
		w.hangUp("a")
		w.live(2 * time.Minute)
		w.report("b", id)
		w.list("a")
		if v := w.table.View().Servers; v[0].Pending != 0 {
			t.Errorf("%d pending", v[0].Pending)
		}
	})
	t.Run("not without bound", func(t *testing.T) {
		w := two(t)
		w.change("a", func(r *fleet.Report) { r.Load.Capacity = 1 << 30 })
		n := 0
		for ; !exhausted(w); n++ {
		}
		if n != 100_000 {
			t.Errorf("%d pending", n)
		}
		w.live(11 * time.Second)
		w.assign(fleet.Request{})
	})
}

func TestAlternates(t *testing.T) {
	w := two(t)
	w.list("c", "d", "e", "f")
	w.open("c", "d", "e", "f")
	for i, id := range []string{"d", "b", "f", "a", "c", "e"} {
		w.load(id, uint32(10*(i+1)))
	}
	w.drain("f")
	a := w.assign(fleet.Request{Avoid: []string{"a"}})
	got := []string{a.Server.Instance}
	for _, e := range a.Alternates {
		got = append(got, e.Instance)
		if e.Address != e.Instance+".example:1" {
			t.Errorf("address %q", e.Address)
		}
	}
	if diff := cmp.Diff([]string{"d", "b", "c", "e"}, got); diff != "" {
		t.Error(diff)
	}
	if all := w.assign(fleet.Request{}); len(all.Alternates) != 3 {
		t.Errorf("%d alternates", len(all.Alternates))
	}
	if a.ID == "" || a.CatalogOnly {
		t.Errorf("%+v", a)
	}
}

func TestTheCatalogAloneDecides(t *testing.T) {
	check := func(t *testing.T, w *world, want map[string]int) {
		t.Helper()
		got := map[string]int{}
		for range 30 {
			a := w.assign(fleet.Request{})
			if !a.CatalogOnly {
				t.Fatal("it claims to know the load")
			}
			got[a.Server.Instance]++
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	t.Run("just started, nobody has reported", func(t *testing.T) {
		w := newWorld(t)
		w.list("a", "b", "c")
		check(t, w, map[string]int{"a": 10, "b": 10, "c": 10})
	})
	t.Run("just started, one has reported", func(t *testing.T) {
		w := newWorld(t)
		w.list("a", "b", "c")
		w.open("a")
		check(t, w, map[string]int{"a": 10, "b": 10, "c": 10})
	})
	t.Run("what is known is heeded", func(t *testing.T) {
		w := newWorld(t)
		w.list("full", "draining", "failing", "b", "c")
		w.open("full", "draining", "failing")
		w.load("full", 1000)
		w.drain("draining")
		w.fail("failing")
		w.live(2 * time.Second)
		check(t, w, map[string]int{"b": 15, "c": 15})
	})
	t.Run("not once all have reported", func(t *testing.T) {
		w := newWorld(t)
		w.list("a", "b")
		w.open("a", "b")
		w.load("a", 100)
		if a := w.assign(fleet.Request{}); a.CatalogOnly || a.Server.Instance != "b" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("not for those who are late", func(t *testing.T) {
		w := newWorld(t)
		w.list("a", "b")
		w.open("a")
		w.live(3 * time.Second)
		if got := w.spread(20, fleet.Request{}); got["a"] != 20 {
			t.Errorf("20 users went %v", got)
		}
	})
	t.Run("every report is stale", func(t *testing.T) {
		w := two(t)
		w.load("a", 900)
		w.silence("a")
		w.hangUp("b")
		w.pass(10 * time.Second)
		check(t, w, map[string]int{"a": 15, "b": 15})
		w.open("b")
		if a := w.assign(fleet.Request{}); a.CatalogOnly || a.Server.Instance != "b" {
			t.Errorf("after a fresh report: %+v", a)
		}
	})
	t.Run("a drain leaves only silent ones", func(t *testing.T) {
		w := two(t)
		w.drain("a")
		w.silence("b")
		w.live(4 * time.Second)
		check(t, w, map[string]int{"b": 30})
	})
}
