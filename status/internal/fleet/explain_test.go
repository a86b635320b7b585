package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

func TestExplainAnAssignment(t *testing.T) {
	w := two(t)
	w.list("c", "d", "e", "f")
	w.open("c", "d", "e", "f")
	w.edit("a", func(i *discovery.Instance) { i.Meta = map[string]string{"release": "v2", "zone": "north"} })
	w.change("a", func(r *fleet.Report) { r.Release, r.StartedAt = "v2", w.now })
	for _, id := range []string{"b", "c", "d", "f"} {
		w.edit(id, func(i *discovery.Instance) { i.Meta = map[string]string{"release": "v1", "zone": "north"} })
	}
	w.load("b", 500)
	w.load("c", 100)
	w.load("d", 1000)
	before := w.assign(fleet.Request{})
	e := w.table.Explain(fleet.Request{Avoid: []string{"f"}, Zone: "north"})
	if e.Verdict != "a would be taken" || e.CatalogOnly || before.Server.Instance != "a" {
		t.Errorf("verdict %q", e.Verdict)
	}
	var got []string
	for _, c := range e.Candidates {
		got = append(got, fmt.Sprintf("%s %d %s", c.Server.Instance, c.Rank, c.Why))
	}
	if diff := cmp.Diff([]string{
		"a 1 no other one is better",
		"c 2 its release is older than that of a",
		"b 3 it has more load than c",
		"e 4 it is not in the requested zone",
		"d 0 it is full: 1000 connections, 0 pending assignments, capacity 1000",
		"f 0 the request avoids it, and there are others",
	}, got); diff != "" {
		t.Error(diff)
	}
	rules := map[string]fleet.Rule{}
	for _, r := range e.Candidates[2].Rules {
		rules[r.Name] = r
	}
	for name, want := range map[string]fleet.Rule{
		"checks pass":     {Verdict: fleet.Holds, Facts: "all of them"},
		"reports in time": {Verdict: fleet.Holds, Facts: "the last report is 0.0 s old"},
		"has room":        {Verdict: fleet.Holds, Facts: "500 connections, 0 pending assignments, capacity 1000"},
		"zone":            {Verdict: fleet.Orders, Facts: "north, as requested"},
		"newest release":  {Verdict: fleet.Orders, Facts: "v1"},
	} {
		want.Name = name
		if rules[name] != want {
			t.Errorf("got %+v, want %+v", rules[name], want)
		}
	}
	if !strings.HasPrefix(rules["least load"].Facts, "50.00 % of its capacity: 500 connections") {
		t.Errorf("load: %+v", rules["least load"])
	}
	// It assigns nothing.
	if v := w.table.View(); v.Servers[0].Pending != 1 || v.AssignRate == 0 {
		t.Errorf("%d pending, %v assignments a second", v.Servers[0].Pending, v.AssignRate)
	}
}

func TestExplainNobody(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(w *world)
	}{
		{"all full", "nobody is assigned: every chat server is full", func(w *world) {
			w.load("a", 1000)
			w.load("b", 1000)
		}},
		{"all draining", "nobody is assigned: no chat server is available", func(w *world) {
			w.drain("a")
			w.drain("b")
		}},
		{"equal ones", "one of the first 2, which are equal, would be taken at random", func(*world) {}},
		{"too many waiting", "nobody is assigned: too many assignments wait for their users", func(w *world) {
			w.change("a", func(r *fleet.Report) { r.Load.Capacity = 1 << 30 })
			for range 100_000 {
				w.assign(fleet.Request{})
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := two(t)
			c.do(w)
			if e := w.table.Explain(fleet.Request{}); e.Verdict != c.want {
				t.Errorf("verdict %q", e.Verdict)
			}
		})
	}
	t.Run("no catalog", func(t *testing.T) {
		w := newWorld(t)
		if e := w.table.Explain(fleet.Request{}); !strings.Contains(e.Verdict, "Consul has not answered") {
			t.Errorf("verdict %q", e.Verdict)
		}
	})
	t.Run("the catalog alone", func(t *testing.T) {
		w := newWorld(t)
		w.list("a", "b")
		e := w.table.Explain(fleet.Request{Avoid: []string{"a", "b"}})
		if !e.CatalogOnly || len(e.Candidates) != 2 || e.Candidates[1].Rank != 2 {
			t.Fatalf("%+v", e)
		}
		skipped := 0
		for _, r := range e.Candidates[0].Rules {
			if r.Verdict == fleet.Skipped {
				skipped++
			}
		}
		if skipped != 5 { // both about reports, avoidance, release, zone
			t.Errorf("%d rules skipped: %+v", skipped, e.Candidates[0].Rules)
		}
	})
}

func TestExplainAServer(t *testing.T) {
	w := uneven(t)
	explain := func(id string) string {
		t.Helper()
		e, err := w.table.ExplainServer(id)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Candidates) != 1 || len(e.Candidates[0].Rules) != 11 {
			t.Errorf("%+v", e.Candidates)
		}
		return e.Verdict
	}
	w.live(time.Second)
	if got := explain("c"); !strings.HasPrefix(got, "c gets users; its rank is 1: no other one is better; "+
		"it has no order to shed: the fleet changed") {
		t.Error(got)
	}
	w.live(30 * time.Second)
	if got := explain("a"); !strings.Contains(got, "its rank is 2: it has more load than c; it has to keep at most") {
		t.Error(got)
	}
	if got := explain("c"); !strings.Contains(got, "no order to shed, its share is 66.7 connections") {
		t.Error(got)
	}
	w.drain("a")
	if got := explain("a"); !strings.HasPrefix(got, "a gets no users: it reports that it is draining") {
		t.Error(got)
	}
	w.list("chat-1", "chat-2")
	if e, err := w.table.ExplainServer("chat-2"); err != nil || e.Candidates[0].Server.Instance != "chat-2" {
		t.Errorf("%+v, %v", e, err)
	}
	w.unlist("chat-2")
	if e, err := w.table.ExplainServer("cha"); err != nil || e.Candidates[0].Server.Instance != "chat-1" {
		t.Errorf("a beginning: %+v, %v", e, err)
	}
	w.list("chat-2")
	for id, want := range map[string]errs.Code{
		"": errs.CodeNotFound, "x": errs.CodeNotFound, "chat": errs.CodeInvalid,
	} {
		if _, err := w.table.ExplainServer(id); errs.CodeOf(err) != want {
			t.Errorf("%q: %v", id, err)
		}
	}
}
