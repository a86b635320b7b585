package check_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// A run from a folder is judged as it was.
func TestCheckAgainLater(t *testing.T) {
	for _, m := range mutations()[:5] {
		h := healthy(7)
		m.spoil(h, rand.New(rand.NewPCG(7, 1)))
		h.run.Minimum = 3
		run := h.built()
		dir := filepath.Join(t.TempDir(), "run")
		if err := run.Save(dir); err != nil {
			t.Fatal(err)
		}
		again, err := check.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, got := run.Check(), again.Check()
		if diff := cmp.Diff(want, got); diff != "" || want.Err() == nil {
			t.Errorf("%s: the same run, loaded (+):\n%s", m.name, diff)
		}
		if !again.Quiet.Equal(run.Quiet) || again.Heartbeat != run.Heartbeat || again.Minimum != 3 ||
			len(again.Log) != len(run.Log) {
			t.Errorf("%s: loaded with %v, %v, %d", m.name, again.Quiet, again.Heartbeat, again.Minimum)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	good := filepath.Join(t.TempDir(), "run")
	if err := small().built().Save(good); err != nil {
		t.Fatal(err)
	}
	if _, err := check.Load(t.TempDir()); err == nil {
		t.Error("an empty folder was loaded")
	}
	for name, text := range map[string]string{
		"run.json": "{", "log.jsonl": `{"id":"00"}`, "journals/00002.jsonl": "x",
	} {
		path := filepath.Join(good, name)
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, content := range []string{text, string(was[:len(was)-8])} {
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := check.Load(good); err == nil {
				t.Errorf("loaded with %s of %.20q…", name, content)
			}
		}
		if err := os.WriteFile(path, was, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := check.Load(good); err != nil {
		t.Errorf("the repaired run: %v", err)
	}
	if err := os.Remove(filepath.Join(good, "journals/00001.jsonl")); err != nil {
		t.Fatal(err)
	}
	if _, err := check.Load(good); err == nil {
		t.Error("loaded although a journal is missing")
	}
}

// The report is for programs, too.
func TestReportAsJSON(t *testing.T) {
	h := small()
	h.device("bob").remove(h.device("bob").find(journal.Shown, 1))
	b, err := json.Marshal(h.built().Check())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Devices, Complete, Acked, Logged, Shown int
		Violations                              []struct {
			Kind     string
			Count    int
			Examples []string
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Devices != 3 || got.Complete != 3 || got.Acked != 4 || got.Logged != 4 || got.Shown != 11 ||
		len(got.Violations) != 1 || got.Violations[0].Kind != "missing" || got.Violations[0].Count != 1 {
		t.Errorf("%s", b)
	}
	if b, err = json.Marshal(small().built().Check()); err != nil || !bytes.Contains(b, []byte(`"violations":[]`)) {
		t.Errorf("%s (%v)", b, err)
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte(`{"conversation":7,"seq":1,"sender":1,"id":"00000000000000000000000000000001","text":1,"at_ms":1}`))
	dir := filepath.Join(f.TempDir(), "run")
	if err := small().built().Save(dir); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, "log.jsonl"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if run, err := check.Load(dir); err == nil {
			_ = run.Check().String() // whatever the log says
		}
	})
}
