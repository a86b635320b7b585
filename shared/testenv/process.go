// Package testenv starts the real databases and the real Consul for tests, on
// free loopback ports, and stops them with the test. A test whose program is
// not installed is skipped with "not run: …".
package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startLimit is how long a program may take to answer on a busy machine.
const startLimit = 60 * time.Second

// Process is one outside program that a test may kill and start again. Its
// methods are for the test's goroutine; a mutex keeps the cleanup apart.
type Process struct {
	name string
	path string
	args []string
	dir  string
	// ready says whether the program answers.
	ready func(ctx context.Context) error

	mu     sync.Mutex
	cmd    *exec.Cmd
	output *tail
	exited chan struct{}
}

// Find returns the program's path, or skips the test.
func Find(t testing.TB, name string) string {
	t.Helper()
	path, err := Locate(name)
	if err != nil {
		t.Skipf("not run: %v", err)
	}
	return path
}

// Locate returns the program's path, looking beyond PATH in the places where
// packages and this project's set-up put it.
func Locate(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	places := []string{"/usr/sbin", "/usr/local/sbin", "/usr/bin"}
	cache := os.Getenv("MSRCHAT_CACHE")
	if cache == "" {
		if dir, err := os.UserCacheDir(); err == nil {
			cache = filepath.Join(dir, "msrchat")
		}
	}
	for _, dir := range places {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	built, _ := filepath.Glob(filepath.Join(cache, "bin", name+"-[0-9]*"))
	slices.Sort(built)
	for _, path := range slices.Backward(built) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (./justw test brings it)", name)
}

// Ports for programs under test lie below those that the system gives to
// outgoing connections (32768 and up), any of which may take a port between its
// choice and its use.
const (
	firstPort = 20_000
	ports     = 12_000
)

// given are the ports that this test binary has chosen; its mutex owns it.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: make(map[int]bool)}

// FreePort returns a loopback port that nobody listened on a moment ago, and
// that was not returned before.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := PickPort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// PickPort is FreePort for programs.
func PickPort() (int, error) {
	given.Lock()
	defer given.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(ports)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil || given.ports[port] {
			if err == nil {
				_ = l.Close()
			}
			continue
		}
		_ = l.Close()
		given.ports[port] = true
		return port, nil
	}
	return 0, errors.New("no free port")
}

// Start runs the program and waits until it answers. It fails the test when it
// does not, with the program's last output.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		t.Fatalf("%s runs already", p.name)
	}
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = DieWithParent()
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	exited, err := launch(cmd)
	if err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	p.cmd, p.output, p.exited = cmd, out, exited
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		err := p.ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-exited:
			p.cmd = nil
			t.Fatalf("%s ended at once:\n%s", p.name, out)
		case <-ctx.Done():
			t.Fatalf("%s does not answer: %v\n%s", p.name, err, out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// launch starts cmd from a thread that stays: the kernel's "die with your
// parent" is tied to the thread that forked.
func launch(cmd *exec.Cmd) (exited chan struct{}, err error) {
	started, exited := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // however it ends, the test sees it in what follows
		}
		close(exited)
	}()
	return exited, <-started
}

// Signal sends a signal without waiting; SIGSTOP and SIGCONT are of use.
func (p *Process) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		t.Fatalf("%s does not run", p.name)
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal %s: %v", p.name, err)
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
		if n, _ := fmt.Sscanf(filepath.Base(dir), prefix+"%d-", &pid); n == 1 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
	return os.MkdirTemp("", prefix+strconv.Itoa(os.Getpid())+"-")
}
