package arena_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/shared/testenv"
)

// What is killed comes back on the same ports; a wire that is cut is noticed,
// and works again when it is mended; nothing is left behind.
func TestArenaHealsItself(t *testing.T) {
	for _, program := range []string{"mariadbd", "redis-server", "consul"} {
		testenv.Find(t, program)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	a, err := arena.Start(t.Context(), arena.Config{Root: root, Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	whole := func() bool { return a.Whole(t.Context()) == nil }

	for _, kind := range []string{"chat", "mysql"} {
		p := a.Of(kind)[0]
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, p.Name+" was started again", func() bool { return p.Starts() == 2 })
		testenv.Until(t, "everything works after "+p.Name, whole)
	}
	for name, w := range map[string]struct {
		wire  *arena.Wire
		fault func(*arena.Wire) error
	}{
		"client-chat cut":   {a.Wires(arena.ClientChat)[0], (*arena.Wire).Cut},  // Consul's check finds it
		"status-chat hang":  {a.Wires(arena.StatusChat)[0], (*arena.Wire).Hang}, // no reports arrive
		"status-chat reset": {a.Wires(arena.StatusChat)[1], (*arena.Wire).Reset},
	} {
		if err := w.fault(w.wire); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, name+" is noticed", func() bool { return !whole() })
		if err := w.wire.Mend(); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "everything works after "+name, whole)
	}
	a.Close()
	if _, err := os.Stat(a.Logs()); !os.IsNotExist(err) {
		t.Errorf("the arena's folder is still there: %v", err)
	}
	for _, p := range a.Processes {
		if p.Signal(syscall.Signal(0)) == nil {
			t.Errorf("%s still runs", p.Name)
		}
	}
}

// An arena that cannot start says why and cleans up.
func TestArenaThatCannotStart(t *testing.T) {
	before := folders(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := arena.Start(ctx, arena.Config{Root: "../.."}); err == nil {
		t.Fatal("an arena started although it was to end")
	}
	if after := folders(t); len(after) > len(before) {
		t.Errorf("folders before %v, after %v", before, after)
	}
}

func folders(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "msrchat-arena-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
