// Package limit bounds how often something may be done, over all replicas.
//
// The counts are in Redis. While Redis is away each process counts by itself: the
// limit is then multiplied by the number of gates, but there is still one, and
// nobody is locked out.
package limit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/errs"
)

// Rule allows Count events in any window of length Per that begins with an
// event. A zero Count allows everything.
type Rule struct {
	Count int
	Per   time.Duration
}

const (
	// exchange bounds the time of one exchange with Redis.
	exchange = 250 * time.Millisecond
	// pause is how long Redis is not used after it failed.
	pause = time.Second
)

// Limiter is safe for concurrent use.
type Limiter struct {
	rdb   redis.UniversalClient
	local *Local
	now   func() time.Time
	// resume is when Redis is used again, in Unix nanoseconds.
	resume atomic.Int64

	refused  *prometheus.CounterVec
	fallback prometheus.Counter
}

// New returns a limiter whose metrics are registered with reg.
func New(rdb redis.UniversalClient, reg prometheus.Registerer) *Limiter {
	l := &Limiter{
		rdb: rdb, local: NewLocal(maxLocal, time.Now), now: time.Now,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_limited_total", Help: "Requests refused by a rate limit, by limit.",
		}, []string{"limit"}),
		fallback: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_gate_limit_fallbacks_total", Help: "Events counted in this process because Redis was away.",
		}),
	}
	reg.MustRegister(l.refused, l.fallback)
	return l
}

// take counts one event, or, if the window is full, returns the milliseconds
// until it ends. An event that is refused does not count.
var take = redis.NewScript(`
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then return left end
  redis.call('DEL', KEYS[1])
end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0`)

// refund takes one event back and never leaves a key without an expiry.
var refund = redis.NewScript(`
if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end
return 0`)

// Take counts one event of the named limit for key, which says who or what is
// limited. If there were too many it returns rate_limited with a retry time and
// message; it returns no other error.
func (l *Limiter) Take(ctx context.Context, name, key string, rule Rule, message string) error {
	if rule.Count <= 0 {
		return nil
	}
	id := l.redisKey(name, key)
	left, err := l.ask(ctx, take, id, rule.Count, rule.Per.Milliseconds())
	wait := time.Duration(left) * time.Millisecond
	if err != nil {
		l.fallback.Inc()
		wait = l.local.Take(id, rule)
	}
	if wait <= 0 {
		return nil
	}
	l.refused.WithLabelValues(name).Inc()
	return errs.New(errs.CodeRateLimited, "%s", message).Retry(wait)
}

// Refund takes one event back, which should not count.
func (l *Limiter) Refund(ctx context.Context, name, key string, rule Rule) {
	if rule.Count <= 0 {
		return
	}
	id := l.redisKey(name, key)
	if _, err := l.ask(context.WithoutCancel(ctx), refund, id); err != nil {
		l.local.Refund(id)
	}
}

var errPaused = errors.New("redis failed a moment ago")

func (l *Limiter) ask(ctx context.Context, script *redis.Script, id string, args ...any) (int64, error) {
	if l.now().UnixNano() < l.resume.Load() {
		return 0, errPaused
	}
	bounded, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	left, err := script.Run(bounded, l.rdb, []string{id}, args...).Int64()
	if err != nil && ctx.Err() == nil {
		l.resume.Store(l.now().Add(pause).UnixNano())
	}
	return left, err
}

// redisKey has a bounded length and contains nobody's address.
func (l *Limiter) redisKey(name, key string) string {
	sum := sha256.Sum256([]byte(key))
	return cache.Prefix(l.rdb) + "limit:" + name + ":" + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// Network is the key of a limit per client: an IPv4 address, or the /56 that most
// IPv6 customers have. A /64 would let one of them count as 256.
func Network(a netip.Addr) string {
	if a.Is4() || !a.IsValid() {
		return a.String()
	}
	p, err := a.Prefix(56)
	if err != nil {
		return a.String()
	}
	return p.String()
}
