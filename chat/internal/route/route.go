// Package route keeps in Redis which chat servers a user is connected to.
//
// A user's routes are a sorted set of "instance/connection", scored by expiry,
// so that removing one connection's route can never remove another's. A key per
// server, the beacon, says that the server has written all its routes; where it
// is missing (Redis lost its data, or just now came back) others send to that
// server without asking.
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
	// ttl is how long a route of a server that died is believed; each is written
	// again after a third of it.
	ttl     = 90 * time.Second
	refresh = ttl / 3
	// beaconCheck is how soon a server notices that Redis lost its routes, or
	// cannot be reached; a server that does not light its beacon for beaconLife is
	// sent everything. Their sum is well below a heartbeat.
	beaconCheck = time.Second
	beaconLife  = 4 * time.Second
	// timeout bounds one exchange. Who cannot get an answer sends to everybody,
	// which is why a failure is remembered for a while.
	timeout     = 250 * time.Millisecond
	restAfter   = 500 * time.Millisecond
	writeAtOnce = 500
	// maxGone routes wait to be taken back while Redis is away: more than a server
	// has connections. Those beyond it are left to the expiry.
	maxGone = 1 << 16
)

// Options are what Table is made of.
type Options struct {
	Instance string
	Redis    redis.UniversalClient
	// Missed is called when pushes may have been missed: the routes were incomplete
	// for a while, and now they are complete again or all others know about it.
	Missed     func()
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Table is one server's view of the routes. Its methods may be called from any
// goroutine.
type Table struct {
	opts Options
	// prefix is "instance/".
	prefix string
	// restUntil (Unix nanoseconds) keeps a Redis that is away from being asked
	// for every message.
	restUntil atomic.Int64
	failures  prometheus.Counter
	blind     prometheus.Counter
	// left tells Run that there is something in gone; it holds one signal.
	left chan struct{}
	// adds writes the routes of connections that come in.
	adds *batch.Batcher[local, struct{}]

	mu sync.Mutex // owns the fields below
	// gone are connections that ended and may have a route in Redis yet.
	gone []local
	// mine are this server's connections.
	mine map[local]struct{}
	// incomplete is set while a route of mine may be missing in Redis. dark is when
	// the beacon is surely out then, told that this was reported.
	incomplete bool
	dark       time.Time
	told       bool
}

// local is a connection of this server.
type local struct{ user, conn uint64 }

// New returns an empty table. Run keeps it.
func New(opts Options) *Table {
	t := &Table{
		opts: opts, prefix: opts.Instance + "/", mine: make(map[local]struct{}),
		incomplete: true, dark: time.Now().Add(beaconLife),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_route_failures_total", Help: "Exchanges with Redis about routes that failed."}),
		blind:    prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_route_blind_total", Help: "Deliveries sent to a server without knowing that the reader is there."}),
		left:     make(chan struct{}, 1),
	}
	t.adds = batch.New(writeAtOnce, 4*timeout, func(ctx context.Context, routes []local) ([]struct{}, error) {
		return make([]struct{}, len(routes)), t.write(ctx, routes)
	})
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(t.failures, t.blind)
	}
	return t
}

func (t *Table) beacon(instance string) string { return cache.Prefix + "beacon:" + instance }

func key(user uint64) string { return cache.Prefix + "route:" + strconv.FormatUint(user, 10) }

func (t *Table) member(l local) string { return t.prefix + strconv.FormatUint(l.conn, 10) }

// Add writes a connection's route, together with others that come in. It blocks
// for an exchange with Redis or two, and returns when the route is written or
// will be soon: a failure is repaired by Run, and until then others know that
// this server's routes are incomplete.
func (t *Table) Add(ctx context.Context, user, conn uint64) {
	l := local{user, conn}
	t.mu.Lock()
	t.mine[l] = struct{}{}
	incomplete := t.incomplete
	t.mu.Unlock()
	if incomplete {
		return // Run writes all
	}
	// Whatever becomes of ctx: once Remove may be called nothing must be under way.
	if _, err := t.adds.Ask(context.WithoutCancel(ctx), l); err != nil {
		t.broken(ctx, err)
	}
}

// Remove takes a connection's route back, now or when Redis answers again: users
// who left a server that was cut off must not be looked for there when it is
// back. It does not block.
func (t *Table) Remove(user, conn uint64) {
	l := local{user, conn}
	t.mu.Lock()
	delete(t.mine, l)
	if len(t.gone) < maxGone {
		t.gone = append(t.gone, l)
	}
	t.mu.Unlock()
	select {
	case t.left <- struct{}{}:
	default:
	}
}

// broken notes that a route may be missing, for this server and, as soon as
// Redis answers, for the others.
func (t *Table) broken(ctx context.Context, err error) {
	t.failures.Inc()
	t.opts.Logger.Warn("routes cannot be written", "err", err)
	t.doubt()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_ = t.opts.Redis.Del(ctx, t.beacon(t.opts.Instance)).Err() // Run tries again
}

// doubt notes that a route may be missing. From then on the beacon is not lit
// again before all routes are written; what lit it last may just have arrived.
func (t *Table) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.incomplete = true
	if t.dark.IsZero() {
		t.dark, t.told = time.Now().Add(beaconLife), false
	}
}

func (t *Table) write(ctx context.Context, routes []local) error {
	ctx, cancel := context.WithTimeout(ctx, 4*timeout)
	defer cancel()
	now := time.Now()
	_, err := t.opts.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, l := range routes {
			k := key(l.user)
			p.ZAdd(ctx, k, redis.Z{Score: float64(now.Add(ttl).UnixMilli()), Member: t.member(l)})
			p.ZRemRangeByScore(ctx, k, "-inf", strconv.FormatInt(now.UnixMilli(), 10))
			p.PExpire(ctx, k, ttl)
		}
		return nil
	})
	return err
}

// Run writes the routes again before they expire or when Redis lost them, and
// removes those of connections that ended, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	ticker := time.NewTicker(beaconCheck)
	defer ticker.Stop()
	written := time.Time{}
	for {
		if !t.keepLit(ctx) || time.Since(written) > refresh {
			if t.rewrite(ctx) {
				written = time.Now()
			}
		}
		t.beenDark()
		select {
		case <-ctx.Done():
			t.leave()
			return nil
		case <-ticker.C:
			t.remove(ctx) // what could not be taken back before
		case <-t.left:
			if time.Now().UnixNano() >= t.restUntil.Load() {
				t.remove(ctx)
			}
		}
	}
}

// keepLit keeps the beacon lit; false means that the routes must be written
// first.
func (t *Table) keepLit(ctx context.Context) bool {
	t.mu.Lock()
	incomplete := t.incomplete
	t.mu.Unlock()
	if incomplete {
		return false
	}
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	lit, err := t.opts.Redis.PExpire(asking, t.beacon(t.opts.Instance), beaconLife).Result()
	if ctx.Err() != nil || err == nil && lit {
		return true
	}
	t.doubt()
	return false
}

// beenDark reports once, while Redis cannot be reached, that all others know by
// now: until then they may have left out a connection made in the meantime.
func (t *Table) beenDark() {
	t.mu.Lock()
	due := t.incomplete && !t.told && time.Now().After(t.dark)
	t.told = t.told || due
	t.mu.Unlock()
	if due {
		t.opts.Missed()
	}
}

// rewrite writes all routes, then lights the beacon. It asks first whether Redis
// answers: what is written to a connection that leads nowhere may arrive when the
// network is whole again, and bring back routes that were taken back meanwhile.
func (t *Table) rewrite(ctx context.Context) bool {
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := t.opts.Redis.Ping(asking).Err(); err != nil {
		t.broken(ctx, err)
		return false
	}
	t.mu.Lock()
	was := t.incomplete
	// Cleared before the list is made: an Add that comes later writes for itself.
	t.incomplete = false
	all := make([]local, 0, len(t.mine))
	for l := range t.mine {
		all = append(all, l)
	}
	t.mu.Unlock()
	for part := range slices.Chunk(all, writeAtOnce) {
		if err := t.write(ctx, part); err != nil {
			t.broken(ctx, err)
			return false
		}
	}
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := t.opts.Redis.Set(wctx, t.beacon(t.opts.Instance), "1", beaconLife).Err(); err != nil {
		t.broken(ctx, err)
		return false
	}
	t.mu.Lock()
	t.dark = time.Time{}
	t.mu.Unlock()
	if was && len(all) > 0 {
		t.opts.Missed()
	}
	return true
}

// remove takes back the routes of connections that are gone, also when ctx ends
// meanwhile: nobody else would. What fails is tried again.
func (t *Table) remove(ctx context.Context) {
	t.mu.Lock()
	gone := t.gone
	t.gone = nil
	t.mu.Unlock()
	for len(gone) > 0 {
		n := min(len(gone), writeAtOnce)
		if err := t.removeSome(ctx, gone[:n]); err != nil {
			t.failures.Inc()
			t.restUntil.Store(time.Now().Add(restAfter).UnixNano())
			t.mu.Lock()
			defer t.mu.Unlock()
			t.gone = append(gone, t.gone...)
			t.gone = t.gone[:min(len(t.gone), maxGone)]
			return
		}
		gone = gone[n:]
	}
}

func (t *Table) removeSome(ctx context.Context, gone []local) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_, err := t.opts.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, l := range gone {
			p.ZRem(ctx, key(l.user), t.member(l))
		}
		return nil
	})
	return err
}

// leave takes back what is left when the server stops.
func (t *Table) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*timeout)
	defer cancel()
	t.remove(ctx)
	_ = t.opts.Redis.Del(ctx, t.beacon(t.opts.Instance)).Err() // it expires
}

// Place is a server that a user may be connected to.
type Place struct {
	Instance string
	// Only is the one connection that the user has there, 0 if there are more, or
	// may be.
	Only uint64
}

// Lookup returns the other servers that each user may be connected to, out of
// peers; the own server is left out. Where Redis does not answer, that is all
// of them for everybody. astray are the users who are also connected to a
// server that is not among the peers (yet).
func (t *Table) Lookup(ctx context.Context, users []uint64, peers []string) (at map[uint64][]Place, astray map[uint64]bool) {
	out := make(map[uint64][]Place, len(users))
	var blind []string
	sets, dark, err := t.ask(ctx, users, peers)
	if err != nil {
		blind = peers
	} else {
		blind = dark
	}
	for i, user := range users {
		var at []Place
		if err == nil {
			var strange bool
			if at, strange = t.places(sets[i], peers); strange {
				if astray == nil {
					astray = make(map[uint64]bool)
				}
				astray[user] = true
			}
		}
		for _, instance := range blind {
			var known bool
			if at, known = also(at, Place{Instance: instance}); !known {
				t.blind.Inc()
			}
		}
		if len(at) > 0 {
			out[user] = at
		}
	}
	return out, astray
}

// places are the peers in a user's set; strange says that there are others.
func (t *Table) places(set, peers []string) (at []Place, strange bool) {
	for _, member := range set {
		instance, conn, _ := strings.Cut(member, "/")
		switch {
		case instance == t.opts.Instance:
		case slices.Contains(peers, instance):
			id, _ := strconv.ParseUint(conn, 10, 64) // 0 is not known, and so not the only one
			at, _ = also(at, Place{instance, id})
		default:
			strange = true
		}
	}
	return at, strange
}

// also adds a place, and says whether its server was there already.
func also(at []Place, p Place) (_ []Place, known bool) {
	for i := range at {
		if at[i].Instance == p.Instance {
			at[i].Only = 0
			return at, true
		}
	}
	return append(at, p), false
}

var errResting = errors.New("redis is given a rest")

// ask reads the users' routes and which peers' beacons are dark.
func (t *Table) ask(ctx context.Context, users []uint64, peers []string) (sets [][]string, dark []string, err error) {
	if time.Now().UnixNano() < t.restUntil.Load() {
		return nil, nil, errResting
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	routes := make([]*redis.StringSliceCmd, len(users))
	beacons := make([]*redis.IntCmd, len(peers))
	_, err = t.opts.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, user := range users {
			routes[i] = p.ZRangeByScore(ctx, key(user), &redis.ZRangeBy{Min: now, Max: "+inf"})
		}
		for i, peer := range peers {
			beacons[i] = p.Exists(ctx, t.beacon(peer))
		}
		return nil
	})
	if err != nil {
		t.failures.Inc()
		t.restUntil.Store(time.Now().Add(restAfter).UnixNano())
		return nil, nil, err
	}
	sets = make([][]string, len(users))
	for i, r := range routes {
		sets[i] = r.Val()
	}
	for i, b := range beacons {
		if b.Val() == 0 {
			dark = append(dark, peers[i])
		}
	}
	return sets, dark, nil
}
