package fuzz

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// start runs a cluster whose gate believes what the fuzzer says of the clients' addresses,
// as behind a proxy.
func start(t *testing.T) Target {
	t.Helper()
	c := cluster.Run(t, cluster.Config{Gate: func(cfg *gate.Config) {
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}})
	target := Target{
		Gate:    c.Gate.Server.HTTPAddr(),
		Metrics: map[string]string{"all servers": "http://" + c.Gate.Server.AdminAddr() + "/metrics"},
		Mail: func(address string) (string, bool) {
			mail, ok := c.Mail.Newest(address)
			return mail.Text, ok
		},
	}
	for _, s := range c.Chats {
		target.Chats = append(target.Chats, s.Server.ClientAddr())
		target.Relays = append(target.Relays, s.Server.RelayAddr())
	}
	return target
}

// The short form of ./justw fuzz. MSRCHAT_FUZZ_SEED repeats the cases of a run.
func TestNothingOddComesOut(t *testing.T) {
	seed := rand.Uint64N(1_000_000)
	if text := os.Getenv("MSRCHAT_FUZZ_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	duration := 30 * time.Second
	if text := os.Getenv("MSRCHAT_FUZZ_DURATION"); text != "" {
		duration, _ = time.ParseDuration(text)
	}
	t.Logf("seed %d", seed)
	target := start(t)
	result, err := Run(t.Context(), Config{
		Target: target, Seed: seed, Duration: duration, Output: t.Output(), Evidence: Folder(seed),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", result)
	if err := result.Err(); err != nil {
		t.Error(err)
	}
	t.Run("planted", func(t *testing.T) { testPlanted(t, target) })
}
