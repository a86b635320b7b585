package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// lowest is the largest nice value.
const lowest = 19

// Highest lets this process run before all ordinary ones. It needs the right to (root has it);
// without it nothing changes. Processes that are started later are like this one until they
// call Lowest.
func Highest() error {
	return threads(&unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1})
}

// Lowest lets all others run before this process, which must lead a session of its own.
func Lowest() error {
	err := threads(&unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: lowest})
	// Where the kernel schedules sessions as groups, a thread's own value counts only within
	// its session.
	group := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(lowest)), 0)
	if errors.Is(group, os.ErrNotExist) || errors.Is(group, unix.EIO) {
		group = nil // it does not
	}
	return errors.Join(err, group)
}

// threads changes all threads of this process. A new thread is like the one that made it, so
// it ends when a look at them finds none that was not changed.
func threads(attr *unix.SchedAttr) error {
	changed := make(map[int]bool)
	for more := true; more; {
		more = false
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		for _, e := range entries {
			id, err := strconv.Atoi(e.Name())
			if err != nil || changed[id] {
				continue
			}
			if err := unix.SchedSetAttr(id, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("change the priority of a thread: %w", err)
			}
			changed[id], more = true, true
		}
	}
	return nil
}
