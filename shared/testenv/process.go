// Package testenv starts the real databases and the real Consul for tests, on
// free loopback ports, and stops them with the test. A test whose program is
// not installed is skipped with "not run: …".
package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/backend"
)

// startLimit is how long a program may take to answer on a busy machine.
const startLimit = 60 * time.Second

// Process is one outside program that a test may kill and start again. Its
// methods are for the test's goroutine; a mutex keeps the cleanup apart.
type Process struct {
	backend.Program
	dir string // its folder

	mu     sync.Mutex
	cmd    *exec.Cmd
	output *tail
	exited <-chan struct{}
}

// Find returns the program's path, or skips the test.
func Find(t testing.TB, name string) string {
	t.Helper()
	path, err := backend.Locate(name)
	must(t, err)
	return path
}

// FreePort returns a loopback port that nobody listened on a moment ago, and
// that was not returned before.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := backend.PickPort()
	must(t, err)
	return port
}

// must ends the test on an error: a program that is not installed skips it.
func must(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, backend.ErrNotInstalled) {
		t.Skipf("not run: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// prepare gives a program a folder of its own.
func prepare(t testing.TB, program func(dir string) (backend.Program, error)) *Process {
	t.Helper()
	dir, err := scratch()
	must(t, err)
	p := &Process{dir: dir}
	p.Program, err = program(dir)
	must(t, err)
	return p
}

// start starts a program that ends with the test.
func start(t testing.TB, program func(dir string) (backend.Program, error)) *Process {
	t.Helper()
	p := prepare(t, program)
	t.Cleanup(func() {
		p.Kill()
		_ = os.RemoveAll(p.dir)
	})
	p.Start(t)
	return p
}

// Start runs the program and waits until it answers. It fails the test when it
// does not, with the program's last output.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		t.Fatalf("%s runs already", p.Name)
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir = p.dir
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: backend.Credential(p.User)}
	exited, err := backend.Launch(cmd)
	if err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
	p.cmd, p.output, p.exited = cmd, out, exited
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		err := p.Ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-exited:
			p.cmd = nil
			t.Fatalf("%s ended at once:\n%s", p.Name, out)
		case <-ctx.Done():
			t.Fatalf("%s does not answer: %v\n%s", p.Name, err, out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Signal sends a signal without waiting; SIGSTOP and SIGCONT are of use.
func (p *Process) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		t.Fatalf("%s does not run", p.Name)
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Stop ends the program with the signal and waits until it is gone; a program
// that ignores it for half a minute is killed. Stopping twice is fine.
func (p *Process) Stop(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig) // a process that is gone already is what is wanted
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.cmd = nil
}

// Kill is kill -9.
func (p *Process) Kill() { p.Stop(syscall.SIGKILL) }

// tail keeps the last output of a program; its mutex owns the buffer.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailLimit = 8 << 10

func (o *tail) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	if over := len(o.buf) - tailLimit; over > 0 {
		o.buf = append(o.buf[:0], o.buf[over:]...)
	}
	return len(b), nil
}

func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(bytes.ToValidUTF8(o.buf, nil))
}

// scratch makes a directory that outlives no process: what a killed test run
// left behind is removed by the next one.
func scratch() (string, error) {
	const prefix = "msrchat-test-"
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range old {
		var pid int
		n, _ := fmt.Sscanf(filepath.Base(dir), prefix+"%d-", &pid)
		if n == 1 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
	return os.MkdirTemp("", prefix+strconv.Itoa(os.Getpid())+"-")
}
