// Package backend runs the outside programs that the servers need (MariaDB, Redis)
// without Nomad, on this machine's loopback: for tests (package testenv) and for
// `./justw try`.
package backend

import (
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
)

// Program says how to run an outside program. Package testenv runs it for tests,
// e2e/arena and try in their own ways.
type Program struct {
	Name, Path string
	Args       []string
	// Addr is where it answers on loopback, Ready whether it does.
	Addr  string
	Ready func(ctx context.Context) error
}

// ErrNotInstalled says that a program is missing.
var ErrNotInstalled = errors.New("is not installed (tools/get brings it)")

// Locate returns a program's path, looking beyond PATH in the places where
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
	return "", fmt.Errorf("%s %w", name, ErrNotInstalled)
}

// Free ports lie below those that the system gives to
// outgoing connections (32768 and up), any of which may take a port between its
// choice and its use.
const (
	firstPort = 20_000
	ports     = 12_000
)

// given are the ports that this process has chosen; its mutex owns it.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: make(map[int]bool)}

// PickPort returns a loopback port that nobody listened on a moment ago, and
// that was not returned before.
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

// address is the port on loopback.
func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Launch starts cmd; exited is closed when it has ended, and cmd.ProcessState says
// how. It ends with this program, whatever ends that: it is started from a thread
// that stays, to which the kernel ties "die with your parent".
func Launch(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = dieWithParent()
	started, gone := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return gone, <-started
}
