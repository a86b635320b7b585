//go:build !linux

package machine

// On other systems there is no simple way to find these out; see the Linux file.

// Cgroups is not known.
func Cgroups() (version int, writable bool, err error) { return 0, false, ErrUnknown }

// Memory is not known.
func Memory() (uint64, error) { return 0, ErrUnknown }

// Disk is not known.
func Disk(string) (uint64, error) { return 0, ErrUnknown }

// FileSystem is not known.
func FileSystem(string) (kind string, options []string, err error) { return "", nil, ErrUnknown }

// ClockSynchronised is not known.
func ClockSynchronised() (bool, error) { return false, ErrUnknown }

// OpenFiles is not known.
func OpenFiles(int) (uint64, error) { return 0, ErrUnknown }

// Preloaded is not known.
func Preloaded(int) (string, error) { return "", ErrUnknown }
