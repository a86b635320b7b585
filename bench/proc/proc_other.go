//go:build !linux

package proc

// Read measures nothing here.
func Read(int) (Usage, error) { return Usage{}, ErrNotMeasured }

// Listener finds no process here.
func Listener(string) (int, error) { return 0, ErrNotMeasured }
