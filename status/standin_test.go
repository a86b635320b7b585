package status_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/status"
)

const (
	reportEvery = 300 * time.Millisecond
	// reportSoonest is how soon arrivals are reported, as by a chat server.
	reportSoonest = 50 * time.Millisecond
)

func startConsul(t *testing.T) (*testenv.ConsulAgent, *consul.Catalog) {
	t.Helper()
	agent := testenv.StartConsul(t)
	catalog, err := consul.New(agent.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return agent, catalog
}

// nowhere is the catalog of an agent that does not run.
func nowhere(t *testing.T) discovery.Catalog {
	t.Helper()
	catalog, err := consul.New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	return catalog
}

// replica is a status server in this process.
type replica struct {
	*status.Server
	stop func() error // ends it and waits
}

func startReplica(t *testing.T, catalog discovery.Catalog, instance string, change func(*status.Config)) *replica {
	t.Helper()
	cfg := status.Defaults()
	cfg.Instance, cfg.Release, cfg.Catalog, cfg.Register = instance, "v1", catalog, true
	if change != nil {
		change(&cfg)
	}
	s, err := status.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r := &replica{Server: s}
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("%s: %v", instance, err)
		}
	})
	return r
}

// chatServer stands in for a chat server: in Consul, and reporting to every
// replica that it finds there.
type chatServer struct {
	t        *testing.T
	instance string
	catalog  discovery.Catalog
	health   *admin.HealthServer
	ctx      context.Context
	kill     func() // as by kill -9: it does not deregister
	leave    func(context.Context) error

	mu      sync.Mutex // owns the fields below
	load    *statusv1.Load
	silent  bool
	streams map[string]bool     // by replica
	used    map[string][]string // by replica, to be reported
}

func startChat(t *testing.T, catalog discovery.Catalog, instance string) *chatServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := &chatServer{
		t: t, instance: instance, catalog: catalog, health: admin.NewHealth(l), ctx: ctx,
		load: &statusv1.Load{Capacity: 1000}, streams: map[string]bool{}, used: map[string][]string{},
	}
	c.health.Set(true)
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := c.health.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	parts.Go(func() {
		_ = discovery.Watch(ctx, catalog, status.ServiceName, false, func(list []discovery.Instance) {
			for _, i := range list {
				if c.claim(i.Address) {
					parts.Go(func() { c.reportTo(i.Address) })
				}
			}
		})
	})
	c.kill = func() { cancel(); parts.Wait() }
	t.Cleanup(c.kill)
	c.leave, err = catalog.Register(ctx, discovery.Registration{
		Service: status.ChatService, Instance: instance, Address: c.health.Addr(),
		Meta: map[string]string{
			discovery.MetaRelease: "v1", discovery.MetaRelay: c.health.Addr(), discovery.MetaTLSServerName: "chat.test",
		},
		Checks: []discovery.Check{{GRPC: c.health.Addr()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// claim ensures that only one goroutine reports to a replica.
func (c *chatServer) claim(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := !c.streams[addr]
	c.streams[addr] = true
	return fresh
}

func (c *chatServer) set(change func(*statusv1.Load)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.load)
}

func (c *chatServer) silence(silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = silent
}

// arrive connects a user with an assignment.
func (c *chatServer) arrive(assignment string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.load.Connections++
	for replica := range c.streams {
		c.used[replica] = append(c.used[replica], assignment)
	}
}

// report is nil while the server is silent, or when it is neither due nor needed.
func (c *chatServer) report(replica string, due bool) *statusv1.ReportRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := c.used[replica]
	if c.silent || !due && len(used) == 0 {
		return nil
	}
	delete(c.used, replica)
	return &statusv1.ReportRequest{
		Instance: c.instance, BootId: 1, Release: "v1", StartedAtMs: 1,
		Endpoint: &chatv1.Endpoint{Address: c.health.Addr()},
		Load: &statusv1.Load{
			Connections: c.load.Connections,
			Capacity:    c.load.Capacity,
			Draining:    c.load.Draining,
		},
		UsedAssignments: used,
	}
}

// reportTo reports until the stream or the server ends.
func (c *chatServer) reportTo(addr string) {
	conn := dial(c.t, addr)
	defer conn.Close()
	stream, err := statusv1.NewStatusServiceClient(conn).Report(c.ctx)
	if err != nil {
		return
	}
	tick := time.NewTicker(reportSoonest)
	defer tick.Stop()
	last := time.Time{}
	for {
		if r := c.report(addr, time.Since(last) >= reportEvery); r != nil {
			if stream.Send(r) != nil {
				return
			}
			last = time.Now()
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return
		}
	}
}

func dial(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// caller calls one replica, or those in Consul.
type caller struct {
	t      *testing.T
	client statusv1.StatusServiceClient
}

func newCaller(t *testing.T, target string, options ...grpc.DialOption) *caller {
	t.Helper()
	conn := dial(t, target, options...)
	t.Cleanup(func() { conn.Close() })
	return &caller{t: t, client: statusv1.NewStatusServiceClient(conn)}
}

func (c *caller) assign(avoid ...string) (*statusv1.Assignment, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	resp, err := c.client.Assign(ctx, &statusv1.AssignRequest{UserId: 1, Avoid: avoid})
	return resp.GetAssignment(), err
}

// answers returns the address of the replica that assigned, "" if none did.
func (c *caller) answers() string {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	var p peer.Peer
	if _, err := c.client.Assign(ctx, &statusv1.AssignRequest{UserId: 1}, grpc.Peer(&p)); err != nil {
		return ""
	}
	return p.Addr.String()
}

// server returns what Fleet says of one server; nil if nothing.
func (c *caller) server(instance string) *statusv1.Server {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	resp, err := c.client.Fleet(ctx, &statusv1.FleetRequest{})
	if err != nil {
		c.t.Fatalf("fleet: %v", err)
	}
	for _, s := range resp.GetServers() {
		if s.GetEndpoint().GetInstance() == instance {
			return s
		}
	}
	return nil
}

// settled waits until the servers are eligible by their reports.
func (c *caller) settled(instances ...string) {
	c.t.Helper()
	for _, instance := range instances {
		eventually(c.t, instance+" is eligible and reports", 20*time.Second, func() bool {
			s := c.server(instance)
			return s.GetEligible() && s.GetLoad() != nil
		})
	}
}

// eventually polls and returns how long it took.
func eventually(t *testing.T, what string, limit time.Duration, done func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !done() {
		if time.Since(start) > limit {
			t.Fatalf("not seen within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond) // between two polls
	}
	return time.Since(start)
}
