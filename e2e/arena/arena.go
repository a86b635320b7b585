// Package arena is the whole system as processes on this machine, to inject
// faults into: a gate, status and chat servers built from this checkout, with a
// real MariaDB, Redis and Consul. Whatever dies is started again after a
// second, as under Nomad, and every connection between two of them goes through
// a wire that can be cut, slowed and blocked. Nothing here decides which faults
// are injected; see package faults.
package arena

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/planted"
)

// Heartbeat of the chat servers: short, so that "within one heartbeat" is quick
// to wait for.
const Heartbeat = 2 * time.Second

// Config says what to start.
type Config struct {
	// Root is the checkout that the servers are built from, Bin a folder where
	// Build has put them already; one of the two.
	Root, Bin string
	// BuildFlags are more flags for go build ("-race").
	BuildFlags []string
	// Chats and Status are how many there are; three and two if 0.
	Chats, Status int
	// Bug is planted in the chat servers; "" for none.
	Bug planted.Bug
	// TLS has the chat servers speak TLS with people, under a certificate of Roots.
	TLS bool
	// SMTP is where the gate sends its mails; "" for nowhere.
	SMTP string
	// Gate are more flags of the gate.
	Gate []string
	// Output gets a line for each step of the start; nil for none.
	Output io.Writer
}

// Arena is the running system. Its methods may be called from any goroutine.
type Arena struct {
	cfg   Config
	dir   string
	bin   string
	net   *network
	stop  context.CancelFunc
	alive sync.WaitGroup

	// Processes are all programs, in the order of their start.
	Processes []*Process
	// Disk is the database's, Clock that of Redis.
	Disk  *Disk
	Clock *Clock

	certificate certificate.Files // empty without TLS
	roots       *x509.CertPool

	mysql, redis, consul backend.Program
	catalog              *consul.Catalog
	gate                 string
	statuses             []string // where status answers, bypassing the wires
	chats                []chatPorts
	metrics              map[string]string
}

// Start builds and starts everything and waits until users can connect. Close
// must follow; where Start fails, it has cleaned up.
func Start(ctx context.Context, cfg Config) (*Arena, error) {
	if cfg.Chats == 0 {
		cfg.Chats = 3
	}
	if cfg.Status == 0 {
		cfg.Status = 2
	}
	if cfg.Output == nil {
		cfg.Output = io.Discard
	}
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	a := &Arena{cfg: cfg, dir: dir, bin: cfg.Bin, net: newNetwork(), stop: stop, metrics: make(map[string]string)}
	for _, step := range []struct {
		name string
		do   func(ctx, life context.Context) error
	}{
		{"build the servers", a.build},
		{"start the databases and Consul", a.startBackends},
		{"make certificates", a.makeCertificates},
		{"start status, chat and gate", a.startServers},
		{"wait until users can come", func(ctx, _ context.Context) error { return a.settle(ctx) }},
	} {
		started := time.Now()
		if err := step.do(ctx, life); err != nil {
			err = fmt.Errorf("arena: %s: %w%s", step.name, err, a.logTails())
			a.Close()
			return nil, err
		}
		fmt.Fprintf(cfg.Output, "%-32s %5.1f s\n", step.name, time.Since(started).Seconds())
	}
	return a, nil
}

// Close ends everything and removes the folder.
func (a *Arena) Close() {
	for _, w := range a.net.wires { // or a server could wait forever
		_ = w.Mend()
	}
	a.stop()
	a.alive.Wait()
	a.net.close()
	remove(a.dir)
}

// prefix names an arena's folder, with the process that it belongs to.
const prefix = "msrchat-arena-"

// folder makes one, and removes those that killed programs have left.
func folder() (string, error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range old {
		var pid int
		n, _ := fmt.Sscanf(filepath.Base(dir), prefix+"%d-", &pid)
		if n == 1 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			remove(dir)
		}
	}
	dir, err := os.MkdirTemp("", prefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"logs", "disk", "mysql", "redis", "consul"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	return dir, err
}

func remove(dir string) {
	unmount(filepath.Join(dir, "disk"))
	_ = os.RemoveAll(dir)
}

// build builds the servers, unless that was done.
func (a *Arena) build(ctx, _ context.Context) error {
	if a.bin != "" {
		return nil
	}
	a.bin = filepath.Join(a.dir, "bin")
	return Build(ctx, a.cfg.Root, a.bin, a.cfg.BuildFlags...)
}

// Build builds the servers of a checkout into a folder, for any number of
// arenas: with the tag that makes bugs plantable. If none is chosen they behave
// as without it. flags are more flags for go build.
func Build(ctx context.Context, root, bin string, flags ...string) error {
	args := append([]string{"build", "-tags", "planted", "-o", bin + string(filepath.Separator)}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./gate/cmd/gate", "./status/cmd/status", "./chat/cmd/chat")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the servers: %w\n%s", err, out)
	}
	return nil
}

// start starts a program that the arena keeps running.
func (a *Arena) start(life context.Context, p *Process) {
	p.log, p.ended = filepath.Join(a.dir, "logs", p.Name+".log"), make(chan struct{})
	if p.dir == "" {
		p.dir = a.dir
	}
	a.Processes = append(a.Processes, p)
	a.alive.Go(func() { p.keep(life) })
}

// Of lists the processes of a kind.
func (a *Arena) Of(kind string) (found []*Process) {
	for _, p := range a.Processes {
		if p.Kind == kind {
			found = append(found, p)
		}
	}
	return found
}

// Wires lists the wires of a pair.
func (a *Arena) Wires(pair Pair) (found []*Wire) {
	for _, w := range a.net.wires {
		if w.Pair == pair {
			found = append(found, w)
		}
	}
	return found
}

// Gate is where clients go.
func (a *Arena) Gate() string { return "http://" + a.gate }

// Redis is its address, bypassing the wires.
func (a *Arena) Redis() string { return a.redis.Addr }

// Chats are the chat servers' instances with their addresses for clients.
func (a *Arena) Chats() map[string]string {
	out := make(map[string]string)
	for _, w := range a.Wires(ClientChat) {
		out[w.Name] = w.Addr
	}
	return out
}

// ChatListeners and RelayListeners are where the chat servers listen, bypassing the
// wires, in the same order.
func (a *Arena) ChatListeners() (out []string) {
	for _, at := range a.chats {
		out = append(out, at.client)
	}
	return out
}

// RelayListeners are described at ChatListeners.
func (a *Arena) RelayListeners() (out []string) {
	for _, at := range a.chats {
		out = append(out, at.relay)
	}
	return out
}

// Metrics are where our own servers tell theirs, by name.
func (a *Arena) Metrics() map[string]string { return maps.Clone(a.metrics) }

// Spoil spoils frames between chat servers: "drop", "double", "reorder", or ""
// for an end.
func (a *Arena) Spoil(how string) error {
	return os.WriteFile(a.relayFaults(), []byte(how), 0o600)
}

func (a *Arena) relayFaults() string { return filepath.Join(a.dir, "relay-faults") }

// Dir is the arena's folder. Close removes it, and the next Start does where
// the process was killed.
func (a *Arena) Dir() string { return a.dir }

// Logs is the folder of the programs' logs, which Close removes.
func (a *Arena) Logs() string { return filepath.Join(a.dir, "logs") }

// crash is how the trace of a crashed Go program begins, or a report of a data
// race.
var crash = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE).*$`)

// Crashes lists what our own servers' logs hold of crashes and data races.
func (a *Arena) Crashes() (found []error) {
	for _, p := range a.Processes {
		if !slices.Contains([]string{"chat", "status", "gate"}, p.Kind) {
			continue
		}
		text, err := os.ReadFile(p.log)
		if err != nil {
			found = append(found, err)
		}
		for _, line := range crash.FindAll(text, -1) {
			found = append(found, fmt.Errorf("%s: %s", p.Name, line))
		}
	}
	return found
}

// logTails are the ends of all logs, for a start that failed.
func (a *Arena) logTails() string {
	const tail = 600
	var b strings.Builder
	for _, p := range a.Processes {
		text, err := os.ReadFile(p.log)
		if err == nil {
			fmt.Fprintf(&b, "\n%s:\n%s", p.Name, text[max(0, len(text)-tail):])
		}
	}
	return b.String()
}
