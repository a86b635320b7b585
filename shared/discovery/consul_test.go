package discovery_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
)

func startConsul(t *testing.T) (*testenv.ConsulAgent, *consul.Catalog) {
	t.Helper()
	a := testenv.StartConsul(t)
	catalog, err := consul.New(a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return a, catalog
}

func TestTheRegistrationSurvivesTheAgent(t *testing.T) {
	agent, catalog := startConsul(t)
	lists := watchReal(t, catalog, discovery.Options{})
	start(t, catalog, "chat", "ONE")
	until(t, lists, "ONE")

	// The agent forgets us, as one that lost its data does.
	if err := catalog.Client().Agent().ServiceDeregister("chat-ONE"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registration", func() bool {
		_, _, err := catalog.Client().Agent().Service("chat-ONE", nil)
		return err == nil
	})

	// The agent restarts with its data: the watch keeps its list and goes on.
	agent.Kill()
	agent.Start(t)
	start(t, catalog, "chat", "TWO")
	until(t, lists, "ONETWO")
}

func TestConsulMayRefuseARegistration(t *testing.T) {
	_, catalog := startConsul(t)
	_, err := catalog.Register(t.Context(), discovery.Registration{
		Service: "chat", Instance: "ONE", Address: "127.0.0.1:7",
		Checks: []discovery.Check{{TCP: "127.0.0.1:7"}},
		Meta:   map[string]string{"key": strings.Repeat("x", 1000)},
	})
	if err == nil || !strings.Contains(err.Error(), "Value is too long") {
		t.Errorf("got %v, want Consul's refusal", err)
	}
}

func TestRegisterTriesOnWhileTheAgentIsAway(t *testing.T) {
	agent, catalog := startConsul(t)
	agent.Kill()
	p := start(t, catalog, "chat", "ONE")
	agent.Start(t)
	eventually(t, "the registration", func() bool {
		_, _, err := catalog.Client().Agent().Service("chat-ONE", nil)
		return err == nil
	})
	if err := p.leave(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestResolver(t *testing.T) {
	agent, catalog := startConsul(t)
	conn, err := grpc.NewClient("consul:///chat",
		append(discovery.DialOptions(catalog), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
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
	one := start(t, catalog, "chat", "ONE")
	eventually(t, "a call to the first", works)
	two := start(t, catalog, "chat", "TWO")
	lists := watchReal(t, catalog, discovery.Options{})
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
	three := start(t, catalog, "chat", "THREE")
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
