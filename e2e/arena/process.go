package arena

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/shared/backend"
)

const (
	// restartDelay is how long a program that ended stays down, as under Nomad.
	restartDelay = time.Second
	// stopLimit is how long a program may take to end at the arena's end.
	stopLimit = 10 * time.Second
)

// Process is a program that the arena keeps running: whenever it ends, it is
// started again, on the same ports. Its methods may be called from any
// goroutine.
type Process struct {
	// Kind is what it is ("chat"), Name which one ("chat-2").
	Kind, Name string

	path string
	args []string
	env  []string
	dir  string
	log  string // file

	ended chan struct{} // closed when it has ended for good

	mu     sync.Mutex // owns the fields below
	cmd    *exec.Cmd  // nil while it does not run
	starts int
}

// keep runs the program until ctx ends, and then ends it.
func (p *Process) keep(ctx context.Context) {
	defer close(p.ended)
	for ctx.Err() == nil {
		exited, err := p.start()
		if err == nil {
			stop := context.AfterFunc(ctx, p.stop)
			<-exited
			stop()
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartDelay):
		}
	}
}

func (p *Process) start() (ended <-chan struct{}, err error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts++
	fmt.Fprintf(log, "--- start %d of %s at %s\n", p.starts, p.Name, time.Now().Format(time.RFC3339Nano))
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, append(os.Environ(), p.env...), log, log
	exited, err := backend.Launch(cmd)
	if err != nil {
		fmt.Fprintf(log, "--- cannot start: %v\n", err)
		return nil, errors.Join(err, log.Close())
	}
	p.cmd = cmd
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-exited
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cmd = nil
		fmt.Fprintf(log, "--- ended at %s: %v\n", time.Now().Format(time.RFC3339Nano), cmd.ProcessState)
		_ = log.Close()
	}()
	return done, nil
}

// Signal sends a signal. An error says that it does not run.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return p.cmd.Process.Signal(sig)
}

// Starts is how many times the program was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// stop ends the program, by SIGKILL if it does not end in time, and waits for that.
func (p *Process) stop() {
	_ = p.Signal(syscall.SIGTERM) // it may have ended already
	_ = p.Signal(syscall.SIGCONT)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = p.Signal(syscall.SIGKILL)
	}
}
