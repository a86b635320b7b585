// Package consul is the catalog of Consul: queries that wait, and registration for
// processes outside Nomad.
package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/shared/discovery"
)

// Catalog is a discovery.Catalog by way of one agent.
type Catalog struct {
	client *api.Client
	addr   string
}

// New returns the catalog of the agent at addr (host:port). An ACL token and TLS
// settings come from Consul's own environment variables (CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT, ...). It does not connect.
func New(addr string) (*Catalog, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("the Consul address %q is not host:port; set --consul-addr", addr)
	}
	cfg := api.DefaultConfig()
	cfg.Address = addr
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("consul client for %s: %w", addr, err)
	}
	return &Catalog{client: client, addr: addr}, nil
}

// Client is for what the catalog does not do.
func (c *Catalog) Client() *api.Client { return c.client }

func (c *Catalog) String() string { return "Consul at " + c.addr }

// Query runs one blocking query.
func (c *Catalog) Query(
	ctx context.Context, service string, after uint64, wait time.Duration,
) ([]discovery.Instance, uint64, error) {
	// Consul adds up to a sixteenth to the wait; some seconds later the agent
	// hangs.
	ctx, cancel := context.WithTimeout(ctx, wait+wait/16+5*time.Second)
	defer cancel()
	q := (&api.QueryOptions{WaitIndex: after, WaitTime: wait}).WithContext(ctx)
	// Failing instances are queried too: they tell "none passes" from "none is
	// registered".
	entries, meta, err := c.client.Health().Service(service, "", false, q)
	if err != nil {
		return nil, 0, fmt.Errorf("query consul for %s: %w", service, err)
	}
	if len(entries) == 0 && meta.ResultsFilteredByACLs {
		return nil, 0, fmt.Errorf("query consul for %s: %w", service, errFiltered)
	}
	return instances(entries), meta.LastIndex, nil
}

var errFiltered = errors.New("the ACL token may not read the service")

// instances translates Consul's answer.
func instances(entries []*api.ServiceEntry) []discovery.Instance {
	list := make([]discovery.Instance, 0, len(entries))
	for _, e := range entries {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		id := e.Service.Meta[discovery.MetaInstance]
		if id == "" {
			id = e.Service.ID
		}
		list = append(list, discovery.Instance{
			ID:      id,
			Address: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)),
			Meta:    e.Service.Meta,
			Passing: e.Checks.AggregatedStatus() == api.HealthPassing,
		})
	}
	return list
}

// Ping asks whether the servers have a leader.
func (c *Catalog) Ping(ctx context.Context) error {
	leader, err := c.client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err == nil && leader == "" {
		err = errors.New("consul has no leader")
	}
	return err
}
