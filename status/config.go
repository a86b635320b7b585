// Package status is the service that knows the fleet of chat servers and sends
// users to them. It holds nothing that a restart could lose but freshness, and
// any number of replicas run side by side without knowing of each other.
package status

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// ServiceName is what replicas are called in Consul.
const ServiceName = "status"

// ChatService is what chat servers are called in Consul.
const ChatService = "chat"

// ProbeService is what their probes are called there.
const ProbeService = "probe"

// Config of one replica.
type Config struct {
	Instance string // unique; under Nomad the allocation's id
	Release  string // label of this build or deployment
	Zone     string // may be empty

	GRPCBind        string // host:port of status.v1; port 0 takes a free one
	GRPCAdvertise   string // where others reach it; default: as bound
	HealthBind      string // host:port of grpc.health.v1 for checks
	HealthAdvertise string // default: as bound
	HTTPBind        string // host:port of the live page, /healthz, /readyz and /metrics

	ConsulAddr string // host:port of the local agent's HTTP API
	// Register makes the process register itself; not under Nomad, which does.
	Register bool

	// Calm is for how long the fleet has to be unchanged before connections are
	// moved to even the load; default 10 s.
	Calm time.Duration
	// ReportIdle closes a chat server's stream without a report; default 10 s,
	// ten times what servers keep to.
	ReportIdle time.Duration
	// DrainDelay is how long the replica still answers after it told everybody
	// that it leaves; default 300 ms, a few times what the word needs to get
	// around on open connections.
	DrainDelay time.Duration
	// Grace is for the calls in flight after that; default 5 s. The sum has to
	// stay below the job's kill_timeout.
	Grace time.Duration
}

func (c Config) withDefaults() Config {
	if c.ReportIdle <= 0 {
		c.ReportIdle = 10 * time.Second
	}
	if c.DrainDelay <= 0 {
		c.DrainDelay = 300 * time.Millisecond
	}
	if c.Grace <= 0 {
		c.Grace = 5 * time.Second
	}
	return c
}

// Validate names every field that is wrong.
func (c Config) Validate() error {
	var problems []error
	need := func(name, value string) {
		if value == "" {
			problems = append(problems, fmt.Errorf("%s is missing", name))
		}
	}
	address := func(name, value string) {
		if _, _, err := net.SplitHostPort(value); err != nil {
			problems = append(problems, fmt.Errorf("%s %q: want host:port", name, value))
		}
	}
	need("instance", c.Instance)
	need("release", c.Release)
	address("grpc-bind", c.GRPCBind)
	address("health-bind", c.HealthBind)
	address("http-bind", c.HTTPBind)
	address("consul-addr", c.ConsulAddr)
	for _, a := range [][3]string{
		{"grpc-advertise", c.GRPCAdvertise, c.GRPCBind}, {"health-advertise", c.HealthAdvertise, c.HealthBind},
	} {
		if a[1] != "" {
			address(a[0], a[1])
		} else if host, _, err := net.SplitHostPort(a[2]); c.Register && err == nil && wildcard(host) {
			problems = append(problems, fmt.Errorf("%s is missing: %q is no address that others can reach", a[0], a[2]))
		}
	}
	return errors.Join(problems...)
}

func wildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
