package demo

import (
	"os/exec"
	"runtime"
	"syscall"

	"github.com/msrchat/msrchat/shared/testenv"
)

// child is a program that ends with this one, however that ends.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of its end; to be read after done
}

// start starts a program. It has a thread of its own until it ends, because the
// kernel's "die with your parent" is tied to the thread that forked.
func start(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = testenv.DieWithParent()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A session of its own: a tmux server may not touch the terminals of its clients
	// while one of them is its own, too.
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setpgid = true, false
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(c.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
	}()
	return c, <-started
}

// kill ends the program and waits for its end. Of none it does nothing.
func (c *child) kill() {
	if c == nil {
		return
	}
	_ = c.cmd.Process.Kill() // what has ended is what is wanted
	<-c.done
}
