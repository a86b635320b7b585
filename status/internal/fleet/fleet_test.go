package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// world is a table with a clock that only the test moves, and servers that report
// when the test says so. It belongs to one goroutine.
type world struct {
	t       *testing.T
	now     time.Time
	table   *fleet.Table
	rows    map[string]discovery.Instance
	streams map[string]*fleet.Stream
	reports map[string]fleet.Report

	catalogAge time.Duration
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		rows: map[string]discovery.Instance{}, streams: map[string]*fleet.Stream{}, reports: map[string]fleet.Report{},
	}
	w.table = fleet.New(fleet.Options{
		Now:        func() time.Time { return w.now },
		CatalogAge: func() (time.Duration, bool) { return w.catalogAge, true },
	})
	return w
}

// pass moves the clock without reports, live with a report of each server every
// second.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

func (w *world) live(d time.Duration) {
	for d > 0 {
		step := min(d, time.Second)
		w.pass(step)
		d -= step
		for id := range w.streams {
			w.report(id)
		}
	}
}

// list puts passing servers into the catalog.
func (w *world) list(ids ...string) {
	for _, id := range ids {
		w.rows[id] = discovery.Instance{
			ID: id, Address: id + ".example:1", Passing: true,
			Meta: map[string]string{"release": "v1", "relay": id + ".example:2"},
		}
	}
	w.catalog()
}

func (w *world) edit(id string, change func(*discovery.Instance)) {
	row := w.rows[id]
	change(&row)
	w.rows[id] = row
	w.catalog()
}

func (w *world) unlist(id string) { delete(w.rows, id); w.catalog() }

func (w *world) catalog() {
	var list []discovery.Instance
	for _, row := range w.rows {
		list = append(list, row)
	}
	w.table.SetCatalog(list)
}

// open starts a server's reports; load sets the connections.
func (w *world) open(ids ...string) {
	for _, id := range ids {
		r, ok := w.reports[id]
		if !ok {
			r = fleet.Report{
				Instance: id, BootID: 1, Release: "v1", Address: id + ".example:1", StartedAt: w.now,
				Load: fleet.Load{Capacity: 1000},
			}
		}
		w.reports[id] = r
		w.report(id)
	}
}

func (w *world) report(id string, used ...string) {
	w.t.Helper()
	r := w.reports[id]
	r.Used = used
	var err error
	if s := w.streams[id]; s != nil {
		_, err = s.Report(r)
	} else {
		w.streams[id], _, err = w.table.Join(r)
	}
	if err != nil {
		w.t.Fatalf("report of %s: %v", id, err)
	}
}

func (w *world) load(id string, connections uint32) {
	w.change(id, func(r *fleet.Report) { r.Load.Connections = connections })
}

func (w *world) change(id string, change func(*fleet.Report)) {
	r := w.reports[id]
	change(&r)
	w.reports[id] = r
	if w.streams[id] != nil {
		w.report(id)
	}
}

func (w *world) silence(id string) { delete(w.streams, id) } // the stream stays open

func (w *world) hangUp(id string) {
	w.streams[id].Close()
	delete(w.streams, id)
}

// two returns a settled world with servers a and b, past the warm-up.
func two(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.list("a", "b")
	w.open("a", "b")
	w.live(5 * time.Second)
	return w
}

func (w *world) assign(r fleet.Request) fleet.Assignment {
	w.t.Helper()
	a, err := w.table.Assign(r)
	if err != nil {
		w.t.Fatalf("assign: %v", err)
	}
	return a
}

// spread assigns n users and counts where they went.
func (w *world) spread(n int, r fleet.Request) map[string]int {
	w.t.Helper()
	counts := map[string]int{}
	for range n {
		counts[w.assign(r).Server.Instance]++
	}
	return counts
}

func (w *world) state(id string) fleet.State {
	for _, s := range w.table.View().Servers {
		if s.Endpoint.Instance == id {
			return s.State
		}
	}
	return "absent"
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		want fleet.State // of a; b stays well
	}{
		{"well", func(w *world) {}, fleet.StateEligible},
		{"a report 2.9 s ago", func(w *world) { w.silence("a"); w.live(2900 * time.Millisecond) }, fleet.StateEligible},
		{"a report 3.1 s ago", func(w *world) { w.silence("a"); w.live(3100 * time.Millisecond) }, fleet.StateStale},
		{
			"the stream broke 0.9 s ago", func(w *world) { w.hangUp("a"); w.live(900 * time.Millisecond) },
			fleet.StateEligible,
		},
		{
			"the stream broke 1.1 s ago", func(w *world) { w.hangUp("a"); w.live(1100 * time.Millisecond) },
			fleet.StateStale,
		},
		{"a new stream", func(w *world) { w.hangUp("a"); w.live(5 * time.Second); w.open("a") }, fleet.StateEligible},
		{"the check fails and so does the stream", func(w *world) { w.hangUp("a"); w.fail("a") }, fleet.StateFailing},
		{
			"the check fails for 1.9 s, but it reports",
			func(w *world) { w.fail("a"); w.live(1900 * time.Millisecond) }, fleet.StateEligible,
		},
		{"the check fails for 2 s", func(w *world) { w.fail("a"); w.live(2 * time.Second) }, fleet.StateFailing},
		{"the check passes again", func(w *world) {
			w.fail("a")
			w.live(5 * time.Second)
			w.edit("a", func(i *discovery.Instance) { i.Passing = true })
		}, fleet.StateEligible},
		{"failing by turns", func(w *world) {
			w.fail("a")
			w.live(1900 * time.Millisecond)
			w.catalog() // another change of the catalog does not start the grace anew
			w.live(200 * time.Millisecond)
		}, fleet.StateFailing},
		{"draining", func(w *world) { w.drain("a") }, fleet.StateDraining},
		{"left the catalog, still reports", func(w *world) { w.unlist("a"); w.live(time.Second) }, fleet.StateLeft},
		{
			"left the catalog and came back", func(w *world) { w.unlist("a"); w.live(time.Second); w.list("a") },
			fleet.StateEligible,
		},
		{"came back failing: no grace", func(w *world) {
			w.unlist("a")
			w.rows["a"] = discovery.Instance{ID: "a", Address: "a.example:1"}
			w.catalog()
		}, fleet.StateFailing},
		{"full", func(w *world) { w.load("a", 1000) }, fleet.StateFull},
		{"five places left", func(w *world) { w.load("a", 995) }, fleet.StateEligible},
		{
			"no capacity at all", func(w *world) { w.change("a", func(r *fleet.Report) { r.Load.Capacity = 0 }) },
			fleet.StateFull,
		},
		{"gone, remembered", func(w *world) { w.unlist("a"); w.hangUp("a"); w.live(time.Minute) }, fleet.StateLeft},
		{"gone, forgotten", func(w *world) { w.unlist("a"); w.hangUp("a"); w.live(61 * time.Second) }, "absent"},
		{"a new process of the instance", func(w *world) {
			w.drain("a")
			w.hangUp("a")
			w.reports["a"] = fleet.Report{Instance: "a", BootID: 2, StartedAt: w.now, Load: fleet.Load{Capacity: 5}}
			w.open("a")
		}, fleet.StateEligible},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := two(t)
			c.do(w)
			if got := w.state("a"); got != c.want {
				t.Errorf("a is %s, want %s", got, c.want)
			}
			if got := w.state("b"); got != fleet.StateEligible {
				t.Errorf("b is %s", got)
			}
			// Assign agrees with the view.
			got := w.spread(5, fleet.Request{Avoid: []string{"b"}})["a"]
			if (got == 5) != (c.want == fleet.StateEligible) {
				t.Errorf("a got %d of 5", got)
			}
		})
	}
}

func (w *world) fail(id string) { w.edit(id, func(i *discovery.Instance) { i.Passing = false }) }
func (w *world) drain(id string) {
	w.change(id, func(r *fleet.Report) { r.Load.Draining = true })
}

func TestAServerThatNobodyListedGetsNobody(t *testing.T) {
	w := two(t)
	w.open("unlisted")
	w.live(time.Second)
	if got := w.state("unlisted"); got != fleet.StateUnlisted {
		t.Errorf("state %s", got)
	}
	w.unlist("a")
	w.unlist("b")
	if _, err := w.table.Assign(fleet.Request{}); errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestANewServerWaitsForItsFirstReport(t *testing.T) {
	w := two(t)
	w.list("c")
	if got := w.state("c"); got != fleet.StateSilent {
		t.Errorf("before: %s", got)
	}
	w.open("c")
	if got := w.state("c"); got != fleet.StateEligible {
		t.Errorf("after: %s", got)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		want errs.Code
	}{
		{"all full", func(w *world) { w.load("a", 1000); w.load("b", 2000) }, errs.CodeExhausted},
		{"one full, one draining", func(w *world) { w.load("a", 1000); w.drain("b") }, errs.CodeExhausted},
		{"all draining", func(w *world) { w.drain("a"); w.drain("b") }, errs.CodeUnavailable},
		{"none listed", func(w *world) { w.unlist("a"); w.unlist("b") }, errs.CodeUnavailable},
		{"all failing", func(w *world) { w.fail("a"); w.fail("b"); w.live(3 * time.Second) }, errs.CodeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := two(t)
			c.do(w)
			_, err := w.table.Assign(fleet.Request{})
			if errs.CodeOf(err) != c.want || errs.From(err).RetryAfter <= 0 {
				t.Errorf("got %v (%s, retry after %v), want %s", err, errs.CodeOf(err), errs.From(err).RetryAfter,
					c.want)
			}
		})
	}
	t.Run("no catalog yet", func(t *testing.T) {
		w := newWorld(t)
		select {
		case <-w.table.Ready():
			t.Error("ready without a catalog")
		default:
		}
		if _, err := w.table.Assign(fleet.Request{}); errs.CodeOf(err) != errs.CodeUnavailable {
			t.Errorf("got %v", err)
		}
		w.catalog()
		<-w.table.Ready()
	})
}

func TestReportStreams(t *testing.T) {
	old := fleet.Report{Instance: "a", BootID: 1, StartedAt: time.Unix(100, 0)}
	again := fleet.Report{Instance: "a", BootID: 2, StartedAt: time.Unix(200, 0)}
	newTable := func() *fleet.Table { return fleet.New(fleet.Options{}) }
	join := func(t *testing.T, table *fleet.Table, r fleet.Report) *fleet.Stream {
		t.Helper()
		s, _, err := table.Join(r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("a newer stream replaces", func(t *testing.T) {
		for _, second := range []fleet.Report{old, again} {
			table := newTable()
			s := join(t, table, old)
			join(t, table, second)
			<-s.Replaced()
			if _, err := s.Report(old); errs.CodeOf(err) != errs.CodeConflict {
				t.Errorf("the replaced stream reports: %v", err)
			}
			s.Close() // must not close the new one
			if v := table.View().Servers; len(v) != 1 || v[0].Load == nil {
				t.Errorf("view %+v", v)
			}
		}
	})
	t.Run("not by an older process", func(t *testing.T) {
		table := newTable()
		s := join(t, table, again)
		if _, _, err := table.Join(old); errs.CodeOf(err) != errs.CodeConflict {
			t.Errorf("the older process joins: %v", err)
		}
		if _, err := s.Report(again); err != nil {
			t.Error(err)
		}
		s.Close()
		join(t, table, old) // nobody is there any more: a clock may have been set back
	})
	t.Run("one process only", func(t *testing.T) {
		s := join(t, newTable(), old)
		for _, r := range []fleet.Report{again, {Instance: "b", BootID: 1}} {
			if _, err := s.Report(r); errs.CodeOf(err) != errs.CodeInvalid {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
	t.Run("unlisted servers are limited", func(t *testing.T) {
		table := newTable()
		var err error
		n := 0
		for ; err == nil && n < 5000; n++ {
			_, _, err = table.Join(fleet.Report{Instance: fmt.Sprint("x", n)})
		}
		if errs.CodeOf(err) != errs.CodeExhausted || n != 1001 {
			t.Errorf("after %d: %v", n, err)
		}
		table.SetCatalog([]discovery.Instance{{ID: "listed", Passing: true}})
		join(t, table, fleet.Report{Instance: "listed"})
	})
}

func TestTheViewHasWhatIsKnown(t *testing.T) {
	w := two(t)
	w.edit("a", func(i *discovery.Instance) { i.Meta = map[string]string{"relay": "a:9", "zone": "north"} })
	w.change("a", func(r *fleet.Report) { r.TLSServerName, r.Load.Connections = "chat.example", 7 })
	w.silence("a")
	w.assign(fleet.Request{Avoid: []string{"b"}})
	w.live(4 * time.Second)
	v := w.table.View().Servers
	if len(v) != 2 {
		t.Fatalf("%d servers", len(v))
	}
	a := v[0]
	want := fleet.Endpoint{Instance: "a", Address: "a.example:1", TLSServerName: "chat.example"}
	if a.Endpoint != want || a.RelayAddress != "a:9" || a.Zone != "north" || a.Release != "v1" ||
		!a.InCatalog || !a.Passing || a.Load == nil || a.Load.Connections != 7 ||
		a.ReportAge != 4*time.Second || a.Pending != 1 {
		t.Errorf("got %+v", a)
	}
	if a.Reason != "its last report is 4.0 s old" || v[1].Reason != "" {
		t.Errorf("reasons %q, %q", a.Reason, v[1].Reason)
	}
}
