package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"
)

// ConsulAgent is a real single-node agent that keeps its data over a restart.
type ConsulAgent struct {
	Process
	Addr string
}

const consulConfig = `
server = true
bootstrap_expect = 1
node_name = "test"
data_dir = %q
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
disable_update_check = true
leave_on_terminate = false
performance { raft_multiplier = 1 }
ports { http = %d  server = %d  serf_lan = %d  serf_wan = -1  dns = -1  grpc = -1  grpc_tls = -1 }
`

// StartConsul starts an empty agent that ends with the test.
func StartConsul(t testing.TB) *ConsulAgent {
	t.Helper()
	path := Find(t, "consul")
	dir, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	http := FreePort(t)
	text := fmt.Sprintf(consulConfig, filepath.Join(dir, "data"), http, FreePort(t), FreePort(t))
	file := filepath.Join(dir, "consul.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &ConsulAgent{Addr: "127.0.0.1:" + strconv.Itoa(http)}
	a.name, a.path, a.dir, a.args = "consul", path, dir, []string{"agent", "-config-file=" + file}
	client, err := api.NewClient(&api.Config{Address: a.Addr})
	if err != nil {
		t.Fatal(err)
	}
	a.ready = func(ctx context.Context) error {
		q := (&api.QueryOptions{}).WithContext(ctx)
		leader, err := client.Status().LeaderWithQueryOptions(q)
		if err == nil && leader == "" {
			err = errors.New("no leader yet")
		}
		if err != nil {
			return err
		}
		nodes, _, err := client.Catalog().Nodes(q)
		if err == nil && len(nodes) == 0 {
			err = errors.New("the agent has not registered itself yet")
		}
		return err
	}
	t.Cleanup(func() {
		a.Kill()
		_ = os.RemoveAll(dir)
	})
	a.Start(t)
	return a
}

// Consul starts an empty agent and returns its HTTP address.
func Consul(t testing.TB) string {
	t.Helper()
	return StartConsul(t).Addr
}
