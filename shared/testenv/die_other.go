//go:build !linux

package testenv

import "syscall"

// dieWithParent has no equivalent here: a killed test binary leaves programs.
func dieWithParent() *syscall.SysProcAttr { return nil }
