package job_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/state"
)

const checkout = "../../.."

func TestSelectKeepsStartingOrderAndRefusesUnknownNames(t *testing.T) {
	jobs, err := job.Select([]string{"gate", "mysql"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"mysql", "gate"}, job.Names(jobs)); diff != "" {
		t.Error(diff)
	}
	all, err := job.Select(nil)
	if err != nil || len(all) != len(job.All()) {
		t.Errorf("without names: %v, %v; want all", job.Names(all), err)
	}
	if _, err := job.Select([]string{"mysql", "mongo"}); err == nil || !strings.Contains(err.Error(), "mongo") ||
		!strings.Contains(err.Error(), "redis") {
		t.Errorf("unknown name: %v; want a text that names it and what there is", err)
	}
}

func TestStagesAscend(t *testing.T) {
	last := 0
	for _, j := range job.All() {
		if j.Stage < last {
			t.Errorf("%s of stage %d comes after stage %d", j.Name, j.Stage, last)
		}
		last = j.Stage
	}
}

// Every required variable of every job file is among the local fleet's, and
// every one of those is declared somewhere. This finds misspelt names.
func TestLocalVarsFitTheJobFiles(t *testing.T) {
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table, err := ports.New(9000)
	if err != nil {
		t.Fatal(err)
	}
	vars := job.LocalVars(dir, table, "/x/bin")
	unused := map[string]bool{}
	for name := range vars {
		unused[name] = true
	}
	for _, j := range job.All() {
		text, err := os.ReadFile(filepath.Join(checkout, j.File()))
		if err != nil {
			t.Fatal(err)
		}
		declared, err := j.Declared(checkout, vars)
		if err != nil {
			t.Fatal(err)
		}
		for name := range declared {
			delete(unused, name)
		}
		for name, block := range variableBlocks(string(text)) {
			if _, given := declared[name]; !given && !strings.Contains(block, "default ") {
				t.Errorf("%s: variable %q has no default and the local fleet gives it no value", j.File(), name)
			}
			if !strings.Contains(block, "description = ") {
				t.Errorf("%s: variable %q has no description", j.File(), name)
			}
		}
	}
	for name := range unused {
		t.Errorf("no job file declares %q", name)
	}
}

func variableBlocks(text string) map[string]string {
	blocks := map[string]string{}
	for _, part := range strings.Split("\n"+text, "\nvariable \"")[1:] {
		name, rest, _ := strings.Cut(part, "\"")
		block, _, _ := strings.Cut(rest, "\n}")
		blocks[name] = block
	}
	return blocks
}

func TestEnviron(t *testing.T) {
	got := job.Vars{"b": "2 3", "a": "1"}.Environ()
	if diff := cmp.Diff([]string{"NOMAD_VAR_a=1", "NOMAD_VAR_b=2 3"}, got); diff != "" {
		t.Error(diff)
	}
}
