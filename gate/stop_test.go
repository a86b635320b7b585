package gate_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/gate/internal/mailtest"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
)

// On a stop /readyz fails while requests are still served, requests in flight are
// answered, and accepted mail is sent.
func TestTheStop(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	h := open(t, func(c *gate.Config) {
		c.Drain, c.SMTP.Flush = 700*time.Millisecond, 10*time.Second
		c.StatusTimeout = 10 * time.Second
	})
	token := h.register("ann").Token
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	h.cfg.SMTP.Addr = addr // nothing listens there yet
	h.start()
	h.eventually("ready", func() bool { return h.get("/readyz").status == http.StatusOK })
	if r := h.requestCode("bob@example.org"); r.status != http.StatusAccepted {
		t.Fatalf("a code: %d %s", r.status, r.body)
	}
	reached, release := make(chan struct{}), make(chan struct{})
	h.status.set(func(*statusv1.AssignRequest) (*statusv1.Assignment, error) {
		close(reached)
		<-release
		return &statusv1.Assignment{Id: "late", Server: anEndpoint()}, nil
	})
	inFlight := make(chan reply, 1)
	go func() {
		r, err := h.try(http.MethodPost, "/v1/assignments", token, "{}")
		if err != nil {
			t.Error(err)
		}
		inFlight <- r
	}()
	<-reached

	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	h.eventually("readyz fails", func() bool {
		r := h.get("/readyz")
		return r.status == http.StatusServiceUnavailable && strings.Contains(r.body, "stopping")
	})
	if r := h.do(http.MethodGet, "/v1/me", token, ""); r.status != http.StatusOK {
		t.Errorf("while draining: %d %s", r.status, r.body)
	}
	h.eventually("the port is closed", func() bool {
		_, err := h.try(http.MethodGet, "/healthz", "", "")
		return err != nil
	})
	mail := mailtest.StartAt(t, addr)
	close(release)
	if r := <-inFlight; r.status != http.StatusOK || !strings.Contains(r.body, `"late"`) {
		t.Errorf("in flight: %d %s", r.status, r.body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if n := len(mail.To("bob@example.org")); n != 1 {
		t.Errorf("%d mails were flushed, want 1", n)
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	h := open(t, nil)
	cfg := h.cfg
	cfg.Bind = strings.TrimPrefix(h.url, "http://")
	if _, err := gate.New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), cfg.Bind) {
		t.Errorf("got %v, want an error that names the port", err)
	}
}

// Without Nomad the gate registers itself in Consul, finds status there, and
// deregisters when it stops.
func TestItRegistersItself(t *testing.T) {
	agent := testenv.StartConsul(t)
	catalog, err := consul.New(agent.Addr)
	if err != nil {
		t.Fatal(err)
	}
	client := catalog.Client()
	h := prepare(t, func(c *gate.Config) {
		c.Catalog, c.Register, c.StatusTarget = catalog, true, ""
		c.Release, c.Zone = "r7", "east"
	})
	host, port := splitPort(t, h.status.addr)
	err = client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "status", Address: host, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	passing := func() []*api.ServiceEntry {
		entries, _, err := client.Health().Service("gate", "", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	h.eventually("passing in Consul", func() bool { return len(passing()) == 1 })
	s := passing()[0].Service
	if at := fmt.Sprintf("http://%s:%d", s.Address, s.Port); at != h.url || s.Meta["instance"] != "gate-under-test" ||
		s.Meta["release"] != "r7" || s.Meta["zone"] != "east" {
		t.Errorf("registered as %s %v", at, s.Meta)
	}
	if l := h.register("ann"); l.Assignment == nil || l.Assignment.Server.Instance != "chat-1" {
		t.Errorf("assigned %+v by the status in Consul", l.Assignment)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if services, err := client.Agent().Services(); err != nil || len(services) != 1 {
		t.Errorf("%d services left (%v), want status alone", len(services), err)
	}
}
