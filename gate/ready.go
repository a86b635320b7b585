package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/connectivity"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/schema"
)

const (
	// checkAge and failureAge are how long an outcome is reused, so that any
	// number of checks costs the databases one query a second, and five while
	// they fail, to notice their return sooner.
	checkAge   = time.Second
	failureAge = 200 * time.Millisecond
	// checkTimeout is below the 0.9 s that our checks in Consul wait, so that
	// they read the reason and not their own timeout.
	checkTimeout = 700 * time.Millisecond
)

// readiness says whether this gate should get requests.
//
// Without the database it cannot serve them, and another gate perhaps can.
// Without Redis it still logs people in, and without status it only cannot
// assign a server; no other gate would do better. So these two are reported but
// do not make it unready.
type readiness struct {
	server   *Server
	degraded *prometheus.GaugeVec

	leaving atomic.Bool

	mu      sync.Mutex // owns what follows; held during a check, so that one runs at a time
	at      time.Time
	missing []string
	err     error
}

func newReadiness(s *Server) *readiness {
	r := &readiness{server: s, degraded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "msrchat_gate_dependency_away",
		Help: "1 if a dependency (mysql, redis or status) did not answer at the last readiness check.",
	}, []string{"dependency"})}
	for _, name := range []string{"mysql", "redis", "status"} {
		r.degraded.WithLabelValues(name)
	}
	s.registry.MustRegister(r.degraded)
	return r
}

// leave makes every later check fail.
func (r *readiness) leave() { r.leaving.Store(true) }

// check returns which optional dependencies are missing, or why this gate is not
// ready.
func (r *readiness) check(ctx context.Context) (missing []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leaving.Load() {
		return nil, errs.New(errs.CodeUnavailable, "not ready: the gate is stopping")
	}
	age := checkAge
	if r.err != nil {
		age = failureAge
	}
	if time.Since(r.at) < age {
		return r.missing, r.err
	}
	// The outcome is for all callers: it must not depend on the deadline of one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	r.err = r.database(ctx)
	r.missing = []string{} // an empty list in JSON, not null
	if r.err == nil {
		key := cache.Prefix(r.server.redis) + "ready:" + r.server.cfg.Instance
		r.optional("redis", cache.CheckWritable(ctx, r.server.redis, key) != nil)
		r.optional("status", r.statusAway())
	}
	r.at = time.Now()
	return r.missing, r.err
}

func (r *readiness) database(ctx context.Context) error {
	db := r.server.db.Load()
	if db == nil {
		r.degraded.WithLabelValues("mysql").Set(1)
		return errs.New(errs.CodeUnavailable, "not ready: waiting for the database")
	}
	err := schema.Check(ctx, db, schema.Latest())
	if err == nil && r.server.backend.Load() != nil {
		r.degraded.WithLabelValues("mysql").Set(0)
		return nil
	}
	r.degraded.WithLabelValues("mysql").Set(1)
	if err == nil || errors.Is(err, schema.ErrTooOld) || database.Answered(err) { // such as: no such table
		return errs.Wrap(errs.CodeUnavailable, err, "not ready: waiting for the database schema")
	}
	return errs.Wrap(errs.CodeUnavailable, err, "not ready: the database does not answer")
}

func (r *readiness) optional(name string, away bool) {
	if away {
		r.missing = append(r.missing, name)
		r.degraded.WithLabelValues(name).Set(1)
		return
	}
	r.degraded.WithLabelValues(name).Set(0)
}

// statusAway checks the connection to status. An idle one is asked to connect and
// counts as fine.
func (r *readiness) statusAway() bool {
	switch r.server.status.GetState() {
	case connectivity.TransientFailure, connectivity.Shutdown:
		return true
	case connectivity.Idle:
		r.server.status.Connect()
	}
	return false
}
