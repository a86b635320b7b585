package fuzz

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/status"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// start runs a cluster whose gate believes what the fuzzer says of the clients' addresses,
// as behind a proxy.
func start(t *testing.T, cfg cluster.Config) Target {
	t.Helper()
	cfg.Gate = func(cfg *gate.Config) {
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	c := cluster.Run(t, cfg)
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
	target := start(t, cluster.Config{})
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

// Honest people whose server asks them to leave go on at the next, and miss nothing.
func TestHonestPeopleFollow(t *testing.T) {
	target := start(t, cluster.Config{
		Chat:    func(c *chat.Config) { c.Settled = time.Millisecond },
		Replica: func(c *status.Config) { c.StableFor = time.Second },
	})
	r, err := begin(t.Context(), Config{Target: target, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer r.relays.close()
	w, err := r.watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	// A crowd on the first server: the oldest of its connections are asked to leave.
	for range 60 {
		c, err := r.connect(t.Context(), r.world.people[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
	}
	testenv.Until(t, "the writer is asked to leave, the first of all", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.result.Counts["goodbye"]["REBALANCE"] >= 3
	})
	w.after(t.Context())
	if w.writer.server == 0 {
		t.Error("the writer is where it was")
	}
	if err := r.snapshot(t.Context(), 0).Err(); err != nil {
		t.Error(err)
	}
}
