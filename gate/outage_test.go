package gate_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/gate/internal/mailtest"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

// degraded waits until /readyz is 200 and names exactly these as missing.
func (h *harness) degraded(names string) {
	h.t.Helper()
	h.eventually("ready without "+names, func() bool {
		r := h.get("/readyz")
		return r.status == http.StatusOK && strings.Contains(r.body, `"degraded":[`+names+`]`)
	})
}

// Without Redis people stay logged in and can log in; only codes are unavailable.
func TestRedisAway(t *testing.T) {
	server := testenv.StartRedis(t)
	h := open(t, func(c *gate.Config) {
		c.Redis = server.Config()
		c.LogIns.PerAccountAndClient = gate.Limit{Count: 3, Per: time.Hour}
	})
	kept := h.register("ann").Token
	digits := h.code("bob@example.org")
	me := func(what, token string) {
		t.Helper()
		if r := h.do(http.MethodGet, "/v1/me", token, ""); r.status != http.StatusOK {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	me("before", kept)

	for _, name := range []string{"hanging", "dead"} {
		if name == "hanging" {
			server.Signal(t, syscall.SIGSTOP)
		} else {
			server.Kill()
		}
		started := time.Now()
		me(name, kept)
		fresh := h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
		me(name+", fresh", fresh.Token)
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s: three requests took %v", name, took)
		}
		for what, r := range map[string]reply{
			"a code":          h.requestCode("carl@example.org"),
			"a registration":  h.post("/v1/accounts", registration("bob", digits)),
			"another of them": h.post("/v1/accounts", registration("carl", "123456")),
		} {
			h.want(name+": "+what, r, 502, errs.CodeUnavailable)
			if r.problem().RetryAfterMS <= 0 {
				t.Errorf("%s: %s: no retry time: %s", name, what, r.body)
			}
		}
		h.degraded(`"redis"`)
		if name == "hanging" {
			server.Signal(t, syscall.SIGCONT)
		} else {
			// Wrong passwords are still limited, by this process.
			for range 3 {
				r := h.post("/v1/sessions", credentials("ann", "wrong password"))
				h.want("a wrong password", r, 401, errs.CodeUnauthenticated)
			}
			h.want("a fourth", h.post("/v1/sessions", credentials("ann", "wrong password")), 429, errs.CodeRateLimited)
			server.Start(t)
		}
		h.degraded("")
		me(name+", back", kept)
	}
	if h.metric("msrchat_gate_limit_fallbacks_total") == 0 {
		t.Error("no fallback was counted")
	}
	// Redis's append-only file kept the code.
	h.loggedIn(h.post("/v1/accounts", registration("bob", digits)))
	me("at the end", kept)
}

// A Redis that answers and takes no writes is as good as none.
func TestRedisThatCannotWrite(t *testing.T) {
	server := testenv.StartRedis(t)
	h := open(t, func(c *gate.Config) { c.Redis = server.Config() })
	h.degraded("")
	rdb := testenv.OpenRedis(t, server.Config())
	for _, state := range []struct{ name, broken, healed string }{
		{"full", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"},
		{"a replica", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"},
		{"without its replicas", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"},
	} {
		do := func(command string) {
			t.Helper()
			var args []any
			for _, word := range strings.Fields(command) {
				args = append(args, word)
			}
			if err := rdb.Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		do(state.broken)
		h.degraded(`"redis"`)
		if state.name != "full" { // a script may still write then
			h.want("a code, Redis is "+state.name, h.requestCode("carl@example.org"), 502, errs.CodeUnavailable)
		}
		do(state.healed)
		h.degraded("")
	}
}

// If Redis is emptied, at most a code is lost.
func TestRedisFlushed(t *testing.T) {
	h := open(t, nil)
	token := h.register("ann").Token
	digits := h.code("bob@example.org")
	h.flush()
	if r := h.do(http.MethodGet, "/v1/me", token, ""); r.status != http.StatusOK {
		t.Errorf("me: %d %s", r.status, r.body)
	}
	r := h.post("/v1/accounts", registration("bob", digits))
	h.want("the lost code", r, 422, errs.CodeInvalid)
	if !strings.Contains(r.body, "ask for a new one") {
		t.Errorf("it does not say what to do: %s", r.body)
	}
	h.register("bob")
}

// Without the database the answer is unavailable, and never that something is
// wrong.
func TestTheDatabaseAway(t *testing.T) {
	server := testenv.StartMariaDB(t)
	h := open(t, func(c *gate.Config) { c.MySQL = server.Database(t) })
	token := h.register("ann").Token
	server.Kill()
	h.eventually("not ready", func() bool { return h.get("/readyz").status == http.StatusServiceUnavailable })
	if r := h.get("/healthz"); r.status != http.StatusOK {
		t.Errorf("healthz: %d, want 200: restarting would not help", r.status)
	}
	for what, r := range map[string]reply{
		"log-in":  h.post("/v1/sessions", credentials("ann", password)),
		"a code":  h.requestCode("bob@example.org"),
		"me":      h.do(http.MethodGet, "/v1/me", token, ""),
		"log-out": h.do(http.MethodDelete, "/v1/sessions/current", token, ""),
	} {
		h.want(what, r, 502, errs.CodeUnavailable)
		if strings.Contains(r.body, server.Addr) {
			t.Errorf("%s: shows the database's address: %s", what, r.body)
		}
	}
	server.Start(t)
	h.eventually("ready again", func() bool { return h.get("/readyz").status == http.StatusOK })
	if r := h.do(http.MethodGet, "/v1/me", token, ""); r.status != http.StatusOK {
		t.Errorf("me: %d %s", r.status, r.body)
	}
	h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	h.register("bob")
}

// A gate that starts before its database serves people once the schema is there.
func TestStartingBeforeTheDatabase(t *testing.T) {
	server := testenv.StartMariaDB(t)
	db := server.Database(t)
	server.Kill()
	h := prepare(t, func(c *gate.Config) { c.MySQL = db })
	h.start()
	if r := h.get("/healthz"); r.status != http.StatusOK {
		t.Errorf("healthz: %d", r.status)
	}
	r := h.get("/readyz")
	h.want("readyz", r, 503, errs.CodeUnavailable)
	if !strings.Contains(r.body, "waiting for the database") {
		t.Errorf("readyz: %s", r.body)
	}
	h.want("log-in", h.post("/v1/sessions", credentials("ann", password)), 502, errs.CodeUnavailable)

	server.Start(t)
	root := testenv.Open(t, db)
	if _, err := root.ExecContext(t.Context(), "RENAME TABLE schema_version TO hidden"); err != nil {
		t.Fatal(err)
	}
	h.eventually("waiting for the schema", func() bool { return strings.Contains(h.get("/readyz").body, "schema") })
	h.want("log-in", h.post("/v1/sessions", credentials("ann", password)), 502, errs.CodeUnavailable)
	if _, err := root.ExecContext(t.Context(), "RENAME TABLE hidden TO schema_version"); err != nil {
		t.Fatal(err)
	}
	h.eventually("ready", func() bool { return h.get("/readyz").status == http.StatusOK })
	h.register("ann")
}

// Without status people log in and get no assignment.
func TestStatusAway(t *testing.T) {
	h := open(t, func(c *gate.Config) { c.StatusTimeout = time.Second })
	token := h.register("ann").Token
	addr := h.status.addr
	h.status.server.Stop()
	started := time.Now()
	l := h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	if l.Assignment != nil {
		t.Errorf("assigned %+v", l.Assignment)
	}
	if r := h.post("/v1/sessions", credentials("ann", password)); !strings.Contains(r.body, `"assignment":null`) {
		t.Errorf("the member is left out: %s", r.body)
	}
	r := h.do(http.MethodPost, "/v1/assignments", token, "{}")
	h.want("assignment", r, 502, errs.CodeUnavailable)
	if took := time.Since(started); took > 3*2*h.cfg.StatusTimeout+2*time.Second {
		t.Errorf("three requests took %v", took)
	}
	h.degraded(`"status"`)
	// A request in progress when status comes back still gets its answer.
	got := make(chan reply, 1)
	go func() {
		r, _ := h.try(http.MethodPost, "/v1/assignments", token, "{}")
		got <- r
	}()
	h.status.serve(t, addr)
	if r := <-got; r.status != http.StatusOK {
		t.Errorf("while it came back: %d %s", r.status, r.body)
	}
	h.degraded("")
}

func TestWhatStatusSaysIsPassedOn(t *testing.T) {
	h := open(t, nil)
	token := h.register("ann").Token
	var asked atomic.Int32
	for _, c := range []struct {
		name   string
		answer func() (*statusv1.Assignment, error)
		status int
		code   errs.Code
		asked  int32
	}{
		{"full", func() (*statusv1.Assignment, error) {
			return nil, errs.New(errs.CodeExhausted, "all chat servers are full").Retry(5 * time.Second)
		}, 503, errs.CodeExhausted, 1},
		{"no server", func() (*statusv1.Assignment, error) {
			return nil, errs.New(errs.CodeUnavailable, "no chat server")
		}, 502, errs.CodeUnavailable, 2},
		{"nothing", func() (*statusv1.Assignment, error) { return nil, nil }, 502, errs.CodeUnavailable, 1},
		{"a bug", func() (*statusv1.Assignment, error) {
			return nil, errors.New("panic in 10.0.0.1")
		}, 500, errs.CodeInternal, 1},
		{"hanging", func() (*statusv1.Assignment, error) {
			time.Sleep(2 * h.cfg.StatusTimeout) // is the fault
			return nil, nil
		}, 502, errs.CodeUnavailable, 1},
	} {
		asked.Store(0)
		h.status.set(func(*statusv1.AssignRequest) (*statusv1.Assignment, error) {
			asked.Add(1)
			return c.answer()
		})
		r := h.do(http.MethodPost, "/v1/assignments", token, "{}")
		h.want(c.name, r, c.status, c.code)
		if asked.Load() < c.asked || strings.Contains(r.body, "10.0.0.1") {
			t.Errorf("%s: asked %d times, %s", c.name, asked.Load(), r.body)
		}
		if c.code != errs.CodeInternal && r.problem().RetryAfterMS <= 0 {
			t.Errorf("%s: no retry time: %s", c.name, r.body)
		}
	}
	if r := h.post("/v1/sessions", credentials("ann", password)); !strings.Contains(r.body, `"assignment":null`) {
		t.Errorf("log-in: %d %s", r.status, r.body)
	}
}

// Mail waits for its server. A full queue is reported and does not count towards
// limits.
func TestTheMailServerAway(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	h := open(t, func(c *gate.Config) {
		c.SMTP.Addr, c.SMTP.Queue = addr, 3
		c.Codes.PerAddress = gate.Limit{Count: 1, Per: time.Hour}
	})
	ask := func(name string) reply {
		return h.requestCode(name + "@example.org")
	}
	for _, name := range []string{"ann", "bob", "carl"} {
		if r := ask(name); r.status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", name, r.status, r.body)
		}
	}
	r := ask("dora")
	h.want("a fourth mail", r, 502, errs.CodeUnavailable)
	if r.problem().RetryAfterMS <= 0 {
		t.Errorf("no retry time: %s", r.body)
	}
	h.mail = mailtest.StartAt(t, addr)
	for _, name := range []string{"ann", "bob", "carl"} {
		m := sixDigits.FindStringSubmatch(h.mail.Wait(t, name+"@example.org", 1).Text)
		h.loggedIn(h.post("/v1/accounts", registration(name, m[1])))
	}
	h.eventually("the queue is empty", func() bool { return h.metric("msrchat_gate_mail_queue") == 0 })
	if r := ask("dora"); r.status != http.StatusAccepted {
		t.Errorf("dora, again: %d %s", r.status, r.body)
	}
	h.mail.Wait(t, "dora@example.org", 1)
}

// Of more log-ins than can be hashed each gets a turn or a retry time, and none
// waits longer than configured.
func TestAStormOfLogIns(t *testing.T) {
	h := open(t, func(c *gate.Config) {
		c.Passwords.MemoryKiB, c.Passwords.Passes = 8<<10, 3
		c.Passwords.AtOnce, c.Passwords.Waiting, c.Passwords.Wait = 1, 4, 300*time.Millisecond
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.LogIns.PerAccount = gate.Limit{Count: 40, Per: time.Hour}
	})
	h.register("ann")
	var wg sync.WaitGroup
	var in, later atomic.Int32
	for i := range 40 {
		body := encode(t, map[string]string{"name": "ann", "password": password, "device": fmt.Sprint("d", i)})
		wg.Go(func() {
			started := time.Now()
			r, err := h.try(http.MethodPost, "/v1/sessions", "", body)
			switch {
			case err != nil:
				t.Error(err)
			case r.status == http.StatusCreated:
				in.Add(1)
			case r.status == http.StatusServiceUnavailable && r.problem().Code == errs.CodeExhausted &&
				r.problem().RetryAfterMS >= 1000:
				later.Add(1)
			default:
				t.Errorf("%d %s", r.status, r.body)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("an answer took %v", took)
			}
		})
	}
	wg.Wait()
	if in.Load() == 0 || later.Load() == 0 {
		t.Errorf("%d logged in, %d sent away; want some of both", in.Load(), later.Load())
	}
	if n := h.metric("msrchat_gate_passwords_refused_total"); n != float64(later.Load()) {
		t.Errorf("%v refusals counted, %d seen", n, later.Load())
	}
	// Neither the successful nor the refused log-ins count towards the limit.
	h.from = "203.0.113.9" // where ann has never been
	for i := range 40 {
		if r := h.post("/v1/sessions", credentials("ann", "wrong password")); r.status != http.StatusUnauthorized {
			t.Fatalf("wrong password %d: %d %s", i+1, r.status, r.body)
		}
	}
	h.want("one more", h.post("/v1/sessions", credentials("ann", password)), 429, errs.CodeRateLimited)
}
