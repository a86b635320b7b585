package backend

import "syscall"

// dieWithParent makes the kernel end a program when this one ends. Its session is
// its own, so that a terminal's Ctrl-C is left to this one.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
}
