//go:build !linux

package machine

// Elsewhere nothing of this can be told in a simple way.

func Cgroups() (version int, writable bool, err error)             { return 0, false, ErrUnknown } // Cgroups: see the Linux file.
func Memory() (uint64, error)                                      { return 0, ErrUnknown }        // Memory: see the Linux file.
func Disk(string) (uint64, error)                                  { return 0, ErrUnknown }        // Disk: see the Linux file.
func FileSystem(string) (kind string, options []string, err error) { return "", nil, ErrUnknown }  // FileSystem: see the Linux file.
func ClockSynchronised() (bool, error)                             { return false, ErrUnknown }    // ClockSynchronised: see the Linux file.
func OpenFiles(int) (uint64, error)                                { return 0, ErrUnknown }        // OpenFiles: see the Linux file.
func Preloaded(int) (string, error)                                { return "", ErrUnknown }       // Preloaded: see the Linux file.
