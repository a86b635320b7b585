package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/tools/internal/agent"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/state"
)

// The programs accept the configurations.
func TestConfigurationsAreValid(t *testing.T) {
	dir, table := setUp(t)
	first, needed := agent.NomadFirst(dir, table, agent.Local())
	if !needed {
		t.Error("an empty folder counts as Nomad's state")
	}
	server := agent.Node{
		Name: "control", Datacenter: "control", Address: "10.99.0.10", Interface: "eth0", Servers: "10.99.0.10",
		Namespace: "x",
	}
	worker := server
	worker.Name, worker.Address = "n1", "10.99.0.11"
	for name, tc := range map[string]struct {
		agent  agent.Agent
		verify []string
	}{
		"consul": {agent.Consul(dir, table, agent.Local()), []string{"consul", "validate"}},
		"nomad":  {agent.Nomad(dir, table, agent.Local(), ""), []string{"nomad", "config", "validate"}},
		"nomad, reserved ports": {
			agent.Nomad(dir, table, agent.Local(), "9101,9150"), []string{"nomad", "config", "validate"},
		},
		"nomad, first start":     {first, []string{"nomad", "config", "validate"}},
		"consul, one of several": {agent.Consul(dir, table, worker), []string{"consul", "validate"}},
		"nomad, one of several":  {agent.Nomad(dir, table, worker, ""), []string{"nomad", "config", "validate"}},
		"nomad, their server":    {agent.Nomad(dir, table, server, ""), []string{"nomad", "config", "validate"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(tc.verify[0]); err != nil {
				t.Skipf("%s is not on PATH (./justw test brings it)", tc.verify[0])
			}
			text, err := tc.agent.Config()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "agent.hcl")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tc.verify[0], append(tc.verify[1:], file)...)
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, output, text)
			}
		})
	}
}

func TestConfigurationsStayOnLoopback(t *testing.T) {
	dir, table := setUp(t)
	for _, a := range []agent.Agent{
		agent.Consul(dir, table, agent.Local()), agent.Nomad(dir, table, agent.Local(), "9101"),
	} {
		text, err := a.Config()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `bind_addr`) || strings.Contains(string(text), "0.0.0.0") {
			t.Errorf("%s: not bound to loopback:\n%s", a.Name(), text)
		}
	}
	text, err := agent.Nomad(dir, table, agent.Local(), "9101,9150").Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`reserved_ports = "9101,9150"`, "min_dynamic_port = 9100", "max_dynamic_port = 9199",
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("nomad: %q is missing:\n%s", line, text)
		}
	}
}

// Of several nodes one has the servers, and the others are its clients.
func TestWhoIsServer(t *testing.T) {
	dir, table := setUp(t)
	node := agent.Node{
		Name: "control", Datacenter: "control", Address: "10.99.0.10", Interface: "eth0", Servers: "10.99.0.10",
		Namespace: "x",
	}
	config := func(a agent.Agent) string {
		t.Helper()
		text, err := a.Config()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	consul, nomad := config(agent.Consul(dir, table, node)), config(agent.Nomad(dir, table, node, ""))
	if !strings.Contains(consul, "bootstrap_expect = 1") || !strings.Contains(nomad, "bootstrap_expect = 1") {
		t.Errorf("the node with the servers has none:\n%s\n%s", consul, nomad)
	}
	node.Address = "10.99.0.11"
	consul, nomad = config(agent.Consul(dir, table, node)), config(agent.Nomad(dir, table, node, ""))
	for _, text := range []string{consul, nomad} {
		if strings.Contains(text, "bootstrap_expect") || !strings.Contains(text, "10.99.0.10:") ||
			!strings.Contains(text, "10.99.0.11") {
			t.Errorf("a worker is a server, or knows no server, or not itself:\n%s", text)
		}
	}
}

// What the caller's shell exports does not reach the agents, because their tasks
// would inherit it.
func TestAgentsGetACleanEnvironmentAndTheirOwnSession(t *testing.T) {
	dir, table := setUp(t)
	t.Setenv("SECRET_OF_THE_SHELL", "x")
	program := filepath.Join(t.TempDir(), "consul")
	script := "#!/bin/sh\nenv >env.txt\nexec sleep 60\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	a := agent.Consul(dir, table, agent.Local())
	p, err := a.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Stop(t.Context()) })
	again, err := a.Start(program)
	if err != nil || again.PID != p.PID {
		t.Errorf("started twice: pid %d, then %d (%v)", p.PID, again.PID, err)
	}
	written := filepath.Join(dir.Consul(), "env.txt")
	eventually(t, "the agent wrote its environment", func() bool {
		text, err := os.ReadFile(written)
		return err == nil && strings.Contains(string(text), "PATH=")
	})
	text, err := os.ReadFile(written)
	if err != nil || strings.Contains(string(text), "SECRET_OF_THE_SHELL") {
		t.Errorf("environment of the agent (%v):\n%s", err, text)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := a.Process(); ok || err != nil {
		t.Errorf("after Stop: runs %v, %v", ok, err)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Errorf("Stop of what does not run: %v", err)
	}
}

func setUp(t *testing.T) (state.Dir, ports.Table) {
	t.Helper()
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table, err := ports.New(9000)
	if err != nil {
		t.Fatal(err)
	}
	return dir, table
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within 5 s: %s", what)
		case <-tick.C:
		}
	}
}
