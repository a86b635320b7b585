// Package probe watches one chat server from the outside: whether what the fleet
// acknowledges is in the log and reaches its reader. A deployment's health depends
// on it, so that a build which runs but loses messages is rolled back.
//
// A probe has eight accounts of its own, four near and four far. It connects the
// near ones to its chat server and the far ones to one server of the fleet after
// the other, its own included, and has them write to each other in sixteen
// conversations, whose owners are spread over the fleet. Of every acknowledged
// message it proves that
//
//   - the log has it under the acknowledged number, with its text, and only once;
//   - its reader got it while connected, as a push or by the log's head;
//   - a sender's messages have rising numbers in the order sent.
//
// It uses the protocol connection (shared/wire) instead of the client library,
// which hides what a probe looks for: it repairs, moves to other servers, and
// sends again.
//
// First comes the proof, thousands of messages; until then the probe's check
// warns, which is not healthy to Nomad. Then a trickle goes on forever. A broken
// promise makes the check critical until the process is restarted. Trouble that
// breaks no promise (a database that does not answer, a server that died) is a
// warning at most. A message that was not acknowledged cannot be lost.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/lifecycle"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/wire"
)

// Service is the name in Consul.
const Service = "probe"

// minSchema is the version that this package needs: first_seq.
const minSchema = 8

// Defaults of Config.
const (
	// DefaultMessages: a build that loses one message in a thousand passes a proof
	// of 10,000 with a probability of e^-10, and each new server makes one.
	DefaultMessages = 10_000
	// DefaultRate is a small part of what one database commits in a second.
	DefaultRate = 4000
	// DefaultEvery finds a loss of one in a thousand in a quarter of an hour, and
	// costs a fleet of 55 servers as many messages a second.
	DefaultEvery = time.Second
)

// Config is a probe's configuration.
type Config struct {
	// Instance and Release are those of the chat server that is watched; Home is
	// where clients reach it, host:port.
	Instance, Release, Home string
	// TLSServerName is the name in the watched server's certificate; empty: no TLS. Roots
	// are the authorities that the probe trusts; nil: the system's.
	TLSServerName string
	Roots         *x509.CertPool
	// Slot chooses the accounts. Probes that run at the same time should have
	// different ones, but those with the same do not change each other's verdicts.
	Slot       int
	HTTPBind   string
	ConsulAddr string
	// Register registers the process in Consul; off where Nomad does it.
	Register bool
	Database database.Config
	// Messages is the length of the proof, Rate how many messages all probes of
	// the fleet together send in a second meanwhile. 0 is the default.
	Messages, Rate int
	// Every is the pause between two messages after the proof. 0 is the default.
	Every time.Duration
}

func (c Config) withDefaults() Config {
	if c.Messages == 0 {
		c.Messages = DefaultMessages
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Every == 0 {
		c.Every = DefaultEvery
	}
	c.Database.MaxOpen, c.Database.MaxIdle = 2, 1
	return c
}

// Validate says what is wrong before anything is started.
func (c Config) Validate() error {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Instance == "" {
		problem("the instance id is empty")
	}
	if _, _, err := net.SplitHostPort(c.Home); err != nil {
		problem("the chat server's address %q: %w", c.Home, err)
	}
	if c.HTTPBind == "" || c.ConsulAddr == "" {
		problem("the address to bind and that of Consul must be given")
	}
	if c.Slot < 0 || c.Slot > 9999 {
		problem("the slot must be between 0 and 9999")
	}
	if c.Messages < 0 || c.Rate < 0 || c.Every < 0 {
		problem("messages, rate and pause must not be negative")
	}
	return errors.Join(append(problems, c.Database.Validate())...)
}

// Probe is one probe. New binds its port, Run does the work.
type Probe struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	registry *prometheus.Registry
	metrics  *metrics
	state    *state
	catalog  catalog
	tracker  *tracker
	dialer   wire.Dialer
	epoch    atomic.Uint64 // of the log; 0 before the first connection

	// Set by watch before the first round.
	db       *sql.DB
	accounts *accounts
}

// New checks the configuration and binds the port. Run must follow, also to
// release it.
func New(cfg Config, log *slog.Logger) (*Probe, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Probe{cfg: cfg.withDefaults(), log: log.With("instance", cfg.Instance), registry: admin.NewRegistry()}
	var err error
	if p.listener, err = net.Listen("tcp", cfg.HTTPBind); err != nil {
		return nil, fmt.Errorf("bind the http port: %w", err)
	}
	p.dialer.TLS = &tls.Config{RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS13}
	p.metrics = newMetrics(p.registry)
	p.state = newState(p.cfg.Messages)
	p.tracker = newTracker(p.metrics)
	p.catalog.home = p.cfg.Instance
	return p, nil
}

// HTTPAddr serves /readyz, which the check asks, /healthz and /metrics.
func (p *Probe) HTTPAddr() string { return p.listener.Addr().String() }

// Run probes until ctx ends. It is called once.
func (p *Probe) Run(ctx context.Context) error {
	catalog, err := consul.New(p.cfg.ConsulAddr)
	if err != nil {
		return errors.Join(err, p.listener.Close())
	}
	var g lifecycle.Group
	g.Go("http", func(ctx context.Context) error { return admin.Serve(ctx, p.listener, p.handler()) })
	g.Go("catalog", func(ctx context.Context) error { return p.follow(ctx, catalog) })
	g.Go("probe", p.watch)
	if p.cfg.Register {
		leave, err := p.register(ctx, catalog)
		if err != nil {
			return errors.Join(err, p.listener.Close())
		}
		g.OnStop("registration", leave)
	}
	return g.Run(ctx, 10*time.Second)
}

// handler answers the check with the state: 200, 429 (which Consul takes as a
// warning) or 503, and a line that says why.
func (p *Probe) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		code, text := p.state.verdict(time.Now())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		_, _ = fmt.Fprintln(w, text) // fails when the client has gone
	})
	mux.Handle("/", admin.Handler(p.registry, nil))
	return mux
}

func (p *Probe) register(
	ctx context.Context, catalog discovery.Catalog,
) (leave func(context.Context) error, err error) {
	return catalog.Register(context.WithoutCancel(ctx), discovery.Registration{
		Service: Service, Instance: p.cfg.Instance, Address: p.HTTPAddr(), Log: p.log,
		Meta:   map[string]string{discovery.MetaRelease: p.cfg.Release},
		Checks: []discovery.Check{{Name: "proof", HTTP: "http://" + p.HTTPAddr() + "/readyz"}},
	})
}

// follow keeps the catalog up to date.
func (p *Probe) follow(ctx context.Context, catalog discovery.Catalog) error {
	return discovery.Watch(ctx, catalog, "chat", false, p.catalog.set)
}

// watch opens the database and the accounts, makes the proof, and then goes on
// with the trickle until ctx ends.
func (p *Probe) watch(ctx context.Context) error {
	var err error
	if p.db, err = database.OpenWait(ctx, p.cfg.Database, p.log); err != nil {
		return lifecycle.UnlessStopped(ctx, err)
	}
	defer p.db.Close()
	if err := schema.WaitFor(ctx, p.db, minSchema, p.log); err != nil {
		return lifecycle.UnlessStopped(ctx, err)
	}
	for p.accounts == nil {
		if p.accounts, err = openAccounts(ctx, p.db, p.cfg.Slot, p.cfg.Instance); err != nil {
			p.trouble(fmt.Errorf("create the probe's accounts: %w", err))
			if !retry.Sleep(ctx, time.Second) {
				return nil
			}
		}
	}
	if !p.prove(ctx) {
		return nil
	}
	p.trickle(ctx)
	return nil
}

// trouble records a failure that breaks no promise.
func (p *Probe) trouble(err error) {
	p.metrics.troubles.Inc()
	if p.state.trouble(err.Error()) {
		p.log.Warn("cannot probe", "err", err)
	}
}

// broken records broken promises. While servers of a release that came after this
// probe are there, that release is suspected: its own probes judge it.
func (p *Probe) broken(faults []fault) {
	for _, f := range faults {
		newer := p.catalog.newer(p.cfg.Release)
		p.metrics.broken.WithLabelValues(string(f.kind)).Inc()
		p.log.Error("a promise was broken", "kind", string(f.kind), "what", f.text, "newer_release", newer)
		p.state.broken(f, newer)
	}
}
