//go:build unix

package child

import (
	"os/exec"
	"syscall"
)

// detach keeps Ctrl-C from the child: its parent still measures with it.
func detach(cmd *exec.Cmd, session bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !session, Setsid: session}
}
