package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"
)

const (
	// cacheTimeout bounds what Redis may cost before MySQL is asked instead.
	cacheTimeout = 250 * time.Millisecond
	// tombstoneTime is how long a revocation stays in the cache: longer than any
	// Verify that read the row before the revocation and would cache it after it.
	// Those end with their caller's deadline, within seconds.
	tombstoneTime = time.Minute
	// clockSkew is how far the clocks of two services may be apart.
	clockSkew = 5 * time.Second
)

// cached remembers answers in Redis. A failure there is counted and is otherwise
// a miss. It has no state but the counters.
type cached struct {
	rdb     redis.UniversalClient // nil: no cache
	keep    time.Duration
	lookups *prometheus.CounterVec
	failed  prometheus.Counter
}

func newCached(rdb redis.UniversalClient) *cached {
	return &cached{
		rdb: rdb, keep: DefaultCacheTime,
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_session_lookups_total",
			Help: "Tokens verified, by the source of the answer (cache or database).",
		}, []string{"source"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_session_cache_failures_total", Help: "Failed exchanges with Redis about sessions.",
		}),
	}
}

// Metrics shows how often the cache answered, and how often it failed.
func (s *Store) Metrics() prometheus.Collector { return s.cache }

// Describe implements prometheus.Collector.
func (c *cached) Describe(ch chan<- *prometheus.Desc) {
	c.lookups.Describe(ch)
	c.failed.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *cached) Collect(ch chan<- prometheus.Metric) {
	c.lookups.Collect(ch)
	c.failed.Collect(ch)
}

// entry is a Session in Redis; without an id it is a revocation.
type entry struct {
	ID      uint64 `json:"i"`
	UserID  uint64 `json:"u"`
	Name    string `json:"n"`
	Device  string `json:"d"`
	Expires int64  `json:"e"`
	Written int64  `json:"w,omitempty"`
	// MAC proves that a service wrote the rest for this token: who can write to Redis
	// must not be able to log in.
	MAC []byte `json:"m,omitempty"`
}

// sign returns the MAC of an entry for the hash of a token.
func (e entry) sign(key, hash []byte) []byte {
	e.MAC = nil
	text, _ := json.Marshal(e) // numbers and strings can be encoded
	mac := hmac.New(sha256.New, key)
	mac.Write(hash)
	mac.Write(text)
	return mac.Sum(nil)
}

const tombstone = "{}"

var (
	errForged = errors.New("the entry is not signed by a service")
	errOld    = errors.New("the entry is too old")
)

func (c *cached) key(hash []byte) string {
	var b strings.Builder
	b.WriteString(cache.Prefix(c.rdb) + "session:")
	b.WriteString(base64.RawURLEncoding.EncodeToString(hash))
	return b.String()
}

// get returns the remembered answer (nil if there is none, a zero Session for a
// revocation) and whether Redis answered. Without a key nothing is remembered.
func (c *cached) get(ctx context.Context, secret, hash []byte, now time.Time) (_ *Session, answered bool) {
	if c.rdb == nil || secret == nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	value, err := c.rdb.Get(ctx, c.key(hash)).Bytes()
	answered = err == nil || errors.Is(err, redis.Nil)
	var e entry
	if err == nil {
		err = json.Unmarshal(value, &e)
	}
	if err == nil && e.ID != 0 && !hmac.Equal(e.MAC, e.sign(secret, hash)) {
		err = errForged // or written by the release before, which signs nothing
	}
	// The age is checked here as well, because who can write to Redis could put an
	// entry back after the session was ended.
	age := now.Sub(time.UnixMilli(e.Written))
	if err == nil && e.ID != 0 && (age > c.keep+clockSkew || age < -clockSkew) {
		err = errOld
	}
	if err != nil {
		if !errors.Is(err, redis.Nil) {
			c.failed.Inc()
		}
		c.lookups.WithLabelValues("database").Inc()
		return nil, answered
	}
	c.lookups.WithLabelValues("cache").Inc()
	return &Session{
		ID:        e.ID,
		UserID:    e.UserID,
		UserName:  e.Name,
		Device:    e.Device,
		ExpiresAt: time.UnixMilli(e.Expires),
	}, true
}

// put remembers a live session. It never replaces a revocation.
func (c *cached) put(ctx context.Context, secret, hash []byte, s Session, now time.Time) {
	keep := min(c.keep, s.ExpiresAt.Sub(now))
	if c.rdb == nil || secret == nil || keep < time.Second {
		return
	}
	e := entry{
		ID: s.ID, UserID: s.UserID, Name: s.UserName, Device: s.Device, Expires: s.ExpiresAt.UnixMilli(),
		Written: now.UnixMilli(),
	}
	e.MAC = e.sign(secret, hash)
	value, err := json.Marshal(e)
	if err != nil {
		c.failed.Inc()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	if err := c.rdb.SetNX(ctx, c.key(hash), value, keep).Err(); err != nil {
		c.failed.Inc()
	}
}

// revoke replaces remembered answers by revocations. It is called after the
// commit, and so also when the caller is gone.
func (c *cached) revoke(ctx context.Context, hashes ...[]byte) {
	if c.rdb == nil || len(hashes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
	defer cancel()
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, h := range hashes {
			p.Set(ctx, c.key(h), tombstone, tombstoneTime)
		}
		return nil
	})
	if err != nil {
		c.failed.Inc()
	}
}
