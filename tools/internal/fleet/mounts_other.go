//go:build !linux

package fleet

// unmountBelow has nothing to do: only on Linux Nomad mounts anything.
func unmountBelow(string) error { return nil }

func mountsBelow(string) ([]string, error) { return nil, nil }
