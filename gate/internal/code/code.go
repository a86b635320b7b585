// Package code issues and checks the verification codes that prove that a person
// reads an address's mail.
//
// A code has only six digits, so it is valid for a few minutes, a few tries and
// one use. Redis holds only an HMAC of it. If Redis is away or emptied, the
// code is lost and its owner requests another.
package code

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/text/unicode/norm"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/errs"
)

// Purpose is what a code may be used for.
type Purpose string

// Register is for creating an account.
const Register Purpose = "register"

// Digits is the length of a code.
const Digits = 6

// Config is the protection of codes.
type Config struct {
	// Lifetime is how long a code is valid.
	Lifetime time.Duration
	// Tries is how many wrong codes invalidate the right one.
	Tries int
	// Secret is the key of the HMAC, the same on every gate. Without it the
	// HMAC is only a salted hash, and everybody who can read Redis can try all
	// codes.
	Secret []byte
}

// Store keeps codes. It is safe for concurrent use.
type Store struct {
	cfg    Config
	rdb    redis.UniversalClient
	checks *prometheus.CounterVec
}

// NewStore returns a store whose metrics are registered with reg.
func NewStore(cfg Config, rdb redis.UniversalClient, reg prometheus.Registerer) *Store {
	s := &Store{cfg: cfg, rdb: rdb, checks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "msrchat_gate_code_checks_total",
		Help: "Verification codes checked, by result: ok, used, wrong, dead (too many wrong ones) or none " +
			"(no code was issued).",
	}, []string{"result"})}
	reg.MustRegister(s.checks)
	return s
}

// Parse reads a code as typed or pasted: six digits, also full-width ones, also with
// spaces, dashes or invisible characters. The error is invalid.
func Parse(typed string) (string, error) {
	const longest = 64
	if len(typed) <= longest {
		digits := strings.Map(digit, norm.NFKC.String(typed))
		if len(digits) == Digits && strings.Trim(digits, "0123456789") == "" {
			return digits, nil
		}
	}
	return "", errs.New(errs.CodeInvalid, "a code is %d digits", Digits).In("code")
}

// digit drops what is pasted along with the digits.
func digit(r rune) rune {
	if unicode.IsSpace(r) || unicode.In(r, unicode.Pd, unicode.Cf) {
		return -1
	}
	return r
}

// issue stores a code in the place of an earlier one.
var issue = redis.NewScript(`
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'salt', ARGV[1], 'mac', ARGV[2], 'tries', 0, 'used', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0`)

// Issue returns a new code for an address (its key, see text.Email), which
// replaces an earlier one. CodeUnavailable: Redis is away.
func (s *Store) Issue(ctx context.Context, p Purpose, email string) (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", fmt.Errorf("random code: %w", err)
	}
	digits := fmt.Sprintf("%0*d", Digits, n)
	salt := random()
	return digits, s.put(ctx, p, email, salt, s.mac(p, email, salt, digits))
}

// Decoy stores a code that nothing matches, so that guesses for an address that
// gets no code are answered like those for any other.
func (s *Store) Decoy(ctx context.Context, p Purpose, email string) error {
	return s.put(ctx, p, email, random(), random())
}

func (s *Store) put(ctx context.Context, p Purpose, email, salt, mac string) error {
	err := issue.Run(ctx, s.rdb, []string{s.key(p, email)}, salt, mac, s.cfg.Lifetime.Milliseconds()).Err()
	if err != nil {
		return outage(err)
	}
	return nil
}

// Ticket is a code that was right.
type Ticket struct {
	// Used says that the code has been used before. It still proves that its
	// owner reads the address's mail.
	Used bool

	key, mac string
}

// check counts a wrong code and returns how many tries are left.
var check = redis.NewScript(`
local v = redis.call('HMGET', KEYS[1], 'salt', 'mac', 'tries', 'used')
if not v[1] then return {'none', 0} end
if v[1] ~= ARGV[1] then return {'changed', 0} end
if tonumber(v[3]) >= tonumber(ARGV[3]) then return {'dead', 0} end
if v[2] == ARGV[2] then
  if v[4] == '1' then return {'used', 0} end
  return {'ok', 0}
end
local left = tonumber(ARGV[3]) - redis.call('HINCRBY', KEYS[1], 'tries', 1)
if left <= 0 then return {'dead', 0} end
return {'wrong', left}`)

// Check compares a code with the one that was issued. It does not use it up; Use
// does, after its purpose is done, so that a name that is taken does not cost the
// code. A wrong, dead or missing code is invalid.
func (s *Store) Check(ctx context.Context, p Purpose, email, digits string) (Ticket, error) {
	k := s.key(p, email)
	// If the code is replaced between reading the salt and comparing, it is
	// compared with the new one. Twice in a row is not by accident.
	for range 2 {
		salt, err := s.rdb.HGet(ctx, k, "salt").Result()
		if errors.Is(err, redis.Nil) {
			return Ticket{}, s.answer("none", 0)
		}
		if err != nil {
			return Ticket{}, outage(err)
		}
		mac := s.mac(p, email, salt, digits)
		reply, err := check.Run(ctx, s.rdb, []string{k}, salt, mac, s.cfg.Tries).Slice()
		if err != nil {
			return Ticket{}, outage(err)
		}
		result, left := decode(reply)
		if result == "changed" {
			continue
		}
		return Ticket{Used: result == "used", key: k, mac: mac}, s.answer(result, left)
	}
	return Ticket{}, errs.New(errs.CodeConflict, "a new code was sent at the same time; use that").In("code")
}

func decode(reply []any) (result string, left int64) {
	if len(reply) == 2 {
		result, _ = reply[0].(string)
		left, _ = reply[1].(int64)
	}
	return result, left
}

// answer counts a result and returns the error for it.
func (s *Store) answer(result string, left int64) error {
	s.checks.WithLabelValues(result).Inc()
	bad := func(format string, args ...any) error {
		return errs.New(errs.CodeInvalid, format, args...).In("code")
	}
	switch result {
	case "ok", "used":
		return nil
	case "wrong":
		return bad("the code is wrong; tries left: %d", left)
	case "dead":
		return bad("there were too many wrong codes; ask for a new one")
	case "none":
		return bad("there is no code for this address; ask for a new one (a code is valid for %s)",
			inWords(s.cfg.Lifetime))
	}
	return fmt.Errorf("check code: unexpected result %q", result)
}

// inWords formats a lifetime for people.
func inWords(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return d.String()
}

// use marks a code as used and returns 1 to exactly one caller.
var use = redis.NewScript(`
local v = redis.call('HMGET', KEYS[1], 'mac', 'used')
if v[1] == ARGV[1] and v[2] == '0' then
  redis.call('HSET', KEYS[1], 'used', 1)
  return 1
end
return 0`)

// Use uses up a checked code and says whether this call did so.
func (s *Store) Use(ctx context.Context, t Ticket) (bool, error) {
	n, err := use.Run(ctx, s.rdb, []string{t.key}, t.mac).Int()
	if err != nil {
		return false, outage(err)
	}
	return n == 1, nil
}

// mac binds the digits to their purpose and address.
func (s *Store) mac(p Purpose, email, salt, digits string) string {
	m := hmac.New(sha256.New, s.cfg.Secret)
	for _, part := range []string{string(p), email, salt, digits} {
		fmt.Fprintf(m, "%d:%s", len(part), part) // never fails
	}
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func (s *Store) key(p Purpose, email string) string {
	sum := sha256.Sum256([]byte(email))
	return cache.Prefix(s.rdb) + "code:" + string(p) + ":" + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// random is as long as a MAC.
func random() string {
	b := make([]byte, sha256.Size)
	_, _ = rand.Read(b) // never fails: the program would end
	return base64.RawURLEncoding.EncodeToString(b)
}

func outage(err error) error {
	return errs.Wrap(errs.CodeUnavailable, err,
		"codes cannot be sent or checked at present; try again in a moment").Retry(2 * time.Second)
}
