// Package state is the folder of a local fleet: what is where in it, and who may
// change the fleet: one command at a time, and either `up` or Terraform.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The managers of a fleet.
const (
	ByUp        = "up"
	ByTerraform = "terraform"
)

// Dir is the folder of one fleet, .fleet in the checkout by default.
type Dir struct{ path string }

// Open returns the folder, which it creates if necessary. The path must not
// contain characters with a meaning in the agents' configuration files.
func Open(path string) (Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Dir{}, fmt.Errorf("state folder %s: %w", path, err)
	}
	if i := strings.IndexAny(abs, "\"\\$%'\n"); i >= 0 {
		return Dir{}, fmt.Errorf("state folder %s: its path must not contain %q; set MSRCHAT_STATE to another folder",
			abs, abs[i])
	}
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return Dir{}, fmt.Errorf("state folder: %w", err)
	}
	// With links resolved, as the kernel reports the folders of processes.
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return Dir{}, fmt.Errorf("state folder: %w", err)
	}
	return Dir{path: real}, nil
}

func (d Dir) Path() string { return d.path } // Path is the folder itself, absolute.

func (d Dir) Consul() string { return filepath.Join(d.path, "consul") } // Consul is that agent's folder.
func (d Dir) Nomad() string  { return filepath.Join(d.path, "nomad") }  // Nomad is that agent's folder.
func (d Dir) Data() string   { return filepath.Join(d.path, "data") }   // Data survives `down`.
func (d Dir) Logs() string   { return filepath.Join(d.path, "logs") }   // Logs holds the agents' logs.
func (d Dir) Run() string    { return filepath.Join(d.path, "run") }    // Run holds pid files.
func (d Dir) Bin() string    { return filepath.Join(d.path, "bin") }    // Bin holds one folder per build.
func (d Dir) Build() string  { return filepath.Join(d.path, "build") }  // Build is where go build writes.

func (d Dir) managedBy() string { return filepath.Join(d.path, "managed-by") }
func (d Dir) portBase() string  { return filepath.Join(d.path, "port-base") }

// Manager is the manager of the fleet, "" if it has none.
func (d Dir) Manager() (string, error) { return readWord(d.managedBy()) }

// Claim makes who the manager, unless another one is.
func (d Dir) Claim(who string) error {
	holder, err := d.Manager()
	if err != nil {
		return err
	}
	switch holder {
	case who:
		return nil
	case "":
		return os.WriteFile(d.managedBy(), []byte(who+"\n"), 0o644)
	case ByTerraform:
		return errors.New("this fleet is managed by Terraform (./justw apply local): " +
			"take it down with ./justw destroy local first")
	default:
		return errors.New("this fleet was started with ./justw up: take it down with ./justw down first")
	}
}

// PortBase is the base of the fleet that is up, or of what holds the lock instead, 0 if
// there is neither: one that was killed has left its base.
func (d Dir) PortBase() (int, error) {
	manager, err := d.Manager()
	if err != nil {
		return 0, err
	}
	holder, err := d.Holder()
	if err != nil || manager == "" && holder == "" {
		return 0, err
	}
	word, err := readWord(d.portBase())
	if err != nil || word == "" {
		return 0, err
	}
	base, err := strconv.Atoi(word)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", d.portBase(), err)
	}
	return base, nil
}

// ForgetPortBase undoes SetPortBase.
func (d Dir) ForgetPortBase() error { return os.RemoveAll(d.portBase()) }

// SetPortBase records the base for later commands.
func (d Dir) SetPortBase(base int) error {
	return os.WriteFile(d.portBase(), []byte(strconv.Itoa(base)+"\n"), 0o644)
}

// Remove removes the agents' state, the manager and the port base. The databases'
// files, the builds and the logs stay unless everything is removed.
func (d Dir) Remove(everything bool) error {
	if everything {
		return os.RemoveAll(d.path)
	}
	var errs []error
	for _, path := range []string{d.Consul(), d.Nomad(), d.Run(), d.managedBy(), d.portBase()} {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// Lock keeps two commands from changing one fleet at the same time. The kernel
// releases it when the process ends, unlock releases it earlier.
func (d Dir) Lock() (unlock func(), err error) { return d.lock("") }

// Hold is Lock for a command that others should name to people, because it holds the
// lock for as long as it is let run.
func (d Dir) Hold(command string) (release func(), err error) { return d.lock(command) }

func (d Dir) lock(command string) (unlock func(), err error) {
	if err := os.MkdirAll(d.path, 0o755); err != nil { // removed since it was opened
		return nil, fmt.Errorf("lock the fleet: %w", err)
	}
	file, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the fleet: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		pid, holder, _ := d.holder()
		if holder != "" {
			return nil, fmt.Errorf("%s runs in this checkout (pid %s): end it with Ctrl-C first", holder, pid)
		}
		return nil, fmt.Errorf("another command is changing this fleet (pid %s): wait for it, or end it", pid)
	}
	// The text is only for the messages above; the kernel holds the lock.
	_ = file.Truncate(0)
	_, _ = file.WriteAt([]byte(strings.TrimSpace(strconv.Itoa(os.Getpid())+" "+command)+"\n"), 0)
	return func() { _ = file.Close() }, nil
}

func (d Dir) lockFile() string { return filepath.Join(d.path, "lock") }

func (d Dir) holder() (pid, command string, err error) {
	text, err := readWord(d.lockFile())
	pid, command, _ = strings.Cut(text, " ")
	return pid, command, err
}

// Holder is the command that holds the lock by Hold, "" if none does.
func (d Dir) Holder() (string, error) {
	file, err := os.Open(d.lockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	if syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return "", nil
	}
	_, command, err := d.holder()
	return command, err
}

func readWord(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}
