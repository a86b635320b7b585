// Package cluster is a whole msrChat in one process, for tests: real gate,
// status and chat servers on free loopback ports, with a real MariaDB, Redis,
// Consul and mailbox behind them. Servers can be stopped, started and added.
package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/status"
	"github.com/msrchat/msrchat/tools/mailbox"
)

// Heartbeat of the chat servers: short, so that "within one heartbeat" is
// quick to wait for.
const Heartbeat = 2 * time.Second

// Config says what to start; 0 means one gate, two status and two chat servers.
type Config struct {
	Status, Chats int
	// Chat changes a chat server's configuration before it starts.
	Chat func(*chat.Config)
	// Replica changes a status server's, Gate the gate's.
	Replica func(*status.Config)
	Gate    func(*gate.Config)
	// Own gives the test a MariaDB and a Redis of its own, to be killed.
	Own bool
	// MySQL and Redis are those to use, if they are set.
	MySQL *database.Config
	Redis *cache.Config
}

// Cluster is the running system. Its methods are for the test's goroutine.
type Cluster struct {
	t   testing.TB
	cfg Config
	log *slog.Logger

	// MariaDB and Redis are set with Config.Own.
	MariaDB *testenv.MariaDBServer
	Redis   *testenv.RedisServer
	Consul  *testenv.ConsulAgent
	Mail    *mailbox.Mailbox
	Gate    *Process[*gate.Server]
	Status  []*Process[*status.Server]
	Chats   []*Process[*chat.Server]

	db      database.Config
	redis   cache.Config
	catalog discovery.Catalog
	started int
}

// Process is one server that a test may stop.
type Process[S any] struct {
	Server S
	Name   string
	stop   func()
}

// Stop ends the server as SIGTERM does and waits for it.
func (p *Process[S]) Stop() { p.stop() }

// Run starts a cluster that ends with the test, once it takes users: every
// server is in the catalog and reports.
func Run(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	if cfg.Status == 0 {
		cfg.Status = 2
	}
	if cfg.Chats == 0 {
		cfg.Chats = 2
	}
	c := &Cluster{t: t, cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if os.Getenv("MSRCHAT_TEST_LOG") != "" {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c.startBackends()
	catalog, err := consul.New(c.Consul.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.catalog = catalog
	mail, err := mailbox.New(mailbox.Config{SMTPBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	c.Mail = mail
	run(c, "mail", mail)
	for range cfg.Status {
		c.AddStatus()
	}
	for range cfg.Chats {
		c.AddChat()
	}
	c.StartGate()
	c.Settle()
	return c
}

// startBackends starts what the servers need.
func (c *Cluster) startBackends() {
	c.t.Helper()
	c.Consul = testenv.StartConsul(c.t)
	switch {
	case c.cfg.MySQL != nil:
		c.db = *c.cfg.MySQL
	case c.cfg.Own:
		c.MariaDB = testenv.StartMariaDB(c.t)
		c.db = c.MariaDB.Database(c.t)
	default:
		c.db = testenv.MariaDB(c.t)
	}
	switch {
	case c.cfg.Redis != nil:
		c.redis = *c.cfg.Redis
	case c.cfg.Own:
		c.Redis = testenv.StartRedis(c.t)
		c.redis = c.Redis.Config()
	default:
		c.redis = testenv.Redis(c.t)
	}
}

// server is what every service's root package offers.
type server interface {
	Run(ctx context.Context) error
}

// run runs a server until it is stopped; if it ends by itself, the test fails.
func run[S server](c *Cluster, name string, s S) *Process[S] {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			c.t.Errorf("%s ended: %v", name, err)
		} else if ctx.Err() == nil {
			c.t.Errorf("%s ended by itself", name)
		}
	}()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			<-done
		})
	}
	c.t.Cleanup(stop)
	return &Process[S]{Server: s, Name: name, stop: stop}
}

func (c *Cluster) name(service string) string {
	c.started++
	return fmt.Sprintf("%s-%d", service, c.started)
}

// AddStatus starts one more status server.
func (c *Cluster) AddStatus() *Process[*status.Server] {
	c.t.Helper()
	name := c.name("status")
	cfg := status.Config{
		Instance: name, Release: "test", GRPCBind: "127.0.0.1:0", HealthBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0",
		Catalog: c.catalog, Register: true,
	}
	if c.cfg.Replica != nil {
		c.cfg.Replica(&cfg)
	}
	s, err := status.New(cfg, c.log.With("server", name))
	if err != nil {
		c.t.Fatal(err)
	}
	p := run(c, name, s)
	c.Status = append(c.Status, p)
	return p
}

// AddChat starts one more chat server.
func (c *Cluster) AddChat() *Process[*chat.Server] {
	c.t.Helper()
	name := c.name("chat")
	local := chat.Listener{Bind: "127.0.0.1:0"}
	cfg := chat.Config{
		Instance: name, Release: "test", Client: local, Relay: local, Health: local, HTTP: local,
		Database: c.db, Redis: c.redis, Catalog: c.catalog,
		Register: true, Heartbeat: Heartbeat, Drain: 500 * time.Millisecond,
	}
	if c.cfg.Chat != nil {
		c.cfg.Chat(&cfg)
	}
	s, err := chat.New(cfg, c.log.With("server", name))
	if err != nil {
		c.t.Fatal(err)
	}
	p := run(c, name, s)
	c.Chats = append(c.Chats, p)
	return p
}

// StartGate starts the gate, on the port of the one before if there was one,
// so that clients find it again.
func (c *Cluster) StartGate() {
	c.t.Helper()
	cfg := gate.Defaults()
	cfg.Instance, cfg.Release, cfg.Bind = c.name("gate"), "test", "127.0.0.1:0"
	if c.Gate != nil {
		cfg.Bind = c.Gate.Server.HTTPAddr()
	}
	cfg.MySQL, cfg.Redis = c.db, c.redis
	cfg.SMTP.Addr = c.Mail.SMTPAddr()
	cfg.Codes.Pause = time.Millisecond
	cfg.Codes.PerClient.Count = 10_000
	cfg.LogIns.PerClient.Count, cfg.LogIns.RegistrationsPerClient.Count = 10_000, 10_000
	cfg.Catalog, cfg.Register = c.catalog, true
	if c.cfg.Gate != nil {
		c.cfg.Gate(&cfg)
	}
	s, err := gate.New(cfg, c.log.With("server", cfg.Instance))
	if err != nil {
		c.t.Fatal(err)
	}
	c.Gate = run(c, cfg.Instance, s)
}

// Database is where the servers' database is.
func (c *Cluster) Database() database.Config { return c.db }

// EmptyRedis makes Redis lose everything.
func (c *Cluster) EmptyRedis() {
	c.t.Helper()
	testenv.EmptyRedis(c.t, c.redis)
}

// GateURL is where clients go.
func (c *Cluster) GateURL() string { return "http://" + c.Gate.Server.HTTPAddr() }
