// Package password hashes passwords with argon2id, and bounds how many are
// hashed at once: each takes a core for milliseconds and megabytes of memory.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/fair"
)

// Params is the work that one hash takes.
type Params struct {
	MemoryKiB uint32
	Passes    uint32
	Lanes     uint8
}

// Config is the work of a hash and how many are computed at once.
type Config struct {
	Params
	// AtOnce bounds the hashes that are computed at the same time, and with
	// MemoryKiB the memory.
	AtOnce int
	// Waiting bounds how many wait for their turn, an eighth of them for one key, Wait
	// how long.
	Waiting int
	Wait    time.Duration
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	switch {
	case c.MemoryKiB < 8*uint32(c.Lanes) || c.MemoryKiB > maxMemoryKiB:
		return fmt.Errorf("password memory of %d KiB: want from 8 KiB for each lane to %d", c.MemoryKiB, maxMemoryKiB)
	case c.Passes < 1 || c.Passes > maxPasses:
		return fmt.Errorf("%d password passes: want 1 to %d", c.Passes, maxPasses)
	case c.Lanes < 1 || c.Lanes > maxLanes:
		return fmt.Errorf("%d password lanes: want 1 to %d", c.Lanes, maxLanes)
	case c.AtOnce < 1 || c.Waiting < 0 || c.Wait < 0:
		return errors.New("passwords hashed at once must be at least 1, the waiting and the wait not negative")
	}
	return nil
}

// retryAfter is when somebody who was refused may try again: before the people who wait
// now are done, because a crowd that guesses comes after them.
const retryAfter = 2 * time.Second

// Who is the one who waits. Those who are known go first, then those whose passwords
// were wrong least often lately.
type Who struct {
	// Key is the account of one who is known, else the network.
	Key   string
	Known bool
}

// Hasher is safe for concurrent use.
type Hasher struct {
	cfg   Config
	turns *fair.Queue[Who]
	// decoy is verified for a user who does not exist.
	decoy hash

	seconds prometheus.Histogram
	full    prometheus.Counter
}

// NewHasher returns a hasher whose metrics are registered with reg.
func NewHasher(cfg Config, reg prometheus.Registerer) (*Hasher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Hasher{
		cfg:   cfg,
		turns: fair.New(cfg.AtOnce, cfg.Waiting, max(cfg.Waiting/8, 1), func(w Who) bool { return w.Known }),
		decoy: hash{params: cfg.Params, salt: random(saltBytes), key: random(keyBytes)},
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "msrchat_gate_password_wait_seconds", Help: "Time that a password waited for its turn to be hashed.",
			Buckets: []float64{.0001, .001, .01, .05, .1, .25, .5, 1, 2, 5},
		}),
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_gate_passwords_refused_total",
			Help: "Passwords not hashed because too many were waiting, or this one for too long.",
		}),
	}
	reg.MustRegister(h.seconds, h.full)
	return h, nil
}

// Room returns the error that Hash and Verify would return now because too many
// wait, or nil. With it a request that will be refused is refused before it costs a
// limit.
func (h *Hasher) Room(who Who) error {
	if h.turns.Full(who) {
		return h.refuse(nil)
	}
	return nil
}

// Hash returns what to store for a password. If too many wait, or this one
// waited for too long, it is exhausted with a retry time.
func (h *Hasher) Hash(ctx context.Context, who Who, password string) (string, error) {
	turn, err := h.turn(ctx, who)
	if err != nil {
		return "", err
	}
	defer turn.End(true)
	made := hash{params: h.cfg.Params, salt: random(saltBytes)}
	made.key = made.derive(password, keyBytes)
	return made.String(), nil
}

// Verify says whether stored is a hash of password, and whether it is stale, made
// with other parameters than the current ones. An empty stored is for a user who
// does not exist: never right, after the same work. Errors are those of Hash, and
// internal for a malformed stored.
func (h *Hasher) Verify(ctx context.Context, who Who, stored, password string) (right, stale bool, err error) {
	have := h.decoy
	if stored != "" {
		if have, err = parse(stored); err != nil {
			return false, false, err
		}
	}
	turn, err := h.turn(ctx, who)
	if err != nil {
		return false, false, err
	}
	defer func() { turn.End(right && !who.Known) }() // who is preferred pays for every turn
	derived := have.derive(password, uint32(len(have.key)))
	right = subtle.ConstantTimeCompare(derived, have.key) == 1 && stored != ""
	return right, have.params != h.cfg.Params, nil
}

// derive computes the key. The same password may be typed with other code
// points on another system (é as one or as two); NFC makes them equal.
func (h hash) derive(password string, length uint32) []byte {
	normal := norm.NFC.Bytes([]byte(password))
	return argon2.IDKey(normal, h.salt, h.params.Passes, h.params.MemoryKiB, h.params.Lanes, length)
}

// turn waits for a turn.
func (h *Hasher) turn(ctx context.Context, who Who) (fair.Turn[Who], error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Wait)
	defer cancel()
	turn, err := h.turns.Enter(ctx, who)
	if err != nil {
		return turn, h.refuse(err)
	}
	h.seconds.Observe(time.Since(started).Seconds())
	return turn, nil
}

// refuse counts a refusal and returns it with a time to come back.
func (h *Hasher) refuse(cause error) error {
	h.full.Inc()
	return errs.Wrap(errs.CodeExhausted, cause,
		"too many people are logging in at this moment; try again in a few seconds").Retry(retryAfter)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: the program would end
	return b
}
