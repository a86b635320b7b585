// Package agent runs the Consul and Nomad agents of a local fleet: it writes
// their configuration, starts them detached from the terminal, and stops them.
package agent

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

//go:embed consul.hcl.tmpl
var consulTemplate string

//go:embed nomad.hcl.tmpl
var nomadTemplate string

// stopGrace is how long an agent may take to end. Both need less than a second
// when their jobs are gone; Nomad may be writing a Raft snapshot.
const stopGrace = 15 * time.Second

// Agent is one of the two; see Consul and Nomad.
type Agent struct {
	name     string
	folder   string // its state and configuration
	logFile  string
	pidFile  string
	template string
	values   any
	args     []string // after "agent"
	// namespace is the network namespace that it runs in; "" is the caller's.
	namespace string
}

// Consul is the Consul agent of a node.
func Consul(dir state.Dir, table ports.Table, node Node) Agent {
	a := newAgent("consul", dir, dir.Consul(), consulTemplate, map[string]any{
		"Data":  filepath.Join(dir.Consul(), "data"),
		"Ports": table,
		"Node":  node,
	}, "-config-file")
	a.namespace = node.Namespace
	return a
}

// Nomad is the Nomad agent of a node. It does not use the dynamic ports in
// reserved, a list from ports.Table.Reserved.
func Nomad(dir state.Dir, table ports.Table, node Node, reserved string) Agent {
	return newNomad(dir, table, node, map[string]any{"Client": true, "Reserved": reserved})
}

// NomadFirst is the Nomad agent without its client, for the very first start: a
// client that registers before the new server has its keys is refused and tries
// again only after 15 to 30 s. Stop it once AwaitKeys returned, and start
// Nomad. It is not needed if Nomad has state already.
func NomadFirst(dir state.Dir, table ports.Table, node Node) (first Agent, needed bool) {
	_, err := os.Stat(filepath.Join(nomadData(dir), "server", "raft"))
	return newNomad(dir, table, node, map[string]any{"Client": false}), errors.Is(err, os.ErrNotExist)
}

func nomadData(dir state.Dir) string { return filepath.Join(dir.Nomad(), "data") }

func newNomad(dir state.Dir, table ports.Table, node Node, values map[string]any) Agent {
	values["Data"] = nomadData(dir)
	values["Ports"] = table
	values["Node"] = node
	values["DynamicFirst"], values["DynamicLast"] = table.Dynamic()
	a := newAgent("nomad", dir, dir.Nomad(), nomadTemplate, values, "-config")
	a.namespace = node.Namespace
	return a
}

func newAgent(name string, dir state.Dir, folder, text string, values any, configFlag string) Agent {
	return Agent{
		name:     name,
		folder:   folder,
		logFile:  filepath.Join(dir.Logs(), name+".log"),
		pidFile:  filepath.Join(dir.Run(), name+".pid"),
		template: text,
		values:   values,
		args:     []string{"agent", configFlag, filepath.Join(folder, "agent.hcl")},
	}
}

func (a Agent) Name() string    { return a.name }    // Name is "consul" or "nomad".
func (a Agent) LogFile() string { return a.logFile } // LogFile is its output.

// Process returns the agent's process, if it runs.
func (a Agent) Process() (process.Process, bool, error) { return process.Recorded(a.pidFile) }

// Config renders the configuration file.
func (a Agent) Config() ([]byte, error) {
	parsed, err := template.New(a.name).Option("missingkey=error").Parse(a.template)
	if err != nil {
		return nil, fmt.Errorf("%s configuration: %w", a.name, err)
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, a.values); err != nil {
		return nil, fmt.Errorf("%s configuration: %w", a.name, err)
	}
	return text.Bytes(), nil
}

// Start runs program as the agent unless it runs already, and returns its
// process without waiting until it is ready. The agent outlives the caller and
// its terminal.
func (a Agent) Start(program string) (process.Process, error) {
	if p, ok, err := a.Process(); err != nil || ok {
		return p, err
	}
	config, err := a.Config()
	if err != nil {
		return process.Process{}, err
	}
	// Only for the owner: the folders hold the database's password and Nomad's
	// keys.
	if err := os.MkdirAll(a.folder, 0o700); err != nil {
		return process.Process{}, fmt.Errorf("start %s: %w", a.name, err)
	}
	for _, path := range []string{a.logFile, a.pidFile} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return process.Process{}, fmt.Errorf("start %s: %w", a.name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(a.folder, "agent.hcl"), config, 0o600); err != nil {
		return process.Process{}, fmt.Errorf("start %s: %w", a.name, err)
	}
	return a.spawn(program)
}

func (a Agent) spawn(program string) (process.Process, error) {
	// The previous log is kept: it may be that of a run that failed.
	_ = os.Rename(a.logFile, a.logFile+".1")
	log, err := os.OpenFile(a.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return process.Process{}, fmt.Errorf("start %s: %w", a.name, err)
	}
	defer log.Close()

	args := append([]string{program}, a.args...)
	if a.namespace != "" {
		// Not `ip netns exec`, which mounts /sys again and so hides the cgroups.
		// nsenter execs the program, so the process id stays the same.
		args = append([]string{"nsenter", "--net=/run/netns/" + a.namespace}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = a.folder // its helpers are found by it when the agent is dead
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // so that it gets no Ctrl-C
	if err := cmd.Start(); err != nil {
		return process.Process{}, fmt.Errorf("start %s: %w", a.name, err)
	}
	// Reaps the agent if it ends while this program runs.
	go func() { _ = cmd.Wait() }()

	p, ok := process.Find(cmd.Process.Pid)
	if !ok { // without /proc only the number is known
		p = process.Process{PID: cmd.Process.Pid}
	}
	if err := process.Record(a.pidFile, p); err != nil {
		return process.Process{}, fmt.Errorf("start %s: %w", a.name, err)
	}
	return p, nil
}

// cleanEnv is the whole environment of an agent. raw_exec tasks inherit it, so
// what the caller's shell exports (tokens, proxies) must not be in it. The sbin
// folders have mariadbd on Debian and are often not on a user's PATH.
func cleanEnv() []string {
	env := []string{"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"}
	if home := os.Getenv("HOME"); home != "" {
		env = append(env, "HOME="+home)
	}
	return env
}

// Stop ends the agent and waits until it is gone. If it does not run, that is
// not an error. Nomad's tasks go on running: stop the jobs first.
func (a Agent) Stop(ctx context.Context) error {
	p, ok, err := a.Process()
	if err != nil || !ok {
		return err
	}
	if err := process.Stop(ctx, []process.Process{p}, stopGrace); err != nil {
		return fmt.Errorf("stop %s: %w", a.name, err)
	}
	return os.Remove(a.pidFile)
}

// LastLines returns the end of the agent's log, for error texts.
func (a Agent) LastLines(count int) string {
	text, err := os.ReadFile(a.logFile)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
