// Package fleet drives the Nomad fleet for tests, by the recipes that people
// use, in a state folder and on ports of its own.
package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
)

// portBase keeps the tests' fleet away from one that somebody uses; a second
// one on the same machine takes the next.
const portBase = 9700

// portsPerFleet is how far apart two fleets have to be.
const portsPerFleet = 300

// recipeLimit bounds one recipe: up, on two busy cores.
const recipeLimit = 8 * time.Minute

// Fleet is the whole system under Nomad. Its methods are for the test's
// goroutine.
type Fleet struct {
	t    testing.TB
	root string
	// state is the fleet's folder, which also names its processes.
	state string
	env   []string
	base  int

	Consul *api.Client
	// Nomad are the variables that `just env` prints, for the nomad command.
	Nomad []string
	bin   string
}

// Up starts a fleet that ends with the test and prints how long it took.
func Up(t testing.TB) *Fleet {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "justw")); err != nil {
		t.Skip("not run: the recipes are not beside this module")
	}
	if os.Getuid() != 0 {
		t.Skip("not run: Nomad's raw_exec driver needs root")
	}
	//nolint:usetesting // outlives the test's folder until down is done
	state, err := os.MkdirTemp("", "msrchat-fleet-")
	if err != nil {
		t.Fatal(err)
	}
	f := &Fleet{t: t, root: root, state: state, base: freeBase(t)}
	f.env = append(os.Environ(), "MSRCHAT_STATE="+state, "MSRCHAT_PORT_BASE="+strconv.Itoa(f.base))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("services at the end:\n%s", f.try("ps"))
			for _, service := range []string{"chat", "status", "gate"} {
				t.Logf("the last of %s's log:\n%s", service, last(f.try("logs", service), 4000))
			}
		}
		t.Logf("down: %s", last(f.Just("down", "--purge"), 200))
		_ = os.RemoveAll(state)
	})
	started := time.Now()
	printed := f.Just("up")
	t.Logf("up took %.1f s, builds included:\n%s", time.Since(started).Seconds(), last(printed, 3000))
	f.bin = f.build()
	f.Nomad = f.exports()
	catalog, err := consul.New(fmt.Sprintf("127.0.0.1:%d", f.base+1))
	if err != nil {
		t.Fatal(err)
	}
	f.Consul = catalog.Client()
	return f
}

// freeBase finds ports that nobody has.
func freeBase(t testing.TB) int {
	t.Helper()
	for base := portBase; base < portBase+10*portsPerFleet; base += portsPerFleet {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+10)))
		if err == nil {
			_ = l.Close()
			return base
		}
	}
	t.Fatal("no free ports for a fleet")
	return 0
}

func last(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// Just runs a recipe and returns what it printed; its failure fails the test.
func (f *Fleet) Just(recipe ...string) string {
	f.t.Helper()
	out, err := f.run(recipe...)
	if err != nil {
		f.t.Fatalf("./justw %s: %v\n%s", strings.Join(recipe, " "), err, out)
	}
	return out
}

// Run runs a recipe that may fail, and returns what it printed and its exit
// code.
func (f *Fleet) Run(recipe ...string) (out string, code int) {
	f.t.Helper()
	out, err := f.run(recipe...)
	var ended *exec.ExitError
	switch {
	case err == nil:
		return out, 0
	case errors.As(err, &ended):
		return out, ended.ExitCode()
	}
	f.t.Fatalf("./justw %s: %v\n%s", strings.Join(recipe, " "), err, out)
	return out, -1
}

func (f *Fleet) try(recipe ...string) string {
	out, err := f.run(recipe...)
	if err != nil {
		out += "\n" + err.Error()
	}
	return out
}

func (f *Fleet) run(recipe ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), recipeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(f.root, "justw"), recipe...)
	cmd.Env, cmd.Dir = f.env, f.root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var export = regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`)

// exports reads what `just env` prints.
func (f *Fleet) exports() (env []string) {
	f.t.Helper()
	for _, m := range export.FindAllStringSubmatch(f.Just("env"), -1) {
		env = append(env, m[1]+"="+m[2])
	}
	return env
}

// build builds msrchat as `just chat` does.
func (f *Fleet) build() string {
	f.t.Helper()
	bin := filepath.Join(f.t.TempDir(), "msrchat")
	cmd := exec.CommandContext(f.t.Context(), "go", "build", "-o", bin, "./client/cmd/msrchat")
	cmd.Dir = f.root
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("build msrchat: %v\n%s", err, out)
	}
	return bin
}

// Database is where the fleet's data is. The password is what Nomad holds.
func (f *Fleet) Database() database.Config {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), filepath.Join(f.root, "tools", "fleet"), "secrets")
	cmd.Env = f.env
	out, err := cmd.Output()
	var secrets map[string]string
	if err == nil {
		err = json.Unmarshal(out, &secrets)
	}
	if err != nil || secrets["mysql_password"] == "" {
		f.t.Fatalf("the fleet's secrets: %v", err)
	}
	return database.Config{Addr: f.Address(7720), User: "msrchat", Name: "msrchat", Password: secrets["mysql_password"]}
}

// Planted makes a folder with a chat server that has a planted bug (package
// planted), as `just upgrade` takes it, and the fleet's own probe.
func (f *Fleet) Planted(bug string) (folder string) {
	f.t.Helper()
	folder = f.t.TempDir()
	run := func(args ...string) {
		f.t.Helper()
		cmd := exec.CommandContext(f.t.Context(), "go", append([]string{"build", "-trimpath"}, args...)...)
		cmd.Dir = f.root
		if out, err := cmd.CombinedOutput(); err != nil {
			f.t.Fatalf("go build %v: %v\n%s", args, err, out)
		}
	}
	real := filepath.Join(folder, "chat.planted")
	run("-tags", "planted", "-o", real, "./chat/cmd/chat")
	run("-o", filepath.Join(folder, "probe"), "./probe/cmd/probe")
	script := fmt.Sprintf("#!/bin/sh\nMSRCHAT_PLANTED=%s exec %s \"$@\"\n", bug, real)
	if err := os.WriteFile(filepath.Join(folder, "chat"), []byte(script), 0o755); err != nil {
		f.t.Fatal(err)
	}
	return folder
}

// GateURL is where clients go.
func (f *Fleet) GateURL() string { return fmt.Sprintf("http://127.0.0.1:%d", f.base) }

// Gate is a client of the fleet's gate.
func (f *Fleet) Gate() *client.Gate {
	f.t.Helper()
	g, err := client.NewGate(f.GateURL(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return g
}

var code = regexp.MustCompile(`\b\d{6}\b`)

// Code reads the newest verification code sent to an address.
func (f *Fleet) Code(email string) (digits string) {
	f.t.Helper()
	testenv.Until(f.t, "the mail with the code", func() bool {
		out, err := f.run("mail", email)
		digits = code.FindString(out)
		return err == nil && digits != ""
	})
	return digits
}

// Register makes an account.
func (f *Fleet) Register(name string) client.LoginReply {
	f.t.Helper()
	email := name + "@example.org"
	if err := f.Gate().Code(f.t.Context(), email); err != nil {
		f.t.Fatal(err)
	}
	reply, err := f.Gate().Register(f.t.Context(), client.Registration{
		Email: email, Name: name, Password: "correct horse " + name, Code: f.Code(email), Device: "test",
	})
	if err != nil {
		f.t.Fatalf("register %s: %v", name, err)
	}
	return reply
}

// Doctor runs `just doctor --json` and returns the verdicts by check, and what
// the recipe ended with.
func (f *Fleet) Doctor() (verdicts map[string]string, printed string, failed error) {
	f.t.Helper()
	printed, failed = f.run("doctor", "--json")
	from, to := strings.IndexByte(printed, '['), strings.LastIndexByte(printed, ']')
	var findings []struct {
		Check   string `json:"check"`
		Verdict string `json:"verdict"`
	}
	if from < 0 || to < from || json.Unmarshal([]byte(printed[from:to+1]), &findings) != nil {
		f.t.Fatalf("doctor printed no JSON (%v):\n%s", failed, printed)
	}
	verdicts = make(map[string]string)
	for _, finding := range findings {
		verdicts[finding.Check] = finding.Verdict
	}
	return verdicts, printed, failed
}

// Secrets are the files with secrets of all tasks, in the environment's form.
func (f *Fleet) Secrets() []string {
	files, err := filepath.Glob(filepath.Join(f.state, "nomad", "data", "alloc", "*", "*", "secrets", "env"))
	if err != nil {
		f.t.Fatal(err)
	}
	return files
}

// SQL runs a statement as the database's root.
func (f *Fleet) SQL(statement string) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), testenv.Find(f.t, "mariadb"),
		"--no-defaults", "--socket=./mysql.sock", "-e", statement)
	cmd.Dir = filepath.Join(f.state, "data", "mysql")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v\n%s", statement, err, out)
	}
}

// Processes finds the processes of a service's task, by the environment that
// Nomad gave them; all of them, or those of one allocation.
func (f *Fleet) Processes(service, allocation string) (pids []int) {
	f.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && f.isTask(e.Name(), service, allocation) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (f *Fleet) isTask(pid, service, allocation string) bool {
	if service == "redis" { // which writes its title over its environment
		title, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		return err == nil && bytes.HasPrefix(title, []byte("redis-server "+f.Address(7721)))
	}
	env, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
	has := func(s string) bool { return bytes.Contains(env, []byte(s)) }
	return err == nil && has("NOMAD_TASK_NAME="+service+"\x00") && has(f.state) &&
		(allocation == "" || has("NOMAD_ALLOC_ID="+allocation+"\x00"))
}

// Signal sends a signal to a service's processes and says to how many.
func (f *Fleet) Signal(sig syscall.Signal, service, allocation string) (n int) {
	f.t.Helper()
	for _, pid := range f.Processes(service, allocation) {
		switch err := syscall.Kill(pid, sig); {
		case err == nil:
			n++
		case !errors.Is(err, syscall.ESRCH):
			f.t.Errorf("signal %s: %v", service, err)
		}
	}
	return n
}

// SignalAgent sends a signal to the Consul or the Nomad agent. After one that
// ends it, it waits until it is gone; the recipe up starts it again.
func (f *Fleet) SignalAgent(sig syscall.Signal, name string) {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.state, "run", name+".pid"))
	if err != nil {
		f.t.Fatal(err)
	}
	number, _, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		f.t.Fatalf("the pid file of %s says %q", name, text)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		f.t.Fatalf("signal %s: %v", name, err)
	}
	if sig == syscall.SIGSTOP || sig == syscall.SIGCONT {
		return
	}
	testenv.Until(f.t, name+" is gone", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

// Passing lists a service's instances whose checks pass.
func (f *Fleet) Passing(service string) (instances []string) {
	f.t.Helper()
	entries, _, err := f.Consul.Health().Service(service, "", true, nil)
	if err != nil {
		f.t.Logf("consul: %v", err)
	}
	for _, e := range entries {
		instances = append(instances, e.Service.Meta[discovery.MetaInstance])
	}
	return instances
}

// StatusAddrs are the status servers' gRPC addresses.
func (f *Fleet) StatusAddrs() (addrs []string) {
	f.t.Helper()
	entries, _, err := f.Consul.Health().Service("status", "", true, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		addrs = append(addrs, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
	}
	return addrs
}

// NomadCLI runs the nomad command with the variables of this fleet.
func (f *Fleet) NomadCLI(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, testenv.Find(f.t, "nomad"), args...)
	cmd.Dir = f.root
	cmd.Env = append(append(os.Environ(), f.Nomad...), "NOMAD_CLI_SHOW_HINTS=false")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Msrchat is the msrchat command of one profile.
func (f *Fleet) Msrchat(ctx context.Context, home, profile string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, f.bin, append([]string{"--profile", profile, "--gate", f.GateURL()}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_STATE_HOME="+home)
	return cmd
}

// Binary is the msrchat program.
func (f *Fleet) Binary() string { return f.bin }

// Address is where a port of the default fleet (7700 …) is in this one.
func (f *Fleet) Address(port int) string {
	const defaultBase = 7700
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(f.base+port-defaultBase))
}
