package state_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/tools/state"
)

func TestUpAndTerraformExcludeEachOther(t *testing.T) {
	for _, tc := range []struct{ first, second, hint string }{
		{state.ByUp, state.ByTerraform, "./justw down"},
		{state.ByTerraform, state.ByUp, "./justw destroy local"},
	} {
		dir := open(t)
		if err := dir.Claim(tc.first); err != nil {
			t.Fatalf("claim by %s: %v", tc.first, err)
		}
		if err := dir.Claim(tc.first); err != nil {
			t.Errorf("second claim by %s: %v", tc.first, err)
		}
		err := dir.Claim(tc.second)
		if err == nil || !strings.Contains(err.Error(), tc.hint) {
			t.Errorf("claim by %s while %s holds it: %v, want a text with %q", tc.second, tc.first, err, tc.hint)
		}
		if err := dir.Remove(false); err != nil {
			t.Fatal(err)
		}
		if err := dir.Claim(tc.second); err != nil {
			t.Errorf("claim by %s after removal: %v", tc.second, err)
		}
	}
}

func TestPortBaseIsRemembered(t *testing.T) {
	dir := open(t)
	if base, err := dir.PortBase(); base != 0 || err != nil {
		t.Errorf("before: %d, %v", base, err)
	}
	if err := dir.SetPortBase(9100); err != nil {
		t.Fatal(err)
	}
	if base, err := dir.PortBase(); base != 0 || err != nil {
		t.Errorf("nobody is up: %d, %v", base, err)
	}
	release, err := dir.Hold("./justw try")
	if err != nil {
		t.Fatal(err)
	}
	if base, err := dir.PortBase(); base != 9100 || err != nil {
		t.Errorf("held: %d, %v", base, err)
	}
	release()
	if err := dir.Claim(state.ByUp); err != nil {
		t.Fatal(err)
	}
	if base, err := dir.PortBase(); base != 9100 || err != nil {
		t.Errorf("up: %d, %v", base, err)
	}
}

func TestRemoveKeepsDataUnlessEverythingGoes(t *testing.T) {
	dir := open(t)
	row := filepath.Join(dir.Data(), "mysql", "row")
	raft := filepath.Join(dir.Nomad(), "raft")
	for _, path := range []string{row, raft} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.Remove(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(row); err != nil {
		t.Errorf("data after down: %v", err)
	}
	if _, err := os.Stat(raft); !os.IsNotExist(err) {
		t.Errorf("agent state after down: %v, want it gone", err)
	}
	if err := dir.Remove(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir.Path()); !os.IsNotExist(err) {
		t.Errorf("folder after purge: %v, want it gone", err)
	}
}

func TestLockIsExclusiveAndNamesItsHolder(t *testing.T) {
	dir := open(t)
	unlock, err := dir.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Lock(); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	again, err := dir.Lock()
	if err != nil {
		t.Fatalf("after unlocking: %v", err)
	}
	again()
}

func TestOpenRefusesPathsThatConfigurationsCannotHold(t *testing.T) {
	for _, name := range []string{`quo"te`, "dol$lar", "new\nline", "per%cent"} {
		if _, err := state.Open(filepath.Join(t.TempDir(), name)); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	dir, err := state.Open(filepath.Join(t.TempDir(), "with space", "中文"))
	if err != nil || !filepath.IsAbs(dir.Path()) {
		t.Errorf("space and Chinese: %q, %v", dir.Path(), err)
	}
}

func open(t *testing.T) state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "fleet"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWhoHoldsTheLockForLongIsNamed(t *testing.T) {
	dir := open(t)
	if holder, err := dir.Holder(); holder != "" || err != nil {
		t.Errorf("before: %q, %v", holder, err)
	}
	release, err := dir.Hold("./justw try")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Lock(); err == nil || !strings.Contains(err.Error(), "./justw try runs in this checkout (pid ") {
		t.Errorf("a lock meanwhile: %v", err)
	}
	if holder, err := dir.Holder(); holder != "./justw try" || err != nil {
		t.Errorf("held: %q, %v", holder, err)
	}
	release()
	if holder, err := dir.Holder(); holder != "" || err != nil {
		t.Errorf("after: %q, %v", holder, err)
	}
	unlock, err := dir.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if holder, err := dir.Holder(); holder != "" || err != nil {
		t.Errorf("a lock of a short command is held by %q, %v", holder, err)
	}
}
