package testenv

import "syscall"

// DieWithParent makes the kernel end a program when the test binary dies.
func DieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
