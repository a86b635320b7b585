// Package discovery is how processes find each other in Consul: a watch of a
// service's instances, registration for processes outside Nomad, and a gRPC
// resolver on top of the watch.
package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/hashicorp/consul/api"
)

// Keys of a service's meta that this system gives a meaning to.
const (
	MetaInstance = "instance"
	MetaRelease  = "release"
	MetaZone     = "zone"
	// MetaRelay is host:port of a chat server's gRPC for its peers.
	MetaRelay = "relay"
	// MetaTLSServerName is the name in the certificate for clients; empty means
	// no TLS.
	MetaTLSServerName = "tls_server_name"
)

// Instance is one registered process of a service. Values are immutable; Meta is
// shared and must not be written.
type Instance struct {
	// ID is the meta "instance", or Consul's service id where that is missing.
	ID string
	// Address is host:port.
	Address string
	Meta    map[string]string
	// Passing: every check of the service and of its node passes.
	Passing bool
}

func (i Instance) equal(j Instance) bool {
	return i.ID == j.ID && i.Address == j.Address && i.Passing == j.Passing && maps.Equal(i.Meta, j.Meta)
}

// NewClient returns a client of the agent at addr (host:port). An ACL token and
// TLS settings come from Consul's own environment variables (CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT, ...). It does not connect.
func NewClient(addr string) (*api.Client, error) {
	cfg := api.DefaultConfig()
	cfg.Address = addr
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("consul client for %s: %w", addr, err)
	}
	return client, nil
}

// instances translates Consul's answer and sorts it, so that two answers with the
// same content are equal.
func instances(entries []*api.ServiceEntry) []Instance {
	list := make([]Instance, 0, len(entries))
	for _, e := range entries {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		id := e.Service.Meta[MetaInstance]
		if id == "" {
			id = e.Service.ID
		}
		list = append(list, Instance{
			ID:      id,
			Address: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)),
			Meta:    e.Service.Meta,
			Passing: e.Checks.AggregatedStatus() == api.HealthPassing,
		})
	}
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return list
}

// passing returns the instances that pass.
func passing(list []Instance) []Instance {
	return slices.DeleteFunc(slices.Clone(list), func(i Instance) bool { return !i.Passing })
}
