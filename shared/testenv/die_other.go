//go:build !linux

package testenv

import "syscall"

// DieWithParent has no equivalent here: a killed test binary leaves programs.
func DieWithParent() *syscall.SysProcAttr { return nil }
