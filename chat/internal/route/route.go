// Package route keeps in Redis which chat servers a user is connected to.
//
// A user's routes are a sorted set of "instance/connection", scored by expiry, so
// that removing one connection's route never removes another's. Each server also
// has a liveness key, which says that all its routes are written. If the key is
// missing (it expired, or Redis lost its data), others send everything to that
// server.
//
// A Redis Cluster may lose the routes of some users and keep the liveness key: one
// shard was emptied, or a replica took over that had not got the last writes. So
// each server writes all its routes again within half a heartbeat. If such a write
// adds a route, that route was lost, and the server does what it does when its
// liveness key is lost.
package route

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"

	"github.com/msrchat/msrchat/chat/internal/batch"
)

const (
	// ttl is how long the routes of a server that died stay. A live server writes
	// its routes again after a third of that at the latest.
	ttl        = 90 * time.Second
	maxRefresh = ttl / 3
	// livenessInterval is how soon a server notices that Redis lost its routes or
	// cannot be reached. A server that does not renew its liveness key for
	// livenessTTL is sent everything. Their sum is well below a heartbeat.
	livenessInterval = time.Second
	livenessTTL      = 4 * time.Second
	// maxRenewed routes are written again in one second, which costs 0.7 % of a core
	// here and 0.8 % in Redis (BenchmarkRenew). It is as many as a server of
	// full capacity has in half a heartbeat of 20 s. With a shorter heartbeat a round
	// takes longer, but a shard that lost its data is noticed by the first of its routes.
	maxRenewed = 2000
	// timeout bounds one exchange. After a failed one Redis is not asked for as long
	// as pause, and everything is sent to all servers meanwhile.
	timeout = 250 * time.Millisecond
	pause   = 500 * time.Millisecond
	// maxTogether routes are written or removed by one exchange.
	maxTogether = 500
	// maxRemovals may be pending while Redis is away: more than a server has
	// connections. Routes beyond it are left to their expiry.
	maxRemovals = 1 << 16
)

// Options are what Table is made of.
type Options struct {
	Instance string
	Redis    redis.UniversalClient
	// Heartbeat is within how long a user has to learn of a message.
	Heartbeat time.Duration
	// Missed is called when pushes may have been missed: the routes were incomplete
	// for a while, and now they are complete again or all others send everything.
	Missed func()
	// Added is called when a connection's route was written; nil for none. It must not
	// block.
	Added func(user uint64)
	// Told says that all other servers tell this one of their users' new connections (see
	// Forget). Only then routes are remembered; nil means never.
	Told       func() bool
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Table is one server's view of the routes. Its methods may be called from any
// goroutine.
type Table struct {
	opts Options
	// prefix is "instance/".
	prefix string
	// pausedUntil (Unix nanoseconds) saves messages from waiting for a Redis that is
	// away.
	pausedUntil atomic.Int64
	failures    prometheus.Counter
	unknown     prometheus.Counter
	lost        prometheus.Counter
	// removed wakes Run when there are pending removals; it holds one signal.
	removed chan struct{}
	memory  memory
	// adds writes the routes of new connections.
	adds *batch.Batcher[local, struct{}]

	mu sync.Mutex // owns the fields below
	// removals are pending: these connections ended and may still have a route.
	removals []local
	// mine are this server's connections, with whether their route was written.
	mine map[local]bool
	// queue has each of mine once, in the order in which their routes are written
	// again, and those that ended since their last turn.
	queue []local
	// incomplete is set while a route of mine may be missing in Redis. From expired
	// on the liveness key has surely expired, and nobody remembers a route from before;
	// reported says that Missed was called for that.
	incomplete bool
	expired    time.Time
	reported   bool
}

// local is a connection of this server.
type local struct{ user, conn uint64 }

// New returns an empty table, which Run maintains.
func New(opts Options) *Table {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_route_" + name, Help: help})
	}
	t := &Table{
		opts:       opts,
		prefix:     opts.Instance + "/",
		mine:       make(map[local]bool),
		incomplete: true,
		expired:    time.Now().Add(livenessTTL + rememberTime),
		failures:   counter("failures_total", "Exchanges with Redis about routes that failed."),
		unknown:    counter("unknown_total", "Deliveries sent to a server without knowing that the reader is there."),
		lost:       counter("lost_total", "Routes that Redis had lost beside a liveness key that it kept."),
		removed:    make(chan struct{}, 1),
	}
	t.adds = batch.New(maxTogether, 4*timeout, func(ctx context.Context, routes []local) ([]struct{}, error) {
		_, err := t.write(ctx, routes)
		return make([]struct{}, len(routes)), err
	})
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(t.failures, t.unknown, t.lost)
	}
	return t
}

func (t *Table) livenessKey(instance string) string {
	return cache.Prefix(t.opts.Redis) + "beacon:" + instance
}

func (t *Table) key(user uint64) string {
	return cache.Prefix(t.opts.Redis) + "route:" + strconv.FormatUint(user, 10)
}

func (t *Table) member(l local) string { return t.prefix + strconv.FormatUint(l.conn, 10) }

// Add writes a connection's route, together with those of other new connections.
// It blocks for at most two exchanges with Redis. If they fail, Run writes the
// route later, and until then others send everything to this server.
func (t *Table) Add(ctx context.Context, user, conn uint64) {
	l := local{user, conn}
	t.mu.Lock()
	t.mine[l] = false
	t.queue = append(t.queue, l)
	incomplete := t.incomplete
	t.mu.Unlock()
	if t.opts.Added != nil {
		defer t.opts.Added(user)
	}
	if incomplete {
		return // Run writes all
	}
	// The write must have ended when Add returns, because Remove may follow at once.
	// So the end of ctx does not cut it short.
	if _, err := t.adds.Ask(context.WithoutCancel(ctx), l); err != nil {
		t.writeFailed(ctx, err)
	}
}

// Remove removes a connection's route, now or when Redis answers again: users who
// left a server that was cut off must not be looked for there afterwards. It does
// not block.
func (t *Table) Remove(user, conn uint64) {
	l := local{user, conn}
	t.mu.Lock()
	delete(t.mine, l)
	if len(t.removals) < maxRemovals {
		t.removals = append(t.removals, l)
	}
	t.mu.Unlock()
	select {
	case t.removed <- struct{}{}:
	default:
	}
}

// writeFailed notes that a route may be missing, and tries to delete the liveness
// key so that the others notice at once.
func (t *Table) writeFailed(ctx context.Context, err error) {
	t.failures.Inc()
	t.opts.Logger.Warn("routes cannot be written", "err", err)
	t.markIncomplete()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_ = t.opts.Redis.Del(ctx, t.livenessKey(t.opts.Instance)).Err() // otherwise it expires
}

// markIncomplete notes that a route may be missing. From then on the liveness key
// is not renewed before all routes are written. Its last renewal may have arrived
// just now.
func (t *Table) markIncomplete() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.incomplete = true
	if t.expired.IsZero() {
		t.expired, t.reported = time.Now().Add(livenessTTL+rememberTime), false
	}
}

// Run writes the routes again before they expire or when Redis lost them, and
// removes those of connections that ended, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	interval := min(livenessInterval, t.opts.Heartbeat/4)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ticked := false; ; {
		switch {
		case !t.renewLiveness(ctx):
			t.rewrite(ctx)
		case ticked: // and Redis has just answered; see rewrite
			t.renew(ctx, interval)
		}
		t.reportExpired()
		ticked = false
		select {
		case <-ctx.Done():
			t.shutdown()
			return nil
		case <-ticker.C:
			ticked = true
			t.remove(ctx) // also what could not be removed before
		case <-t.removed:
			if time.Now().UnixNano() >= t.pausedUntil.Load() {
				t.remove(ctx)
			}
		}
	}
}

// renewLiveness renews the liveness key. false means that all routes must be
// written first.
func (t *Table) renewLiveness(ctx context.Context) bool {
	t.mu.Lock()
	incomplete := t.incomplete
	t.mu.Unlock()
	if incomplete {
		return false
	}
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	exists, err := t.opts.Redis.PExpire(asking, t.livenessKey(t.opts.Instance), livenessTTL).Result()
	if ctx.Err() != nil || err == nil && exists {
		return true
	}
	t.markIncomplete()
	return false
}

// reportExpired calls Missed once when the liveness key has expired and Redis cannot
// be reached. Until then others may have left out a connection without a route;
// from then on they send everything.
func (t *Table) reportExpired() {
	t.mu.Lock()
	due := t.incomplete && !t.reported && time.Now().After(t.expired)
	t.reported = t.reported || due
	t.mu.Unlock()
	if due {
		t.opts.Missed()
	}
}

// remove does the pending removals, also when ctx ends meanwhile. Those that fail
// stay pending.
func (t *Table) remove(ctx context.Context) {
	t.mu.Lock()
	pending := t.removals
	t.removals = nil
	t.mu.Unlock()
	for len(pending) > 0 {
		n := min(len(pending), maxTogether)
		if err := t.removeSome(ctx, pending[:n]); err != nil {
			t.failures.Inc()
			t.pausedUntil.Store(time.Now().Add(pause).UnixNano())
			t.mu.Lock()
			defer t.mu.Unlock()
			t.removals = append(pending, t.removals...)
			t.removals = t.removals[:min(len(t.removals), maxRemovals)]
			return
		}
		pending = pending[n:]
	}
}

func (t *Table) removeSome(ctx context.Context, ended []local) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_, err := t.opts.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, l := range ended {
			p.ZRem(ctx, t.key(l.user), t.member(l))
		}
		return nil
	})
	return err
}

// shutdown removes what this server has in Redis.
func (t *Table) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*timeout)
	defer cancel()
	t.remove(ctx)
	_ = t.opts.Redis.Del(ctx, t.livenessKey(t.opts.Instance)).Err() // otherwise it expires
}

// Place is a server that a user may be connected to.
type Place struct {
	Instance string
	// Only is the user's connection there, 0 if there may be several.
	Only uint64
}

// Lookup returns the other servers, out of peers, that each user may be connected
// to, as Redis knows them now. If it does not answer, these are all peers for every
// user. unlinked are the users who are also connected to a server that is not one of
// peers (yet).
func (t *Table) Lookup(
	ctx context.Context, users []uint64, peers []string,
) (at map[uint64][]Place, unlinked map[uint64]bool) {
	at = make(map[uint64][]Place, len(users))
	sets, unknown, err := t.ask(ctx, users, peers)
	if err != nil {
		unknown = peers
	}
	for i, user := range users {
		var places []Place
		if err == nil {
			var others bool
			if places, others = t.places(sets[i], peers); others {
				if unlinked == nil {
					unlinked = make(map[uint64]bool)
				}
				unlinked[user] = true
			}
		}
		if places = t.everywhere(places, unknown); len(places) > 0 {
			at[user] = places
		}
	}
	return at, unlinked
}

// everywhere adds servers that the user may be connected to as well. It may change places.
func (t *Table) everywhere(places []Place, unknown []string) []Place {
	for _, instance := range unknown {
		var found bool
		if places, found = add(places, Place{Instance: instance}); !found {
			t.unknown.Inc()
		}
	}
	return places
}

// places are the peers in a user's set, or all other servers if peers is nil. others says
// that there are servers beside these.
func (t *Table) places(set, peers []string) (places []Place, others bool) {
	for _, member := range set {
		instance, conn, _ := strings.Cut(member, "/")
		switch {
		case instance == t.opts.Instance:
		case peers == nil || slices.Contains(peers, instance):
			id, _ := strconv.ParseUint(conn, 10, 64) // on an error 0: there may be several
			places, _ = add(places, Place{instance, id})
		default:
			others = true
		}
	}
	return places, others
}

// add adds a place. found says that its server was there already.
func add(places []Place, p Place) (_ []Place, found bool) {
	for i := range places {
		if places[i].Instance == p.Instance {
			places[i].Only = 0
			return places, true
		}
	}
	return append(places, p), false
}

var errPaused = errors.New("redis failed a moment ago")

// ask reads the users' routes. expired are the peers without a liveness key.
func (t *Table) ask(
	ctx context.Context, users []uint64, peers []string,
) (sets [][]string, expired []string, err error) {
	if time.Now().UnixNano() < t.pausedUntil.Load() {
		return nil, nil, errPaused
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	routes := make([]*redis.StringSliceCmd, len(users))
	live := make([]*redis.IntCmd, len(peers))
	_, err = t.opts.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, user := range users {
			routes[i] = p.ZRangeByScore(ctx, t.key(user), &redis.ZRangeBy{Min: now, Max: "+inf"})
		}
		for i, peer := range peers {
			live[i] = p.Exists(ctx, t.livenessKey(peer))
		}
		return nil
	})
	if err != nil {
		t.failures.Inc()
		t.pausedUntil.Store(time.Now().Add(pause).UnixNano())
		return nil, nil, err
	}
	sets = make([][]string, len(users))
	for i, r := range routes {
		sets[i] = r.Val()
	}
	for i, key := range live {
		if key.Val() == 0 {
			expired = append(expired, peers[i])
		}
	}
	return sets, expired, nil
}
