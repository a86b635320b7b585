package password

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/fair"
)

var cheap = Config{Params: Params{MemoryKiB: 64, Passes: 1, Lanes: 1}, AtOnce: 2, Waiting: 2, Wait: 5 * time.Second}

var here = Who{Key: "here"}

func newHasher(t *testing.T, cfg Config) *Hasher {
	t.Helper()
	h, err := NewHasher(cfg, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func hashed(t *testing.T, h *Hasher, password string) string {
	t.Helper()
	s, err := h.Hash(t.Context(), here, password)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHashAndVerify(t *testing.T) {
	h := newHasher(t, cheap)
	stored := hashed(t, h, "correct horse")
	if !strings.HasPrefix(stored, "$argon2id$v=19$m=64,t=1,p=1$") || stored == hashed(t, h, "correct horse") {
		t.Errorf("stored %q, or without its own salt", stored)
	}
	for _, c := range []struct {
		name, stored, password string
		right                  bool
	}{
		{"right", stored, "correct horse", true},
		{"wrong", stored, "correct horsf", false},
		{"empty", stored, "", false},
		{"no such user", "", "correct horse", false},
		{"composed otherwise", hashed(t, h, "caf\u00e9 caf\u00e9"), "cafe\u0301 cafe\u0301", true},
		{"CJK and emoji", hashed(t, h, "密码很长很长🎉"), "密码很长很长🎉", true},
	} {
		right, stale, err := h.Verify(t.Context(), here, c.stored, c.password)
		if err != nil || right != c.right || stale {
			t.Errorf("%s: %v, stale %v, %v; want %v", c.name, right, stale, err, c.right)
		}
	}
}

// A known answer of the reference implementation, so that hashes outlive this
// code: argon2 -id -v 13 -t 2 -k 65536 -p 1 "password", salt "somesalt".
func TestReferenceVector(t *testing.T) {
	const stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	right, stale, err := newHasher(t, cheap).Verify(t.Context(), here, stored, "password")
	if err != nil || !right || !stale {
		t.Errorf("right %v, stale %v, %v; want both", right, stale, err)
	}
}

func TestAnUnknownUserTakesAsLong(t *testing.T) {
	cfg := cheap
	cfg.MemoryKiB, cfg.Passes = 1<<10, 3
	h := newHasher(t, cfg)
	stored := hashed(t, h, "correct horse")
	known, unknown := time.Hour, time.Hour
	for range 25 { // the least of many, in turns, to be independent of other load
		for _, c := range []struct {
			stored string
			least  *time.Duration
		}{{stored, &known}, {"", &unknown}} {
			started := time.Now()
			if _, _, err := h.Verify(t.Context(), here, c.stored, "wrong horse"); err != nil {
				t.Fatal(err)
			}
			*c.least = min(*c.least, time.Since(started))
		}
	}
	if unknown < known/2 || unknown > known*2 {
		t.Errorf("an existing user takes %v, an unknown one %v", known, unknown)
	}
}

// take takes all turns, as if so many were computed, and returns how to end them.
func take(t *testing.T, h *Hasher) (end func()) {
	t.Helper()
	var turns []fair.Turn[Who]
	for range h.cfg.AtOnce {
		turn, err := h.turn(t.Context(), Who{Key: "there"})
		if err != nil {
			t.Fatal(err)
		}
		turns = append(turns, turn)
	}
	return func() {
		for _, turn := range turns {
			turn.End(true)
		}
	}
}

func TestOnlySoManyAtOnce(t *testing.T) {
	cfg := cheap
	cfg.Waiting = 8 // one for each key
	h := newHasher(t, cfg)
	end := take(t, h)
	var waiting sync.WaitGroup
	for i := range cfg.Waiting {
		waiting.Go(func() {
			if _, err := h.Hash(t.Context(), Who{Key: fmt.Sprint(i)}, "correct horse"); err != nil {
				t.Errorf("one that waited: %v", err)
			}
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); h.Room(here) == nil && time.Now().Before(deadline); {
		<-tick.C
	}
	wantExhausted(t, "one too many", h, t.Context())
	end()
	waiting.Wait()
	if err := h.Room(here); err != nil {
		t.Errorf("turns were not released: %v", err)
	}
}

func TestTheWaitIsBounded(t *testing.T) {
	cfg := cheap
	cfg.Wait = 20 * time.Millisecond
	h := newHasher(t, cfg)
	end := take(t, h)
	wantExhausted(t, "waited too long", h, t.Context())
	cfg.Wait = time.Hour
	h.cfg = cfg
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantExhausted(t, "left", h, gone)
	end()
	if _, err := h.Hash(t.Context(), here, "correct horse"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func wantExhausted(t *testing.T, what string, h *Hasher, ctx context.Context) {
	t.Helper()
	_, err := h.Hash(ctx, here, "correct horse")
	if e := errs.From(err); e == nil || e.Code != errs.CodeExhausted || e.RetryAfter < time.Second {
		t.Errorf("%s: %v, want exhausted with a retry time", what, err)
	}
}

func TestAMalformedHashIsOurFault(t *testing.T) {
	h := newHasher(t, cheap)
	good := hashed(t, h, "correct horse")
	with := func(old, replacement string) string { return strings.Replace(good, old, replacement, 1) }
	for _, bad := range []string{
		"x", "plain", "$2y$10$abc", with("argon2id", "argon2i"), with("v=19", "v=16"), with("m=64", "m=99999999"),
		with("t=1", "t=0"), with("p=1", "p=+1"), with("m=64", "m=064"),
		good + "$", good + "=", good[:len(good)-30], strings.Repeat("$", 300),
	} {
		right, _, err := h.Verify(t.Context(), here, bad, "correct horse")
		if right || errs.CodeOf(err) != errs.CodeInternal {
			t.Errorf("%q: right %v, %v; want internal", bad, right, err)
		}
	}
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no memory": func(c *Config) { c.MemoryKiB = 0 }, "too much": func(c *Config) { c.MemoryKiB = 1 << 30 },
		"no pass": func(c *Config) { c.Passes = 0 }, "no lane": func(c *Config) { c.Lanes = 0 },
		"memory below lanes": func(c *Config) { c.Lanes = 60 }, "none at once": func(c *Config) { c.AtOnce = 0 },
		"negative waiting": func(c *Config) { c.Waiting = -1 },
	} {
		bad := cheap
		change(&bad)
		if _, err := NewHasher(bad, prometheus.NewRegistry()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=1,t=1,p=1$$")
	f.Add("$$$$$")
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXN\rhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parse(s)
		if err != nil {
			return
		}
		if h.String() != s {
			t.Errorf("%q is written %q", s, h)
		}
		if p := h.params; p.MemoryKiB > maxMemoryKiB || p.Passes > maxPasses || p.Lanes > maxLanes || p.Lanes == 0 {
			t.Errorf("%q asks for %+v", s, p)
		}
	})
}

// Of those who wait the known go first, up to eight times in a minute, then the networks with
// the fewest wrong passwords; right ones do not count.
func TestWhoseTurnItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := cheap
		cfg.AtOnce, cfg.Waiting, cfg.Wait = 1, 64, time.Minute
		h := newHasher(t, cfg)
		stored := hashed(t, h, "correct horse")
		verify := func(who Who, password string, right bool) {
			if got, _, err := h.Verify(t.Context(), who, stored, password); err != nil || got != right {
				t.Errorf("%v: %v, %v", who, got, err)
			}
		}
		guesser, crowd := Who{Key: "guesser"}, Who{Key: "crowd"}
		known, tooOften := Who{Key: "name ann", Known: true}, Who{Key: "name ben", Known: true}
		for range 9 {
			verify(tooOften, "correct horse", true)
		}
		for range 3 {
			verify(guesser, "wrong", false)
			verify(crowd, "correct horse", true)
		}
		// All come while one is at work, in an order that is none of the reasons.
		working, err := h.turn(t.Context(), here)
		if err != nil {
			t.Fatal(err)
		}
		called := make(chan string, 4)
		for _, who := range []Who{tooOften, guesser, crowd, known} {
			go func() {
				verify(who, "correct horse", true)
				called <- who.Key
			}()
			synctest.Wait()
		}
		working.End(true)
		for _, want := range []string{"name ann", "crowd", "guesser", "name ben"} {
			if got := <-called; got != want {
				t.Errorf("called %q, want %q", got, want)
			}
		}
	})
}
