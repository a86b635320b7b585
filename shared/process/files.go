package process

import (
	"fmt"
	"syscall"
)

// OpenFiles is how many files, and so connections, the process may have open at a
// time; a large number if there is no limit. Go raises the soft limit to the hard
// one at start.
func OpenFiles() (int, error) {
	const enough = 1 << 30
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return int(min(limit.Cur, enough)), nil
}
