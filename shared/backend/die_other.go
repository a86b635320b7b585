//go:build !linux

package backend

import "syscall"

// dieWithParent cannot keep its word here: a killed parent leaves programs.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
