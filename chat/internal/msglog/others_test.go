package msglog_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// conflicts is how many statements of a log were refused because another log had taken
// their numbers.
func conflicts(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "msrchat_log_conflicts_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("there is no such metric")
	return 0
}

// Two people of a conversation take turns at two servers, each of which has pushed the
// other's message before: no conflict, and the log is dense.
func TestTakingTurnsNeedsNoOwner(t *testing.T) {
	t.Parallel()
	cfg := testenv.MariaDB(t)
	ra, rb := prometheus.NewRegistry(), prometheus.NewRegistry()
	a, b := open(t, cfg, msglog.Options{Registerer: ra}), open(t, cfg, msglog.Options{Registerer: rb})
	for turn := range uint64(10) {
		log, other := a, b
		if turn%2 == 1 {
			log, other = b, a
		}
		got := mustAppend(t, log, 1, entry(1, turn, "x"))[0]
		if got.Seq != turn+1 || got.Ordinal != got.Seq {
			t.Fatalf("turn %d got %+v", turn, got)
		}
		other.Learn(1, got.Seq)
	}
	if n := conflicts(t, ra) + conflicts(t, rb); n != 0 || a.Conflicted(1) || b.Conflicted(1) {
		t.Errorf("%v conflicts", n)
	}
}

// What another server says is never taken for a head: of an event that the database does
// not have, no gap is left.
func TestALearntHeadThatIsTooHigh(t *testing.T) {
	t.Parallel()
	l := open(t, testenv.MariaDB(t), msglog.Options{})
	mustAppend(t, l, 1, entry(1, 1, "one"))
	l.Learn(1, 1000)
	l.Learn(2, 1000)
	if got := mustAppend(t, l, 1, entry(1, 2, "two"))[0]; got.Seq != 2 {
		t.Errorf("got %+v, want number 2", got)
	}
	if got := mustAppend(t, l, 2, entry(1, 3, "first"))[0]; got.Seq != 1 {
		t.Errorf("got %+v, want number 1", got)
	}
}

// A conflict is remembered of its conversation, and not of those that were in the same
// statement.
func TestAConflictIsRemembered(t *testing.T) {
	t.Parallel()
	cfg := testenv.MariaDB(t)
	a, b := open(t, cfg, msglog.Options{}), open(t, cfg, msglog.Options{})
	for id := range uint64(3) {
		mustAppend(t, a, id+1, entry(1, 1, "one"))
	}
	mustAppend(t, b, 2, entry(1, 2, "two")) // a does not know
	for id := range uint64(3) {
		mustAppend(t, a, id+1, entry(1, 3, "three"))
		if got := a.Conflicted(id + 1); got != (id == 1) {
			t.Errorf("conversation %d had a conflict: %v", id+1, got)
		}
	}
	if b.Conflicted(2) {
		t.Error("the one that came first remembers a conflict")
	}
}
