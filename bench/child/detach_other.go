//go:build !unix

package child

import "os/exec"

func detach(*exec.Cmd, bool) {}
