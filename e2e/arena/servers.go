package arena

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/certificate/authority"
	"github.com/msrchat/msrchat/shared/discovery"
)

// chatPorts are where one chat server listens, bypassing the wires.
type chatPorts struct{ client, relay, health, http string }

// statusForGate is what status is called in Consul behind the gate's wires.
const statusForGate = "status-for-gate"

// tlsName is in the chat servers' certificate.
const tlsName = "chat.arena.test"

// makeCertificates makes one for all chat servers.
func (a *Arena) makeCertificates(context.Context, context.Context) error {
	if !a.cfg.TLS {
		return nil
	}
	ca, err := authority.New(a.dir)
	if err != nil {
		return err
	}
	if a.certificate, err = ca.Issue(tlsName); err != nil {
		return err
	}
	a.roots, err = certificate.Roots(ca.File)
	return err
}

// TLSServerName is the name in the chat servers' certificate; empty without TLS.
func (a *Arena) TLSServerName() string {
	if a.certificate.Empty() {
		return ""
	}
	return tlsName
}

// TLS is what people's programs trust; nil: the system's.
func (a *Arena) TLS() *tls.Config {
	if a.roots == nil {
		return nil
	}
	return &tls.Config{RootCAs: a.roots, MinVersion: tls.VersionTLS13}
}

// startServers starts status, chat and gate. All find each other in the
// catalog, so its addresses are those of wires. The wires between gate and
// status are registered as a service of their own.
func (a *Arena) startServers(_, life context.Context) error {
	for i := range a.cfg.Status {
		if err := a.startStatus(life, fmt.Sprintf("status-%d", i+1)); err != nil {
			return err
		}
	}
	for i := range a.cfg.Chats {
		if err := a.startChat(life, fmt.Sprintf("chat-%d", i+1)); err != nil {
			return err
		}
	}
	return a.startGate(life)
}

// addresses picks free ones.
func addresses(into ...*string) (err error) {
	for _, addr := range into {
		if *addr, err = local(); err != nil {
			return err
		}
	}
	return nil
}

// program is one of our own.
func (a *Arena) program(name string) string { return filepath.Join(a.bin, name) }

func (a *Arena) common(instance string) []string {
	return []string{"--instance", instance, "--release", "arena", "--register", "--consul-addr", a.consul.Addr}
}

func (a *Arena) startStatus(life context.Context, name string) error {
	var rpc, health, web string
	if err := addresses(&rpc, &health, &web); err != nil {
		return err
	}
	toChat, err := a.net.add(StatusChat, name, rpc)
	if err != nil {
		return err
	}
	toGate, err := a.net.add(GateStatus, name, rpc)
	if err != nil {
		return err
	}
	a.start(life, &Process{Kind: "status", Name: name, path: a.program("status"), args: append(a.common(name),
		"--grpc-bind", rpc, "--grpc-advertise", toChat.Addr, "--health-bind", health, "--http-bind", web)})
	a.statuses = append(a.statuses, rpc)
	a.metrics[name] = "http://" + web + "/metrics"
	_, err = a.catalog.Register(life, discovery.Registration{
		Service: statusForGate, Instance: name, Address: toGate.Addr,
		Checks: []discovery.Check{{Name: "grpc health", GRPC: health}},
	})
	return err
}

func (a *Arena) startChat(life context.Context, name string) error {
	var at chatPorts
	if err := addresses(&at.client, &at.relay, &at.health, &at.http); err != nil {
		return err
	}
	var wires [4]*Wire
	for i, w := range []struct {
		pair Pair
		to   string
	}{{ClientChat, at.client}, {ChatChat, at.relay}, {ChatMySQL, a.mysql.Addr}, {ChatRedis, a.redis.Addr}} {
		var err error
		if wires[i], err = a.net.add(w.pair, name, w.to); err != nil {
			return err
		}
	}
	var secured []string
	if !a.certificate.Empty() {
		secured = []string{
			"--tls-server-name", tlsName, "--tls-cert", a.certificate.Cert, "--tls-key", a.certificate.Key,
		}
	}
	a.chats = append(a.chats, at)
	a.metrics[name] = "http://" + at.http + "/metrics"
	a.start(life, &Process{
		Kind: "chat", Name: name, path: a.program("chat"),
		args: append(append(a.common(name), secured...),
			"--client-bind", at.client, "--client-advertise", wires[0].Addr,
			"--relay-bind", at.relay, "--relay-advertise", wires[1].Addr,
			"--health-bind", at.health, "--http-bind", at.http, "--mysql-addr", wires[2].Addr, "--mysql-user", "root",
			"--mysql-database", databaseName, "--redis-addr", wires[3].Addr,
			"--heartbeat", Heartbeat.String(), "--drain", "500ms"),
		env: []string{"MSRCHAT_RELAY_FAULTS=" + a.relayFaults(), "MSRCHAT_PLANTED=" + string(a.cfg.Bug)},
	})
	return nil
}

func (a *Arena) startGate(life context.Context) error {
	var admin string
	if err := addresses(&a.gate, &admin); err != nil {
		return err
	}
	a.metrics["gate"] = "http://" + admin + "/metrics"
	args := append(a.common("gate"), "--http-bind", a.gate, "--admin-bind", admin, "--status-target",
		discovery.Scheme+":///"+statusForGate,
		"--mysql-addr", a.mysql.Addr, "--mysql-user", "root", "--mysql-database", databaseName,
		"--redis-addr", a.redis.Addr)
	if a.cfg.SMTP != "" {
		args = append(args, "--smtp-addr", a.cfg.SMTP)
	}
	args = append(args, a.cfg.Gate...)
	a.start(life, &Process{Kind: "gate", Name: "gate", path: a.program("gate"), args: args})
	return nil
}

// settle waits until everything is whole.
func (a *Arena) settle(ctx context.Context) error { return until(ctx, "all servers", a.Whole) }

// Whole says what is not right: nil when the databases, Consul and the gate
// answer, and every status server may send people to every chat server, and has
// fresh reports of it.
func (a *Arena) Whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for what, ready := range map[string]func(context.Context) error{
		"MariaDB": a.mysql.Ready, "Redis": a.redis.Ready, "Consul": a.consul.Ready,
		"gate": a.gateReady, "fleet": a.eligible,
	} {
		if err := ready(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func (a *Arena) gateReady(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Gate()+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the gate answers %s", resp.Status)
	}
	return nil
}

func (a *Arena) eligible(ctx context.Context) error {
	problems := make([]error, len(a.statuses))
	for i, addr := range a.statuses {
		problems[i] = a.eligibleAt(ctx, addr)
	}
	return errors.Join(problems...)
}

// freshReport is how long status trusts a report.
const freshReport = 3 * time.Second

func (a *Arena) eligibleAt(ctx context.Context, addr string) error {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	fleet, err := statusv1.NewStatusServiceClient(cc).Fleet(ctx, &statusv1.FleetRequest{})
	if err != nil {
		return err
	}
	n := 0
	for _, s := range fleet.GetServers() {
		if s.GetEligible() && s.GetLoad() != nil && s.GetReportAgeMs() < freshReport.Milliseconds() {
			n++
		}
	}
	if n < a.cfg.Chats {
		return fmt.Errorf("%d of %d chat servers are eligible, with fresh reports, at %s", n, a.cfg.Chats, addr)
	}
	return nil
}
