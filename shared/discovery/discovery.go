// Package discovery is how processes find each other: a watch of a service's
// instances in a catalog, and a gRPC resolver on top of it. The catalog is Consul's
// (package consul) or, for a system in one process, one in memory (package memory).
package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"
)

// Catalog knows the processes of each service and how they are. One contract test runs
// on every implementation. Methods are safe for concurrent use.
type Catalog interface {
	// Query returns the instances of a service, also those whose checks fail, in any
	// order, and the index of this answer. After 0 means at once; after an earlier
	// index it waits until something has changed since, or for wait. An index that is
	// lower than an earlier one means that the catalog starts over.
	Query(
		ctx context.Context, service string, after uint64, wait time.Duration,
	) (list []Instance, index uint64, err error)
	// Register keeps this process in the catalog, which runs its checks and lists it
	// as failing until they pass. An error means that the registration is wrong or
	// refused. The process calls deregister when it leaves, best before it stops
	// serving; more than once does no harm. If it dies without, its checks fail within
	// two seconds. ctx ends only what the process itself does for its registration.
	Register(ctx context.Context, r Registration) (deregister func(ctx context.Context) error, err error)
	// Ping says whether the catalog can be reached and may be believed.
	Ping(ctx context.Context) error
	// String is where it is, for people.
	fmt.Stringer
}

// How a catalog checks its processes.
const (
	CheckInterval = time.Second
	// CheckTimeout is below the interval, so that checks do not overlap.
	CheckTimeout = 900 * time.Millisecond
)

// Check is one check of a process. Exactly one of GRPC, HTTP and TCP is set.
type Check struct {
	Name string
	GRPC string // host:port or host:port/service, asked for grpc.health.v1
	HTTP string // URL that answers 2xx
	TCP  string // host:port that accepts
}

// Registration describes this process to the catalog. Under Nomad, which registers
// what it runs, nobody needs it.
type Registration struct {
	Service  string
	Instance string // unique; becomes the meta "instance" and part of the id
	Address  string // host:port that others connect to
	Meta     map[string]string
	Checks   []Check // at least one: without it nobody notices that we died
	Log      *slog.Logger
}

// ID is unique in the catalog.
func (r Registration) ID() string { return r.Service + "-" + r.Instance }

// Validate says what is wrong.
func (r Registration) Validate() error {
	if r.Service == "" || r.Instance == "" || len(r.Checks) == 0 {
		return errors.New("service, instance and at least one check are needed")
	}
	host, portText, err := net.SplitHostPort(r.Address)
	if err != nil {
		return fmt.Errorf("address %q: %w", r.Address, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || host == "" {
		return fmt.Errorf("address %q: want host:port with a numeric port", r.Address)
	}
	for _, c := range r.Checks {
		set := 0
		for _, target := range []string{c.GRPC, c.HTTP, c.TCP} {
			if target != "" {
				set++
			}
		}
		if set != 1 {
			return fmt.Errorf("check %q: want exactly one of grpc, http and tcp", c.Name)
		}
	}
	return nil
}

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
	// ID is the meta "instance", or the catalog's own id where that is missing.
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

// sorted orders an answer, so that two answers with the same content are equal.
func sorted(list []Instance) []Instance {
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return list
}

// passing returns the instances that pass.
func passing(list []Instance) []Instance {
	return slices.DeleteFunc(slices.Clone(list), func(i Instance) bool { return !i.Passing })
}
