package faults_test

import (
	"fmt"
	"testing"

	"github.com/msrchat/msrchat/e2e/faults"
)

// A plan has to be the same for the same seed, or nobody could make a run again.
func TestPlanFollowsFromTheSeed(t *testing.T) {
	const rounds = 12
	kinds := faults.Kinds
	print := func(seed uint64) string { return fmt.Sprint(faults.Plan(seed, kinds, rounds*len(kinds))) }
	if again := print(7); print(7) != again {
		t.Error("two plans of one seed differ")
	}
	if print(7) == print(8) {
		t.Error("two seeds give one plan")
	}
	if short := fmt.Sprint(faults.Plan(7, kinds, 5)); print(7)[:len(short)-1] != short[:len(short)-1] {
		t.Error("a shorter plan is not the beginning of the longer one")
	}
	count, variants := make(map[string]int), make(map[string]int)
	for _, s := range faults.Plan(7, kinds, rounds*len(kinds)) {
		count[s.Kind.Name]++
		if s.Variant != "" {
			variants[s.Kind.Name+" "+s.Variant]++
		}
	}
	for _, k := range kinds {
		if count[k.Name] != rounds {
			t.Errorf("%s comes %d times in %d rounds", k.Name, count[k.Name], rounds)
		}
		for _, v := range k.Variants {
			if want := rounds / len(k.Variants); variants[k.Name+" "+v] != want {
				t.Errorf("%s %s comes %d times, want %d", k.Name, v, variants[k.Name+" "+v], want)
			}
		}
	}
}

func TestNamed(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  int
	}{
		{nil, len(faults.Kinds)},
		{[]string{"kill-chat"}, 1},
		{[]string{"kill"}, 6},
		{[]string{"kill", "kill-chat", "net"}, 12},
	} {
		if got, err := faults.Named(c.names); err != nil || len(got) != c.want {
			t.Errorf("%v: %d kinds, %v; want %d", c.names, len(got), err, c.want)
		}
	}
	if _, err := faults.Named([]string{"kil"}); err == nil {
		t.Error("a kind that does not exist was found")
	}
}
