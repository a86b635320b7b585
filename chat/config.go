// Package chat is the chat server: it holds its users' TCP connections, appends
// their messages to the log, and delivers them to their readers on all servers.
// ARCHITECTURE.md describes the flows.
package chat

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"

	"github.com/msrchat/msrchat/chat/internal/fence"
	"github.com/msrchat/msrchat/chat/internal/lane"
)

// Service is the name in Consul.
const Service = "chat"

// Listener is the address where a port is bound and the one where others reach it,
// which differs behind NAT and proxies. An empty Advertise means the bound address.
type Listener struct {
	Bind, Advertise string
}

// Config is the configuration of a Server. Start from Defaults. A number or a time
// of 0 means the default too.
type Config struct {
	// Instance is unique in the fleet; Release is the label of this build or
	// deployment; Zone is where it runs.
	Instance, Release, Zone string
	// Client is the TCP port for users, Relay gRPC for other chat servers, Health
	// grpc.health.v1, HTTP metrics and probes.
	Client, Relay, Health, HTTP Listener
	// TLSServerName is the name in the certificate that clients see; empty means
	// no TLS. Without Certificate a proxy in front speaks TLS.
	TLSServerName string
	Certificate   certificate.Files
	Database      database.Config
	Redis         cache.Config
	// Catalog is where the servers find each other and the status servers.
	Catalog discovery.Catalog `json:"-"`
	// Register registers the process in the catalog; off where Nomad does it.
	Register bool
	// Capacity is how many connections are admitted. The limit of open files may
	// lower it.
	Capacity int
	// MaxSends is how many messages are held while the database is away or slow.
	MaxSends  int
	Heartbeat time.Duration
	// DrainRate is how many connections a second are asked to leave at a stop at
	// most, by all servers that leave together. After Drain the last one has been
	// asked, whatever the rate.
	DrainRate int
	Drain     time.Duration
	// Settled is how old a connection must be to be asked to leave for the sake of
	// an even load.
	Settled time.Duration
	// FencePatience is how long database and Consul must both be away before users
	// are sent to other servers.
	FencePatience time.Duration
	// Profile serves Go's profiles on the HTTP port.
	Profile bool
	Hooks   Hooks `json:"-"`
}

// Hooks are for tests: faults that cannot be caused from outside.
type Hooks struct {
	// DropPush keeps an event from being pushed to anybody.
	DropPush func(*chatv1.Event) bool
}

// Numbers that other programs use too.
const (
	// DefaultHeartbeat is shorter than 30 s, the least after which a NAT forgets an
	// idle connection.
	DefaultHeartbeat = 20 * time.Second
	// DefaultCapacity fits a limit of 20,000 open files; see places.
	DefaultCapacity = 18_200
	// DefaultDrain is enough for 10,000 connections at DefaultDrainRate. An upgrade
	// of a large fleet needs minutes.
	DefaultDrain = 10 * time.Second
	// DefaultDrainRate is how many reconnects a second gate, status and database can
	// serve beside their other work.
	DefaultDrainRate = 1000
)

// Defaults is a configuration for the local fleet: every port is a free one.
// Instance, Release, Catalog and the databases' passwords are left empty.
func Defaults() Config {
	local := Listener{Bind: "127.0.0.1:0"}
	return Config{
		Client:    local,
		Relay:     local,
		Health:    local,
		HTTP:      local,
		Database:  database.Defaults(),
		Redis:     cache.Defaults(),
		Capacity:  DefaultCapacity,
		MaxSends:  lane.DefaultMaxWaiting,
		Heartbeat: DefaultHeartbeat,
		DrainRate: DefaultDrainRate,
		Drain:     DefaultDrain,
		// Users who come from a server that drains are not asked to leave again while
		// other users of that server still move.
		Settled:       30 * time.Second,
		FencePatience: fence.DefaultPatience,
	}
}

// withDefaults fills in the numbers and times that are 0.
func (c Config) withDefaults() Config {
	def := Defaults()
	c.Capacity = cmp.Or(c.Capacity, def.Capacity)
	c.MaxSends = cmp.Or(c.MaxSends, def.MaxSends)
	c.Heartbeat = cmp.Or(c.Heartbeat, def.Heartbeat)
	c.DrainRate = cmp.Or(c.DrainRate, def.DrainRate)
	c.Drain = cmp.Or(c.Drain, def.Drain)
	c.Settled = cmp.Or(c.Settled, def.Settled)
	c.FencePatience = cmp.Or(c.FencePatience, def.FencePatience)
	return c
}

// Validate says what is wrong.
func (c Config) Validate() error {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Instance == "" {
		problem("the instance id is empty")
	}
	for name, l := range c.listeners() {
		if l.Bind == "" {
			problem("the %s port has no address to bind", name)
		}
	}
	if c.Catalog == nil {
		problem("there is no catalog")
	}
	if c.Capacity < 0 || c.Drain < 0 || c.DrainRate < 0 || c.MaxSends < 0 {
		problem("capacity, drain, its rate and the messages held must not be negative")
	}
	if c.Heartbeat != 0 && (c.Heartbeat < 100*time.Millisecond || c.Heartbeat > 10*time.Minute) {
		problem("the heartbeat must be between 100ms and 10m")
	}
	if !c.Certificate.Empty() && c.TLSServerName == "" {
		problem("the certificate needs the name that clients verify")
	}
	problems = append(problems, c.Certificate.Validate(), c.Database.Validate(), c.Redis.Validate())
	return errors.Join(problems...)
}

// listeners are the ports by name.
func (c Config) listeners() map[string]Listener {
	return map[string]Listener{"client": c.Client, "relay": c.Relay, "health": c.Health, "http": c.HTTP}
}
