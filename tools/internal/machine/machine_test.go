package machine_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/tools/internal/machine"
)

// The values differ between machines; that they are plausible does not.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	if took, err := machine.SyncTime(dir); err != nil || took <= 0 {
		t.Errorf("a sync takes %v, %v", took, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := machine.SyncTime(dir + "/absent"); err == nil {
		t.Error("a folder that is not there can be written to")
	}
	if path, version := machine.Program(t.Context(), "go", "version"); path == "" || !strings.HasPrefix(version, "1.") {
		t.Errorf("go is %q %q", path, version)
	}
	if path, version := machine.Program(t.Context(), "no-such-program", "version"); path != "" || version != "" {
		t.Errorf("found %q %q", path, version)
	}
	memory, err := machine.Memory()
	if errors.Is(err, machine.ErrUnknown) {
		t.Skip("not run: the rest is not known on this system")
	}
	if err != nil || memory < 1<<20 {
		t.Errorf("%d bytes of memory, %v", memory, err)
	}
	if free, err := machine.Disk(dir); err != nil || free == 0 {
		t.Errorf("%d bytes free, %v", free, err)
	}
	if kind, options, err := machine.FileSystem(dir); err != nil || kind == "" || len(options) == 0 {
		t.Errorf("file system %q %v, %v", kind, options, err)
	}
	own, err := machine.OpenFiles(os.Getpid())
	if err != nil || own < 64 {
		t.Errorf("%d open files, %v", own, err)
	}
	if started, err := machine.OpenFiles(0); err != nil || started < own {
		t.Errorf("%d open files for what is started, %d here, %v", started, own, err)
	}
	if library, err := machine.Preloaded(os.Getpid()); err != nil || library != "" {
		t.Errorf("preloaded: %q, %v", library, err)
	}
	if version, _, err := machine.Cgroups(); err != nil || version < 0 || version > 2 {
		t.Errorf("cgroups %d, %v", version, err)
	}
	if _, err := machine.ClockSynchronised(); err != nil {
		t.Error(err)
	}
}
