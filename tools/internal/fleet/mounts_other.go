//go:build !linux

package fleet

// unmountBelow does nothing: Nomad mounts anything only on Linux.
func unmountBelow(string) error { return nil }

func mountsBelow(string) ([]string, error) { return nil, nil }
