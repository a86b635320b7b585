// Package gate is the HTTP service for accounts, verification codes, sessions,
// and the assignment of chat servers.
package gate

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"github.com/msrchat/msrchat/gate/internal/account"
	"github.com/msrchat/msrchat/gate/internal/api"
	"github.com/msrchat/msrchat/gate/internal/assign"
	"github.com/msrchat/msrchat/gate/internal/code"
	"github.com/msrchat/msrchat/gate/internal/limit"
	"github.com/msrchat/msrchat/gate/internal/mail"
	"github.com/msrchat/msrchat/gate/internal/password"
	"github.com/msrchat/msrchat/gate/internal/web"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/lifecycle"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/session"
)

// Service is gate's name in Consul.
const Service = "gate"

// Server is one gate.
type Server struct {
	cfg         Config
	log         *slog.Logger
	registry    *prometheus.Registry
	listener    net.Listener
	admin       net.Listener // for operators
	http        *http.Server
	connections *web.Connections
	redis       redis.UniversalClient
	status      *grpc.ClientConn
	mail        *mail.Queue
	codes       *code.Store
	limits      *limit.Limiter
	passwords   *password.Hasher
	ready       *readiness

	// db and backend are nil until start found the database and its schema.
	db      atomic.Pointer[sql.DB]
	backend atomic.Pointer[api.Backend]
}

// New binds the listener and prepares the rest. It dials nothing: the server
// starts and answers while its dependencies are away. A Server that is not run
// must be closed.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if cfg.Instance == "" {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails: the program would end
		cfg.Instance = "gate-" + hex.EncodeToString(b[:])
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: log.With("service", Service, "instance", cfg.Instance), registry: admin.NewRegistry()}
	transport, err := mail.NewSMTP(cfg.smtp())
	if err != nil {
		return nil, err
	}
	if s.passwords, err = password.NewHasher(cfg.passwords(), s.registry); err != nil {
		return nil, err
	}
	if s.redis, err = cache.Open(cfg.Redis); err != nil {
		return nil, err
	}
	if s.status, err = dialStatus(cfg); err != nil {
		return nil, errors.Join(err, s.redis.Close())
	}
	if s.listener, err = net.Listen("tcp", cfg.Bind); err != nil {
		return nil, errors.Join(fmt.Errorf("bind the HTTP port: %w", err), s.status.Close(), s.redis.Close())
	}
	if s.admin, err = net.Listen("tcp", cfg.AdminBind); err != nil {
		return nil, errors.Join(fmt.Errorf("bind the operators' port: %w", err),
			s.listener.Close(), s.status.Close(), s.redis.Close())
	}
	s.registry.MustRegister(cache.Metrics(s.redis))
	s.mail = mail.NewQueue(cfg.queue(), transport, s.log, s.registry)
	s.codes = code.NewStore(code.Config{
		Lifetime: cfg.Codes.Lifetime, Tries: cfg.Codes.Tries, Secret: cfg.Codes.Secret,
	}, s.redis, s.registry)
	s.limits = limit.New(s.redis, s.registry)
	s.ready = newReadiness(s)
	s.http, s.connections, err = s.newHTTP()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close releases what New opened. It is for a Server that is not run.
func (s *Server) Close() error {
	return errors.Join(s.admin.Close(), s.listener.Close(), s.status.Close(), s.redis.Close())
}

// HTTPAddr is where it listens, AdminAddr where it does so for operators.
func (s *Server) HTTPAddr() string  { return s.listener.Addr().String() }
func (s *Server) AdminAddr() string { return s.admin.Addr().String() }

func (s *Server) advertised() string {
	if s.cfg.Advertise != "" {
		return s.cfg.Advertise
	}
	return s.HTTPAddr()
}

// Run serves until ctx ends or a part fails. Then /readyz fails and the instance
// is deregistered; after Drain the listener closes, requests in flight are
// answered, and queued mail is sent, all within Grace. It blocks and returns nil
// after a clean stop. It is called once.
func (s *Server) Run(ctx context.Context) error {
	var g lifecycle.Group // stops from the last to the first
	g.OnStop("redis", func(context.Context) error { return s.redis.Close() })
	g.OnStop("status", func(context.Context) error { return s.status.Close() })
	g.OnStop("database", func(context.Context) error {
		if db := s.db.Load(); db != nil {
			return db.Close()
		}
		return nil
	})
	g.Go("admin", func(ctx context.Context) error {
		return admin.Serve(ctx, s.admin, admin.Handler(s.registry, nil))
	})
	g.Go("mail", s.mail.Run)
	g.Go("http", s.serve)
	g.Go("start", s.start)
	leave, err := s.join(ctx)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	g.OnStop("leave", leave)
	s.log.Info("listening", "http", s.HTTPAddr(), "admin", s.AdminAddr(), "advertised", s.advertised(),
		"release", s.cfg.Release)
	return g.Run(ctx, s.cfg.Grace)
}

// join registers the process, unless Nomad does, and returns how it leaves: it
// deregisters and waits until callers have noticed.
func (s *Server) join(ctx context.Context) (leave func(context.Context) error, err error) {
	deregister := func(context.Context) error { return nil }
	if s.cfg.Register {
		deregister, err = s.cfg.Catalog.Register(context.WithoutCancel(ctx), discovery.Registration{
			Service: Service, Instance: s.cfg.Instance, Address: s.advertised(), Log: s.log,
			Meta:   map[string]string{"release": s.cfg.Release, "zone": s.cfg.Zone},
			Checks: []discovery.Check{{Name: "ready", HTTP: "http://" + s.advertised() + "/readyz"}},
		})
		if err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		s.log.Info("draining")
		s.ready.leave()
		err := deregister(ctx)
		retry.Sleep(ctx, s.cfg.Drain)
		return err
	}, nil
}

// start waits for the database and its schema, then opens the operations.
func (s *Server) start(ctx context.Context) error {
	db, err := database.OpenWait(ctx, s.cfg.MySQL, s.log)
	if err != nil {
		return lifecycle.UnlessStopped(ctx, err)
	}
	s.db.Store(db)
	if err := schema.WaitFor(ctx, db, schema.Latest(), s.log); err != nil {
		return lifecycle.UnlessStopped(ctx, err)
	}
	sessions := session.NewStore(db, s.redis, session.WithLifetime(s.cfg.SessionLifetime))
	s.registry.MustRegister(database.Metrics(db), sessions.Metrics())
	s.backend.Store(&api.Backend{
		Accounts: account.NewService(account.Parts{
			Store: account.NewStore(db), Codes: s.codes, Limits: s.limits, Passwords: s.passwords, Mail: s.mail,
			Sessions: sessions, Rules: s.cfg.rules(), CodeLifetime: s.cfg.Codes.Lifetime, Log: s.log,
		}),
		Assigner: assign.New(s.status, s.cfg.Zone, s.cfg.StatusTimeout, s.registry),
	})
	s.log.Info("ready")
	if retry.Sleep(ctx, s.cfg.UpdateAfter) {
		if err := schema.UpdateAccounts(ctx, db, s.log); err != nil && ctx.Err() == nil {
			s.log.Warn("accounts not updated", "err", err)
		}
	}
	return nil
}

// OpenAPI returns the API's document as YAML.
func OpenAPI() ([]byte, error) {
	yaml, _, err := api.New(http.NewServeMux(), func() *api.Backend { return nil }).OpenAPI()
	return yaml, err
}
