// Package child runs this program again for a part of a measurement that needs a process
// of its own.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// stopTimeout is how long a child may take to end.
const stopTimeout = 20 * time.Second

// Child is a process. It ends with Stop, or when it reads the end of In: then its parent
// may have died.
type Child struct {
	PID int
	In  io.WriteCloser
	Out io.Reader

	cmd *exec.Cmd
}

// Start runs this program with arguments, and with more in its environment.
func Start(ctx context.Context, args []string, environ ...string) (*Child, error) {
	return start(ctx, false, args, environ)
}

// StartSession is Start in a session of its own, whose priority the child can change.
func StartSession(ctx context.Context, args []string) (*Child, error) {
	return start(ctx, true, args, nil)
}

func start(ctx context.Context, session bool, args, environ []string) (*Child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stderr = os.Stderr
	detach(cmd, session)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", args, err)
	}
	return &Child{PID: cmd.Process.Pid, In: in, Out: out, cmd: cmd}, nil
}

// Kill ends it at once. Stop must still be called.
func (c *Child) Kill() { _ = c.cmd.Process.Kill() }

// Stop ends it and waits. last, if not nil, reads what it says at the end.
func (c *Child) Stop(last func(io.Reader) error) error {
	late := time.AfterFunc(stopTimeout, c.Kill)
	defer late.Stop()
	err := c.In.Close()
	if last != nil {
		err = errors.Join(err, last(c.Out))
	}
	return errors.Join(err, c.cmd.Wait())
}
