//go:build !linux

package testenv

import "syscall"

// dieWithParent cannot keep its word here: a killed test binary leaves programs.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
