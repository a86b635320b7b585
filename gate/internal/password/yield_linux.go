package password

import (
	"runtime"
	"syscall"
)

// nice is how far hashing stands back: a thread with it gets about a tenth of what
// another that wants the same core gets.
const nice = 10

// yield lets the calling goroutine's thread stand back behind everything else on this
// machine. The thread ends with the goroutine, because it must not be used for others.
func yield() {
	runtime.LockOSThread()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), nice) // never an error upwards
}
