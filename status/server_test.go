package status_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status"
)

// within is the promise to operators: how soon a server with a fault gets no
// users.
const within = 5 * time.Second

func TestAServerWithAFaultGetsNoUsers(t *testing.T) {
	_, catalog := startConsul(t)
	r := startReplica(t, catalog, "status-1", nil)
	a, b := startChat(t, catalog, "a"), startChat(t, catalog, "b")
	c := newCaller(t, r.GRPCAddr())
	c.settled("a", "b")

	b.set(func(l *statusv1.Load) { l.Connections = 500 })
	eventually(t, "b reports its load", within, func() bool { return c.server("b").GetLoad().GetConnections() == 500 })
	got, err := c.assign()
	if err != nil || got.GetServer().GetInstance() != "a" || got.GetServer().GetTlsServerName() != "chat.test" ||
		got.GetServer().GetAddress() != a.health.Addr() || got.GetDecidedBy() != "status-1" || got.GetCatalogOnly() ||
		len(got.GetAlternates()) != 1 || got.GetAlternates()[0].GetInstance() != "b" || got.GetId() == "" {
		t.Fatalf("assigned %v, %v; want a", got, err)
	}
	if d := time.Until(time.UnixMilli(got.GetExpiresAtMs())); d < 5*time.Second || d > 10*time.Second {
		t.Errorf("pending for %v", d)
	}

	// a is the less loaded one: as soon as it is out, users go to b.
	out := func() bool {
		got, err := c.assign()
		if err != nil {
			t.Fatalf("assign: %v", err)
		}
		return got.GetServer().GetInstance() == "b"
	}
	back := func() {
		t.Helper()
		eventually(t, "a is back", 20*time.Second, func() bool { return !out() })
	}

	a.health.Set(false)
	t.Logf("out %v after its check began to fail", eventually(t, "none for the failing", within, out))
	if s := c.server("a"); s.GetPassing() || !s.GetInCatalog() ||
		!strings.Contains(s.GetReason(), "its check in Consul has failed") {
		t.Errorf("fleet says %v", s)
	}
	a.health.Set(true)
	back()

	a.silence(true)
	t.Logf("out %v after its reports stopped", eventually(t, "none for the silent", within, out))
	if s := c.server("a"); !s.GetPassing() || !strings.Contains(s.GetReason(), "last report is") {
		t.Errorf("fleet says %v", s)
	}
	a.silence(false)
	back()

	a.set(func(l *statusv1.Load) { l.Draining = true })
	t.Logf("out %v after it reported that it drains", eventually(t, "none for the draining", within, out))
	a.set(func(l *statusv1.Load) { l.Draining = false })
	back()

	if err := a.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("out %v after it left Consul", eventually(t, "none for the one that left", within, out))
	if s := c.server("a"); !strings.Contains(s.GetReason(), "left Consul's catalog") {
		t.Errorf("fleet says %v", s)
	}
	a.kill()

	b.set(func(l *statusv1.Load) { l.Connections = 1000 })
	eventually(t, "b is full", within, func() bool { return !c.server("b").GetEligible() })
	if _, err := c.assign(); errs.CodeOf(errs.FromGRPC(err)) != errs.CodeExhausted ||
		errs.From(errs.FromGRPC(err)).RetryAfter <= 0 {
		t.Errorf("all full: %v", err)
	}
	b.kill()
	eventually(t, "nobody left", within, func() bool {
		_, err := c.assign()
		return grpcstatus.Code(err) == codes.Unavailable
	})
}

func TestAKilledServerGetsNoUsers(t *testing.T) {
	_, catalog := startConsul(t)
	r := startReplica(t, catalog, "status-1", nil)
	a, b := startChat(t, catalog, "a"), startChat(t, catalog, "b")
	c := newCaller(t, r.GRPCAddr())
	c.settled("a", "b")
	b.set(func(l *statusv1.Load) { l.Connections = 500 })
	eventually(t, "b reports its load", within, func() bool { return c.server("b").GetLoad().GetConnections() == 500 })
	a.kill()
	// A second after the stream broke, well before the last report is stale.
	took := eventually(t, "none for the dead", 2500*time.Millisecond, func() bool {
		got, err := c.assign()
		return err == nil && got.GetServer().GetInstance() == "b"
	})
	t.Logf("out %v after its death", took)
}

func TestRestartedReplicasAssignAtOnce(t *testing.T) {
	_, catalog := startConsul(t)
	first, second := startReplica(t, catalog, "status-1", nil), startReplica(t, catalog, "status-2", nil)
	startChat(t, catalog, "a")
	startChat(t, catalog, "b")
	for _, r := range []*replica{first, second} {
		newCaller(t, r.GRPCAddr()).settled("a", "b")
	}
	gate := newCaller(t, "consul:///"+status.ServiceName, discovery.DialOptions(catalog)...)
	reached := make(map[string]bool) // a channel to only one of them would notice its end
	eventually(t, "both replicas are asked", within, func() bool {
		if replica := gate.answers(); replica != "" {
			reached[replica] = true
		}
		return len(reached) == 2
	})

	// One goes: nobody notices.
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := gate.assign(); err != nil {
			t.Fatalf("with one replica gone: %v", err)
		}
	}

	// All go. A new one answers its first call, before any report came.
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	again := startReplica(t, catalog, "status-3", nil)
	got, err := newCaller(t, again.GRPCAddr()).assign()
	if err != nil || !got.GetCatalogOnly() {
		t.Fatalf("the first call: %v, %v; want a decision by the catalog alone", got, err)
	}
	startReplica(t, catalog, "status-4", nil)
	took := eventually(t, "an assignment through Consul", 20*time.Second,
		func() bool { _, err := gate.assign(); return err == nil })
	t.Logf("through Consul again %v after the restart", took)
	eventually(t, "a decision by load", 20*time.Second, func() bool {
		got, err := gate.assign()
		return err == nil && !got.GetCatalogOnly()
	})
}

func TestARestartOfConsulIsNotNoticed(t *testing.T) {
	agent, catalog := startConsul(t)
	r := startReplica(t, catalog, "status-1", nil)
	startChat(t, catalog, "a")
	startChat(t, catalog, "b")
	c := newCaller(t, r.GRPCAddr())
	c.settled("a", "b")

	done := make(chan struct{})
	go func() {
		defer close(done)
		agent.Kill()
		agent.Start(t)
	}()
	calls := 0
	ask := func() {
		got, err := c.assign()
		if err != nil || got.GetCatalogOnly() {
			t.Fatalf("call %d: %v, %v", calls, got, err)
		}
		calls++
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(20 * time.Millisecond): // the rate of a gate
			ask()
		}
	}
	// The new agent calls every check critical until it ran.
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		ask()
		time.Sleep(20 * time.Millisecond) // the same rate
	}
	t.Logf("%d assignments through a restart of Consul", calls)
}

func TestConfigIsChecked(t *testing.T) {
	good := status.Defaults()
	good.Instance, good.Release, good.Catalog = "s", "v1", nowhere(t)
	if err := good.Validate(); err != nil {
		t.Errorf("good: %v", err)
	}
	for name, spoil := range map[string]func(*status.Config){
		"instance is missing":         func(c *status.Config) { c.Instance = "" },
		"release is missing":          func(c *status.Config) { c.Release = "" },
		`grpc-bind "x"`:               func(c *status.Config) { c.GRPCBind = "x" },
		"the catalog is missing":      func(c *status.Config) { c.Catalog = nil },
		"health-advertise is missing": func(c *status.Config) { c.Register, c.HealthBind = true, ":7" },
		"grpc-advertise is missing":   func(c *status.Config) { c.Register, c.GRPCBind = true, "[::]:7" },
		`grpc-advertise "y"`:          func(c *status.Config) { c.GRPCAdvertise = "y" },
		"must not be negative":        func(c *status.Config) { c.DrainDelay = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
}
