package nodes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// groupRoot is the mount point of the control groups.
const groupRoot = "/sys/fs/cgroup"

// allocations lists the ids of all allocations of the fleet in folder: Nomad
// names control groups after them.
func allocations(folder string) []string {
	paths, _ := filepath.Glob(filepath.Join(folder, "*", "nomad", "data", "alloc", "*"))
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}

// removeGroups removes the control groups of allocations, which a killed Nomad
// leaves behind. Their processes must be gone.
func removeGroups(allocations []string) error {
	if len(allocations) == 0 {
		return nil
	}
	ours := func(name string) bool {
		return slices.ContainsFunc(allocations, func(id string) bool { return strings.HasPrefix(name, id) })
	}
	var found []string
	err := filepath.WalkDir(groupRoot, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile, or not readable
		}
		if entry.IsDir() && (ours(entry.Name()) || len(found) > 0 && strings.HasPrefix(path, found[len(found)-1]+"/")) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range slices.Backward(found) { // inner ones first
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
