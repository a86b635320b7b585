package fleet

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/internal/catalog"
)

func TestObstaclesAreDescribedOncePerService(t *testing.T) {
	list := []obstacle{{"mysql", "not placed yet"}, {"chat", "1 of 2 healthy"}, {"chat", "ready (refused)"}}
	if got, want := services(list), "mysql, chat"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := describe(list), "mysql: not placed yet; chat: 1 of 2 healthy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnregistered(t *testing.T) {
	list := []catalog.Instance{
		{Service: "chat", ID: "11111111-a", Checks: []catalog.Check{{Name: "ready", Status: "passing"}}},
		{
			Service: "chat", ID: "22222222-b",
			Checks: []catalog.Check{{Name: "ready", Status: "critical", Output: "refused"}},
		},
		// Of the previous version.
		{Service: "chat", ID: "44444444-d", Checks: []catalog.Check{{Name: "ready", Status: "critical"}}},
		{Service: "gate", ID: "33333333-c"},
	}
	got := unregistered("chat", []string{"11111111-a", "22222222-b", "33333333-c"}, list)
	want := []obstacle{{"chat", "ready (refused)"}, {"chat", "33333333 is not in Consul yet"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(obstacle{})); diff != "" {
		t.Error(diff)
	}
}
