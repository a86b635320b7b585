// Package backend runs the outside programs that the servers need (MariaDB, Redis)
// without Nomad, on this machine's loopback: for tests (package testenv) and for
// `./justw try`.
package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

// Program says how to run an outside program. Package testenv runs it for tests,
// e2e/arena and try in their own ways.
type Program struct {
	Name, Path string
	Args       []string
	// User runs it; nil is the present one.
	User *osuser.User
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

// Address is the port on loopback.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Credential makes a program run as a user; nil is the present one.
func Credential(as *osuser.User) *syscall.Credential {
	if as == nil {
		return nil
	}
	uid, _ := strconv.ParseUint(as.Uid, 10, 32) // a number, by os/user
	gid, _ := strconv.ParseUint(as.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// give makes a user the owner of a folder.
func give(dir string, to *osuser.User) error {
	as := Credential(to)
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(as.Uid), int(as.Gid))) //nolint:gosec // nobody else can write there
	})
}

// Launch starts cmd, as the user that its attributes name; exited is closed when it
// has ended, and cmd.ProcessState says how. It ends with this program, whatever ends
// that: it is started from a thread that stays, to which the kernel ties "die with
// your parent".
func Launch(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	attributes := dieWithParent()
	if cmd.SysProcAttr != nil {
		attributes.Credential = cmd.SysProcAttr.Credential
	}
	cmd.SysProcAttr = attributes
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
