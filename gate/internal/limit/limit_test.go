package limit_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/msrchat/msrchat/gate/internal/limit"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

func newLimiter(t *testing.T, at cache.Config) (*limit.Limiter, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	return limit.New(testenv.OpenRedis(t, at), reg), reg
}

// TestContract runs the same steps with counts in Redis and, with Redis dead, in
// the process.
func TestContract(t *testing.T) {
	dead := cache.Config{Addrs: []string{fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))}}
	for name, at := range map[string]cache.Config{"redis": testenv.Redis(t), "redis dead": dead} {
		t.Run(name, func(t *testing.T) {
			l, _ := newLimiter(t, at)
			ctx := t.Context()
			rule := limit.Rule{Count: 3, Per: 500 * time.Millisecond}
			take := func(key string) error { return l.Take(ctx, "test", key, rule, "too often") }
			for i := range 3 {
				if err := take("a"); err != nil {
					t.Fatalf("event %d: %v", i, err)
				}
			}
			for range 3 { // refused ones neither count nor extend the window
				e := errs.From(take("a"))
				if e == nil || e.Code != errs.CodeRateLimited || e.Message != "too often" || e.RetryAfter <= 0 ||
					e.RetryAfter > rule.Per {
					t.Fatalf("event over the limit: %+v", e)
				}
			}
			if err := take("b"); err != nil {
				t.Errorf("another key: %v", err)
			}
			if err := l.Take(ctx, "other", "a", rule, "too often"); err != nil {
				t.Errorf("another limit: %v", err)
			}
			l.Refund(ctx, "test", "a", rule)
			if err := take("a"); err != nil {
				t.Errorf("after a refund: %v", err)
			}
			if take("a") == nil {
				t.Error("a refund gave back more than one")
			}
			eventually(t, "the window ends", func() bool { return take("a") == nil })
			l.Refund(ctx, "test", "never", rule)
			for range 100 {
				if err := l.Take(ctx, "test", "none", limit.Rule{}, "no"); err != nil {
					t.Fatalf("a zero rule: %v", err)
				}
			}
		})
	}
}

func TestOfManyAtOnceExactlyTheLimitPass(t *testing.T) {
	dead := cache.Config{Addrs: []string{fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))}}
	for name, at := range map[string]cache.Config{"redis": testenv.Redis(t), "redis dead": dead} {
		t.Run(name, func(t *testing.T) {
			l, reg := newLimiter(t, at)
			var passed atomic.Int32
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if l.Take(t.Context(), "test", "a", limit.Rule{Count: 7, Per: time.Hour}, "no") == nil {
						passed.Add(1)
					}
				})
			}
			wg.Wait()
			if n := passed.Load(); n != 7 {
				t.Errorf("%d passed, want 7", n)
			}
			if n, err := testutil.GatherAndCount(reg, "msrchat_gate_limited_total"); err != nil || n != 1 {
				t.Errorf("%d series of refusals, %v", n, err)
			}
		})
	}
}

func TestEveryKeyExpiresAndNamesNobody(t *testing.T) {
	at := testenv.Redis(t)
	rdb := testenv.OpenRedis(t, at)
	l := limit.New(rdb, prometheus.NewRegistry())
	rule := limit.Rule{Count: 2, Per: time.Minute}
	for range 3 {
		_ = l.Take(t.Context(), "code", "ann@example.org", rule, "no")
	}
	l.Refund(t.Context(), "code", "ann@example.org", rule)
	l.Refund(t.Context(), "code", "bob@example.org", rule)
	keys := testenv.RedisKeys(t, at, "*")
	if len(keys) != 1 || len(keys[0]) > 64 {
		t.Fatalf("keys %q; want one short one", keys)
	}
	if ttl, err := rdb.PTTL(t.Context(), keys[0]).Result(); err != nil || ttl <= 0 || ttl > rule.Per {
		t.Errorf("%s expires in %v, %v", keys[0], ttl, err)
	}
}

// A Redis that hangs delays one caller, and not each of them.
func TestAHangingRedisIsAskedOnceASecond(t *testing.T) {
	server := testenv.StartRedis(t)
	l, reg := newLimiter(t, server.Config())
	server.Signal(t, syscall.SIGSTOP)
	defer server.Signal(t, syscall.SIGCONT)
	started := time.Now()
	for i := range 40 {
		if err := l.Take(t.Context(), "test", fmt.Sprint(i), limit.Rule{Count: 1, Per: time.Hour}, "no"); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(started); took > 3*time.Second {
		t.Errorf("40 events took %v", took)
	}
	if n, err := testutil.GatherAndCount(reg, "msrchat_gate_limit_fallbacks_total"); err != nil || n != 1 {
		t.Errorf("no fallbacks counted (%v)", err)
	}
}

func TestACallerThatLeftDoesNotSwitchRedisOff(t *testing.T) {
	l, reg := newLimiter(t, testenv.Redis(t))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_ = l.Take(gone, "test", "a", limit.Rule{Count: 1, Per: time.Hour}, "no")
	before := value(t, reg)
	for range 2 {
		_ = l.Take(t.Context(), "test", "b", limit.Rule{Count: 1, Per: time.Hour}, "no")
	}
	if after := value(t, reg); after != before {
		t.Errorf("%v fallbacks after, %v before", after, before)
	}
}

func value(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "msrchat_gate_limit_fallbacks_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no metric")
	return 0
}

func TestLocalKeepsABoundedNumber(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := limit.NewLocal(2, func() time.Time { return now })
	rule := limit.Rule{Count: 1, Per: time.Minute}
	full := func(key string) bool { return l.Take(key, rule) > 0 }
	if full("a") || full("b") || !full("a") || !full("b") {
		t.Error("two keys are not limited")
	}
	for range 2 {
		if full("c") {
			t.Error("a key beyond the bound is limited")
		}
	}
	now = now.Add(time.Minute)
	if full("c") || !full("c") {
		t.Error("the room of windows that have ended is not used")
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1::/56",
		"2001:db8:1:ff::9": "2001:db8:1::/56", "2001:db8:1:100::9": "2001:db8:1:100::/56", "::1": "::/56",
	} {
		if got := limit.Network(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	if limit.Network(netip.Addr{}) == "" {
		t.Error("an unknown client has no key")
	}
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
