package discovery_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/testenv"
)

func consul(t *testing.T) (*testenv.ConsulAgent, *api.Client) {
	t.Helper()
	a := testenv.StartConsul(t)
	client, err := discovery.NewClient(a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return a, client
}

// process stands in for one of our processes: gRPC health on a port.
type process struct {
	health *admin.HealthServer
	kill   func()
	leave  func(context.Context) error
}

func start(t *testing.T, client *api.Client, service, instance string) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{health: admin.NewHealth(l)}
	p.health.Set(true)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.health.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	p.kill = func() { cancel(); <-ended }
	t.Cleanup(p.kill)
	p.leave, err = discovery.Register(ctx, client, discovery.Registration{
		Service: service, Instance: instance, Address: p.health.Addr(),
		Meta:   map[string]string{discovery.MetaRelease: "v1"},
		Checks: []discovery.Check{{Name: "health", GRPC: p.health.Addr()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// until reads lists until one is as wanted.
func until(t *testing.T, lists <-chan string, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case got := <-lists:
			if got == want {
				return
			}
			t.Logf("passed by: %q", got)
		case <-deadline:
			t.Fatalf("%q not seen", want)
		}
	}
}

func TestRegisteredProcessesAreSeenFailingAndGone(t *testing.T) {
	_, client := consul(t)
	lists := watchReal(t, client, discovery.Options{EmptyAfter: time.Second})
	until(t, lists, "")
	one := start(t, client, "chat", "ONE")
	until(t, lists, "ONE")
	two := start(t, client, "chat", "TWO")
	until(t, lists, "ONETWO")
	one.health.Set(false)
	until(t, lists, "!ONETWO")
	one.health.Set(true)
	until(t, lists, "ONETWO")
	two.kill() // as kill -9 would, without deregistration
	until(t, lists, "ONE!TWO")
	if err := one.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, lists, "!TWO")
	if err := one.leave(t.Context()); err != nil {
		t.Errorf("leaving twice: %v", err)
	}
	if err := two.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, lists, "")
}

func watchReal(t *testing.T, client *api.Client, opts discovery.Options) <-chan string {
	t.Helper()
	lists := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = discovery.NewWatcher(client, "chat", opts).Run(ctx, func(list []discovery.Instance) {
			lists <- letters(list)
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return lists
}

func TestTheRegistrationSurvivesTheAgent(t *testing.T) {
	agent, client := consul(t)
	lists := watchReal(t, client, discovery.Options{})
	start(t, client, "chat", "ONE")
	until(t, lists, "ONE")

	// The agent forgets us, as one that lost its data does.
	if err := client.Agent().ServiceDeregister("chat-ONE"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registration", func() bool {
		_, _, err := client.Agent().Service("chat-ONE", nil)
		return err == nil
	})

	// The agent restarts with its data: the watch keeps its list and goes on.
	agent.Kill()
	agent.Start(t)
	start(t, client, "chat", "TWO")
	until(t, lists, "ONETWO")
}

func TestRegisterChecksWhatItIsGiven(t *testing.T) {
	_, client := consul(t)
	good := discovery.Registration{
		Service: "chat", Instance: "ONE", Address: "127.0.0.1:7",
		Checks: []discovery.Check{{TCP: "127.0.0.1:7"}},
	}
	for _, c := range []struct {
		name  string
		spoil func(*discovery.Registration)
		want  string
	}{
		{"no service", func(r *discovery.Registration) { r.Service = "" }, "at least one check"},
		{"no instance", func(r *discovery.Registration) { r.Instance = "" }, "at least one check"},
		{"no check", func(r *discovery.Registration) { r.Checks = nil }, "at least one check"},
		{"no port", func(r *discovery.Registration) { r.Address = "127.0.0.1" }, "missing port"},
		{"a named port", func(r *discovery.Registration) { r.Address = "127.0.0.1:http" }, "numeric port"},
		{"port 0", func(r *discovery.Registration) { r.Address = "127.0.0.1:0" }, "numeric port"},
		{"no host", func(r *discovery.Registration) { r.Address = ":7" }, "host:port"},
		{"two kinds", func(r *discovery.Registration) {
			r.Checks = []discovery.Check{{Name: "both", TCP: "127.0.0.1:7", GRPC: "127.0.0.1:7"}}
		}, "exactly one"},
		{"refused by consul", func(r *discovery.Registration) {
			r.Meta = map[string]string{"key": strings.Repeat("x", 1000)}
		}, "Value is too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.spoil(&r)
			if _, err := discovery.Register(t.Context(), client, r); err == nil ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRegisterTriesOnWhileTheAgentIsAway(t *testing.T) {
	agent, client := consul(t)
	agent.Kill()
	p := start(t, client, "chat", "ONE")
	agent.Start(t)
	eventually(t, "the registration", func() bool {
		_, _, err := client.Agent().Service("chat-ONE", nil)
		return err == nil
	})
	if err := p.leave(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHTTPAndTCPChecks(t *testing.T) {
	_, client := consul(t)
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for id, check := range map[string]discovery.Check{
		"TCP":  {TCP: addr},
		"HTTP": {HTTP: "http://" + addr + "/"}, // answers 404
	} {
		leave, err := discovery.Register(t.Context(), client, discovery.Registration{
			Service: "chat", Instance: id, Address: addr, Checks: []discovery.Check{check},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = leave(context.WithoutCancel(t.Context())) }()
	}
	until(t, watchReal(t, client, discovery.Options{}), "!HTTPTCP")
}

func TestResolver(t *testing.T) {
	agent, client := consul(t)
	conn, err := grpc.NewClient("consul:///chat",
		append(discovery.DialOptions(client), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var answered peer.Peer
	call := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&answered))
		return err
	}
	if err := call(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no instance of chat") {
		t.Fatalf("nobody there: %v", err)
	}
	works := func() bool { return call() == nil }
	reaches := func(p *process) func() bool {
		return func() bool { return call() == nil && answered.Addr.String() == p.health.Addr() }
	}
	one := start(t, client, "chat", "ONE")
	eventually(t, "a call to the first", works)
	two := start(t, client, "chat", "TWO")
	lists := watchReal(t, client, discovery.Options{})
	until(t, lists, "ONETWO")
	// The channel has a watch of its own, which may be later than ours.
	eventually(t, "a call to the second", reaches(two))

	// The one that says NOT_SERVING gets no calls although Consul cannot tell,
	// and calls go on with Consul away.
	agent.Kill()
	one.health.Set(false)
	one.kill()
	eventually(t, "a call that works", works)
	for range 20 {
		if err := call(); err != nil {
			t.Fatalf("with one down: %v", err)
		}
	}
	agent.Start(t)
	three := start(t, client, "chat", "THREE")
	until(t, lists, "!ONETHREETWO")
	two.kill()
	eventually(t, "a call to the third", reaches(three))
	three.kill()
	eventually(t, "no call", func() bool { return status.Code(call()) == codes.Unavailable })
}

func TestMain(m *testing.M) {
	// The tests' agents are reached without the settings of this shell.
	for _, name := range []string{"CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_SSL", "CONSUL_NAMESPACE"} {
		os.Unsetenv(name)
	}
	m.Run()
}
