package arena

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// diskSize is the size of the file system for the database: its empty files
// take 200 MB, half an hour at 500 messages a second some 400 MB.
const diskSize = 1200 << 20

// Disk is the small file system that only the database uses.
type Disk struct {
	path string
	// Missing says why there is none; nil when there is.
	Missing error
}

// fill is the file that takes what is left of the disk.
func (d *Disk) fill() string { return filepath.Join(d.path, "full") }

// Fill uses up the disk's space until Empty.
func (d *Disk) Fill() error {
	if d.Missing != nil {
		return d.Missing
	}
	f, err := os.OpenFile(d.fill(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 16 // down to the last page
		} else if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}

// Empty frees the space again.
func (d *Disk) Empty() error {
	if err := os.Remove(d.fill()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
