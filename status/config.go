// Package status is the service that watches the fleet of chat servers and
// assigns users to them. A restart loses only the last reports, which come
// again within a second, and any number of replicas run side by side without
// knowing each other.
package status

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/status/internal/fleet"
)

// Names of services in Consul.
const (
	ServiceName  = "status" // of this one
	ChatService  = "chat"
	ProbeService = "probe" // of the probes beside the chat servers
)

// Config of one replica. Start from Defaults; a duration of 0 means the default
// too.
type Config struct {
	Instance string // unique; under Nomad the allocation's id
	Release  string // label of this build or deployment
	Zone     string // may be empty

	GRPCBind        string // host:port of status.v1; port 0 takes a free one
	GRPCAdvertise   string // where others reach it; empty: as bound
	HealthBind      string // host:port of grpc.health.v1 for checks
	HealthAdvertise string // empty: as bound
	HTTPBind        string // host:port of the live page, /healthz, /readyz and /metrics

	// Catalog is where the chat servers are found, and where Register registers.
	Catalog discovery.Catalog `json:"-"`
	// Register makes the process register itself; not under Nomad, which does.
	Register bool

	// StableFor is for how long the fleet has to be unchanged before connections
	// are moved to even the load.
	StableFor time.Duration
	// ReportIdle closes a chat server's stream without a report.
	ReportIdle time.Duration
	// DrainDelay is how long the replica still answers after it began to say
	// NOT_SERVING, Grace what the calls in flight get after that. The sum has to
	// stay below the job's kill_timeout.
	DrainDelay, Grace time.Duration
}

// Defaults is a configuration for the local fleet: every port is a free one.
// Instance, Release and Catalog are left empty.
func Defaults() Config {
	return Config{
		GRPCBind: "127.0.0.1:0", HealthBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0",
		StableFor:  fleet.DefaultStableFor,
		ReportIdle: 10 * time.Second,       // ten times the interval of the reports
		DrainDelay: 300 * time.Millisecond, // a few times what NOT_SERVING takes to arrive
		Grace:      5 * time.Second,
	}
}

// withDefaults fills in the durations that are 0.
func (c Config) withDefaults() Config {
	def := Defaults()
	c.StableFor = cmp.Or(c.StableFor, def.StableFor)
	c.ReportIdle = cmp.Or(c.ReportIdle, def.ReportIdle)
	c.DrainDelay = cmp.Or(c.DrainDelay, def.DrainDelay)
	c.Grace = cmp.Or(c.Grace, def.Grace)
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
	if c.Catalog == nil {
		problems = append(problems, errors.New("the catalog is missing"))
	}
	if min(c.StableFor, c.ReportIdle, c.DrainDelay, c.Grace) < 0 {
		problems = append(problems, errors.New("the durations must not be negative"))
	}
	for _, a := range [][3]string{
		{"grpc-advertise", c.GRPCAdvertise, c.GRPCBind}, {"health-advertise", c.HealthAdvertise, c.HealthBind},
	} {
		if a[1] != "" {
			address(a[0], a[1])
		} else if host, _, err := net.SplitHostPort(a[2]); c.Register && err == nil && wildcard(host) {
			problems = append(problems, fmt.Errorf("%s is missing: others cannot reach %q", a[0], a[2]))
		}
	}
	return errors.Join(problems...)
}

func wildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
