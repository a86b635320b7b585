package e2e_test

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
)

// A program that somebody starts by hand, without Nomad, registers itself: it
// appears in Consul, leaves on SIGTERM, and is critical after SIGKILL.
func TestProgramsStartedByHandRegisterThemselves(t *testing.T) {
	db, redis, agent := testenv.MariaDB(t), testenv.Redis(t), testenv.Consul(t)
	catalog, err := consul.New(agent)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin,
		"./gate/cmd/gate", "./status/cmd/status", "./chat/cmd/chat")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	databases := []string{
		"--mysql-addr", db.Addr, "--mysql-user", db.User, "--mysql-database", db.Name,
		"--redis-addr", strings.Join(redis.Addrs, ","), "--redis-prefix", cmp.Or(redis.Prefix, cache.DefaultPrefix),
	}
	for _, p := range []struct {
		service string
		args    []string
	}{
		{"status", nil},
		{"chat", databases},
		{"gate", append([]string{"--http-bind", "127.0.0.1:0"}, databases...)},
	} {
		t.Run(p.service, func(t *testing.T) {
			start := func(instance string) (cmd *exec.Cmd, log *bytes.Buffer) {
				t.Helper()
				args := append([]string{"--register", "--consul-addr", agent, "--instance", instance}, p.args...)
				cmd, log = exec.CommandContext(t.Context(), filepath.Join(bin, p.service), args...), &bytes.Buffer{}
				cmd.Stderr, cmd.Env = log, append(os.Environ(), database.Environ(db)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				testenv.Until(t, instance+" passes", func() bool {
					return state(t, catalog.Client(), p.service, instance) == api.HealthPassing
				})
				return cmd, log
			}
			polite, log := start(p.service + "-polite")
			if err := polite.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := polite.Wait(); err != nil {
				t.Errorf("after SIGTERM: %v\n%s", err, log)
			}
			if got := state(t, catalog.Client(), p.service, p.service+"-polite"); got != "" {
				t.Errorf("after SIGTERM it is %s in Consul", got)
			}
			killed, _ := start(p.service + "-killed")
			if err := killed.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = killed.Wait() // killed, as wanted
			testenv.Until(t, "it is critical", func() bool {
				return state(t, catalog.Client(), p.service, p.service+"-killed") == api.HealthCritical
			})
		})
	}
}

// state is what Consul says of an instance, "" when it does not know it.
func state(t *testing.T, client *api.Client, service, instance string) string {
	t.Helper()
	entries, _, err := client.Health().Service(service, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Service.Meta[discovery.MetaInstance] == instance {
			return e.Checks.AggregatedStatus()
		}
	}
	return ""
}
