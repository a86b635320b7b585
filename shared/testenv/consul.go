package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/shared/backend"
)

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

// ConsulProgram is a single empty agent that keeps its data in dir over a
// restart.
func ConsulProgram(dir string) (p backend.Program, err error) {
	if p.Path, err = backend.Locate("consul"); err != nil {
		return p, err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = backend.PickPort(); err != nil {
			return p, err
		}
	}
	file := filepath.Join(dir, "consul.hcl")
	text := fmt.Sprintf(consulConfig, filepath.Join(dir, "data"), ports[0], ports[1], ports[2])
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return p, err
	}
	p.Name, p.Args = "consul", []string{"agent", "-config-file=" + file}
	p.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	// One client for all calls: each has connections of its own, and Consul bounds
	// them.
	client, err := api.NewClient(&api.Config{Address: p.Addr})
	p.Ready = func(ctx context.Context) error { return consulReady(ctx, client) }
	return p, err
}

func consulReady(ctx context.Context, client *api.Client) error {
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

// ConsulAgent is a real agent of a test.
type ConsulAgent struct{ *Process }

// StartConsul starts an empty agent that ends with the test.
func StartConsul(t testing.TB) *ConsulAgent {
	t.Helper()
	return &ConsulAgent{start(t, ConsulProgram)}
}

// Consul starts an empty agent and returns its HTTP address.
func Consul(t testing.TB) string {
	t.Helper()
	return StartConsul(t).Addr
}
