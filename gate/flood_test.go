package gate_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/errs"
)

// Wrong passwords from many networks keep somebody else from guessing on, and not the
// owner from logging in where they logged in before.
func TestOthersWrongPasswordsLockOutNobody(t *testing.T) {
	h := open(t, func(c *gate.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.LogIns.PerAccount = gate.Limit{Count: 12, Per: time.Hour}
		c.LogIns.PerAccountAndClient = gate.Limit{Count: 3, Per: time.Hour}
	})
	const home = "198.51.100.7"
	h.from = home
	h.register("ann")
	byAddress := map[string]string{"email": "ann@example.org", "password": password, "device": "phone"}
	wrongByAddress := map[string]string{"email": "ann@example.org", "password": "wrong password", "device": "phone"}
	guess := func(body any) {
		t.Helper()
		h.want("a guess", h.post("/v1/sessions", body), 401, errs.CodeUnauthenticated)
	}
	for i := range 4 {
		h.from = fmt.Sprintf("203.0.113.%d", i)
		for range 3 {
			guess(credentials("ann", "wrong password"))
			guess(wrongByAddress)
		}
	}
	h.from = "203.0.113.99"
	h.want("one more from elsewhere", h.post("/v1/sessions", credentials("ann", password)), 429, errs.CodeRateLimited)
	h.from = home
	h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	h.loggedIn(h.post("/v1/sessions", byAddress))
	// There, too, only so many guesses are allowed.
	for range 3 {
		guess(credentials("ann", "wrong password"))
	}
	h.want("a fourth guess", h.post("/v1/sessions", credentials("ann", password)), 429, errs.CodeRateLimited)
}

// oneByOne is a gate behind proxies that hashes one password at a time while a few wait.
func oneByOne(waiting int) func(*gate.Config) {
	return func(c *gate.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.Passwords = gate.Defaults().Passwords
		c.Passwords.AtOnce, c.Passwords.MemoryKiB, c.Passwords.Waiting = 1, 2<<10, waiting
	}
}

// crowd logs in as nobody from these addresses, as fast as it is answered, until the test ends.
func (h *harness) crowd(from ...string) {
	h.t.Helper()
	var all sync.WaitGroup
	h.t.Cleanup(all.Wait)
	nobody := encode(h.t, credentials("nobody", "wrong password"))
	for _, address := range from {
		one := *h
		one.from = address
		all.Go(func() {
			for h.t.Context().Err() == nil {
				if _, err := one.try(http.MethodPost, "/v1/sessions", "", nobody); err != nil {
					return
				}
			}
		})
	}
}

// While 30 networks log in as nobody, as fast as they can, people log in at the first
// try: where they were before, and where they never were.
func TestAFloodOfLogInsDelaysNobody(t *testing.T) {
	h := open(t, oneByOne(16)) // fewer than the crowd: who comes last finds no room
	const home = "198.51.100.7"
	h.from = home
	h.register("ann")
	var networks []string
	for i := range 30 {
		networks = append(networks, fmt.Sprintf("203.0.113.%d", i))
	}
	h.crowd(networks...)
	h.eventually("all of the crowd had their turns", func() bool {
		return h.metric("msrchat_gate_password_wait_seconds_count ") >= 60
	})
	for i := range 10 {
		h.from = home
		if i%2 == 0 {
			h.from = fmt.Sprintf("198.51.100.%d", 100+i)
		}
		h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	}
}

// While others guess from the same network, as fast as they can, somebody who was there before
// does not wait behind them.
func TestAFloodFromHomeDelaysNobodyWhoLivesThere(t *testing.T) {
	h := open(t, oneByOne(8)) // one of each network
	h.from = "198.51.100.7"
	h.register("ann")
	h.crowd(slices.Repeat([]string{h.from}, 10)...)
	h.eventually("some of the crowd are refused", func() bool {
		return h.metric("msrchat_gate_passwords_refused_total ") >= 10
	})
	for range 8 {
		h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	}
}
