// Package machine finds out what the doctor checks on this machine. If the system
// does not provide it, the error is ErrUnknown.
package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// ErrUnknown says that this system does not provide the information.
var ErrUnknown = errors.New("not known on this system")

// SyncTime is the median time of a few small writes with fsync in a folder.
func SyncTime(folder string) (median time.Duration, err error) {
	file, err := os.CreateTemp(folder, ".doctor-")
	if err != nil {
		return 0, fmt.Errorf("measure fsync: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	const turns = 9
	block := make([]byte, 4096)
	took := make([]time.Duration, turns)
	for i := range took {
		began := time.Now()
		if _, err := file.Write(block); err != nil {
			return 0, fmt.Errorf("measure fsync: %w", err)
		}
		if err := file.Sync(); err != nil {
			return 0, fmt.Errorf("measure fsync: %w", err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[turns/2], nil
}

var version = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// Program looks for a program on PATH, in the sbin folders, and in the cache of
// built programs, and runs it with the argument ask ("version", "--version") to
// get its version.
func Program(ctx context.Context, name, ask string) (path, reported string) {
	path = find(name)
	if path == "" {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, ask)
	cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1") // or Terraform asks HashiCorp for updates
	output, err := cmd.Output()
	if err != nil {
		return path, ""
	}
	return path, version.FindString(string(output))
}

func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, folder := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path
		}
	}
	built, _ := filepath.Glob(filepath.Join(cache(), "bin", name+"-[0-9]*"))
	slices.Sort(built)
	for _, path := range slices.Backward(built) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// cache is the folder in which tools/get keeps what it built.
func cache() string {
	if dir := os.Getenv("MSRCHAT_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "msrchat")
}
