package arena

import (
	"fmt"
	"syscall"
)

// mount gives the database a file system in memory, of a fixed size.
func mount(path string) *Disk {
	err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize))
	if err != nil {
		err = fmt.Errorf("mounting a small file system for the database: %w (it needs root)", err)
	}
	return &Disk{path: path, Missing: err}
}

func unmount(path string) { _ = syscall.Unmount(path, syscall.MNT_DETACH) } // nothing mounted is fine
