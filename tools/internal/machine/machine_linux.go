package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Cgroups returns which version is mounted (0: none), and whether groups can be
// created there.
func Cgroups() (version int, writable bool, err error) {
	const root, accessWrite = "/sys/fs/cgroup", 2
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return 2, syscall.Access(root, accessWrite) == nil, nil
	}
	// Version 1 has a folder for each controller; Nomad needs cpuset and freezer.
	cpuset := filepath.Join(root, "cpuset")
	if _, err := os.Stat(filepath.Join(cpuset, "tasks")); errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	return 1, syscall.Access(cpuset, accessWrite) == nil, nil
}

// Memory is the available memory, in bytes.
func Memory() (uint64, error) {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "MemAvailable:"); found {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, ErrUnknown
}

// Disk is the free space below a folder, in bytes.
func Disk(folder string) (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", folder, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// FileSystem is the type of a folder's file system, and its mount options.
func FileSystem(folder string) (kind string, options []string, err error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", nil, fmt.Errorf("list mounts: %w", err)
	}
	defer file.Close()
	// proc(5): "36 35 98:0 /root /mount/point rw,noatime … - ext4 /dev/vda rw,…"
	const point, mountOptions = 4, 5
	longest := -1
	for lines := bufio.NewScanner(file); lines.Scan(); {
		left, right, found := strings.Cut(lines.Text(), " - ")
		fields, of := strings.Fields(left), strings.Fields(right)
		if !found || len(fields) <= mountOptions || len(of) < 3 {
			continue
		}
		at := strings.TrimSuffix(fields[point], "/")
		if len(at) >= longest && (folder == at || strings.HasPrefix(folder, at+"/")) {
			longest, kind = len(at), of[0]
			options = append(strings.Split(fields[mountOptions], ","), strings.Split(of[2], ",")...)
		}
	}
	if longest < 0 {
		return "", nil, ErrUnknown
	}
	return kind, options, nil
}

// ClockSynchronised says whether the kernel's clock is synchronised.
func ClockSynchronised() (bool, error) {
	const unsynchronised = 0x40 // STA_UNSYNC in adjtimex(2)
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, fmt.Errorf("read the kernel's clock: %w", err)
	}
	return t.Status&unsynchronised == 0, nil
}

// OpenFiles is the limit of a running process, or with 0 that of the processes
// that this one starts: Go's programs raise their soft limit to the hard one.
func OpenFiles(pid int) (uint64, error) {
	if pid == 0 {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return 0, fmt.Errorf("limit of open files: %w", err)
		}
		return limit.Max, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "Max open files"); found {
			soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if soft == "unlimited" {
				return math.MaxUint64, nil
			}
			return strconv.ParseUint(soft, 10, 64)
		}
	}
	return 0, ErrUnknown
}

// Preloaded is a library in a process's memory that is known to ignore syncs,
// "" if there is none.
func Preloaded(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return "", fmt.Errorf("libraries of process %d: %w", pid, err)
	}
	const library = "libeatmydata"
	if strings.Contains(string(text), library) {
		return library, nil
	}
	return "", nil
}
