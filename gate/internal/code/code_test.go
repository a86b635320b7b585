package code_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/gate/internal/code"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

func newStore(t *testing.T, at cache.Config, change func(*code.Config)) (*code.Store, redis.UniversalClient) {
	t.Helper()
	rdb := testenv.OpenRedis(t, at)
	cfg := code.Config{Lifetime: 10 * time.Minute, Tries: 5, Secret: []byte("pepper")}
	if change != nil {
		change(&cfg)
	}
	return code.NewStore(cfg, rdb, prometheus.NewRegistry()), rdb
}

const ann = "ann@example.org"

func issued(t *testing.T, s *code.Store, email string) string {
	t.Helper()
	digits, err := s.Issue(t.Context(), code.Register, email)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := code.Parse(digits); err != nil || p != digits {
		t.Fatalf("issued %q", digits)
	}
	return digits
}

// other returns six digits that differ from these.
func other(digits string) string {
	last := '0' + (digits[5]-'0'+1)%10
	return digits[:5] + string(last)
}

func wantInvalid(t *testing.T, err error, text string) {
	t.Helper()
	e := errs.From(err)
	if e == nil || e.Code != errs.CodeInvalid || e.Field != "code" || !strings.Contains(e.Message, text) {
		t.Errorf("got %v, want invalid in code with %q", err, text)
	}
}

func TestACodeIsForOneUse(t *testing.T) {
	s, _ := newStore(t, testenv.Redis(t), nil)
	ctx := t.Context()
	digits := issued(t, s, ann)
	ticket, err := s.Check(ctx, code.Register, ann, digits)
	if err != nil || ticket.Used {
		t.Fatalf("check: %+v, %v", ticket, err)
	}
	// Checking does not use a code up.
	if again, err := s.Check(ctx, code.Register, ann, digits); err != nil || again.Used {
		t.Fatalf("check again: %+v, %v", again, err)
	}
	var used atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			mine, err := s.Use(ctx, ticket)
			if err != nil {
				t.Error(err)
			}
			if mine {
				used.Add(1)
			}
		})
	}
	wg.Wait()
	if n := used.Load(); n != 1 {
		t.Errorf("used %d times, want once", n)
	}
	if after, err := s.Check(ctx, code.Register, ann, digits); err != nil || !after.Used {
		t.Errorf("after its use: %+v, %v; want it reported as used", after, err)
	}
	// A code is valid for one address and purpose.
	_, err = s.Check(ctx, code.Register, "bob@example.org", digits)
	wantInvalid(t, err, "there is no code")
	_, err = s.Check(ctx, code.Purpose("reset"), ann, digits)
	wantInvalid(t, err, "there is no code")
}

func TestWrongCodesInvalidateTheRightOne(t *testing.T) {
	s, _ := newStore(t, testenv.Redis(t), nil)
	ctx := t.Context()
	digits := issued(t, s, ann)
	for i := range 10 {
		_, err := s.Check(ctx, code.Register, ann, other(digits))
		if i < 4 {
			wantInvalid(t, err, fmt.Sprintf("tries left: %d", 4-i))
		} else {
			wantInvalid(t, err, "ask for a new one")
		}
	}
	_, err := s.Check(ctx, code.Register, ann, digits)
	wantInvalid(t, err, "too many wrong codes")
	// A new one works, and the old one stays invalid.
	fresh := issued(t, s, ann)
	if _, err := s.Check(ctx, code.Register, ann, fresh); err != nil {
		t.Errorf("the new code: %v", err)
	}
}

// Any number of concurrent guesses gets five answers in all.
func TestTriesAreCountedAtomically(t *testing.T) {
	s, _ := newStore(t, testenv.Redis(t), nil)
	digits := issued(t, s, ann)
	var wrong atomic.Int32
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			_, err := s.Check(t.Context(), code.Register, ann, other(digits))
			if strings.Contains(errs.From(err).Message, "tries left") {
				wrong.Add(1)
			}
		})
	}
	wg.Wait()
	if n := wrong.Load(); n != 4 { // the fifth answer says that it was the last
		t.Errorf("%d answers with tries left, want 4", n)
	}
}

func TestADecoyIsAnsweredLikeACode(t *testing.T) {
	s, _ := newStore(t, testenv.Redis(t), nil)
	if err := s.Decoy(t.Context(), code.Register, ann); err != nil {
		t.Fatal(err)
	}
	real := issued(t, s, "bob@example.org")
	for range 7 {
		_, decoy := s.Check(t.Context(), code.Register, ann, other(real))
		_, wrong := s.Check(t.Context(), code.Register, "bob@example.org", other(real))
		if decoy.Error() != wrong.Error() {
			t.Errorf("decoy %q, code %q", decoy, wrong)
		}
	}
}

func TestANewCodeReplacesTheOld(t *testing.T) {
	s, _ := newStore(t, testenv.Redis(t), nil)
	old := issued(t, s, ann)
	fresh := issued(t, s, ann)
	for fresh == old { // one in a million
		fresh = issued(t, s, ann)
	}
	_, err := s.Check(t.Context(), code.Register, ann, old)
	wantInvalid(t, err, "tries left: 4")
	if _, err := s.Check(t.Context(), code.Register, ann, fresh); err != nil {
		t.Error(err)
	}
}

func TestCodesEnd(t *testing.T) {
	at := testenv.Redis(t)
	s, _ := newStore(t, at, func(c *code.Config) { c.Lifetime = 300 * time.Millisecond })
	digits := issued(t, s, ann)
	eventually(t, "the code expires", func() bool {
		_, err := s.Check(t.Context(), code.Register, ann, digits)
		return err != nil && strings.Contains(err.Error(), "there is no code")
	})
	digits = issued(t, s, ann)
	testenv.EmptyRedis(t, at)
	_, err := s.Check(t.Context(), code.Register, ann, digits)
	wantInvalid(t, err, "there is no code")
}

func TestRedisHoldsNoCode(t *testing.T) {
	at := testenv.Redis(t)
	s, rdb := newStore(t, at, nil)
	digits := issued(t, s, ann)
	keys := testenv.RedisKeys(t, at, "*")
	if len(keys) != 1 || strings.Contains(keys[0], "ann") {
		t.Fatalf("keys %q", keys)
	}
	all, err := rdb.HGetAll(t.Context(), keys[0]).Result()
	if err != nil {
		t.Fatal(err)
	}
	for field, value := range all {
		if strings.Contains(value, digits) {
			t.Errorf("%s is %q", field, value)
		}
	}
	if ttl := rdb.PTTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > 10*time.Minute {
		t.Errorf("it lives for %v", ttl)
	}
	// Another secret does not accept it: the content of Redis is not enough.
	thief, _ := newStore(t, at, func(c *code.Config) { c.Secret = []byte("other") })
	_, err = thief.Check(t.Context(), code.Register, ann, digits)
	wantInvalid(t, err, "wrong")
}

func TestRedisAway(t *testing.T) {
	s, _ := newStore(t, cache.Config{Addrs: []string{fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))}}, nil)
	_, err := s.Issue(t.Context(), code.Register, ann)
	_, err2 := s.Check(t.Context(), code.Register, ann, "123456")
	for _, err := range []error{err, err2, s.Decoy(t.Context(), code.Register, ann)} {
		if e := errs.From(err); e == nil || e.Code != errs.CodeUnavailable || e.RetryAfter <= 0 {
			t.Errorf("got %v, want unavailable with a retry time", err)
		}
	}
}

func TestCodesAreSpread(t *testing.T) {
	s, _ := newStore(t, testenv.Redis(t), nil)
	seen := map[string]bool{}
	first := map[byte]bool{}
	for range 300 {
		d := issued(t, s, ann)
		seen[d], first[d[0]] = true, true
	}
	if len(seen) < 290 || len(first) != 10 {
		t.Errorf("%d different codes with %d first digits of 300", len(seen), len(first))
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"123456": "123456", " 123 456 ": "123456", "123-456": "123456", "１２３４５６": "123456", "000000": "000000",
		"\t123\u2013456\r\n": "123456", "\u200b123\u00a0456\ufeff": "123456",
		"": "", "12345": "", "1234567": "", "12345a": "", "-12345": "", "१२३४५६": "", "١٢٣٤٥٦": "",
		strings.Repeat("1", 10_000): "", "123456\x00": "", "123_456": "",
		strings.Repeat(" ", 60) + "123456": "",
	} {
		got, err := code.Parse(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"123456", "１２３ ４５６", "½½½½½½", "\xff", "1-2-3-4-5-6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := code.Parse(s)
		if err != nil {
			if len(s) > 0 && strings.Contains(err.Error(), s) && !strings.Contains("a code is 6 digits", s) {
				t.Errorf("the error repeats %q", s)
			}
			return
		}
		if len(got) != code.Digits || strings.Trim(got, "0123456789") != "" {
			t.Errorf("%q gave %q", s, got)
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("never seen: %s", what)
}
