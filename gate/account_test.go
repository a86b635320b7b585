package gate_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

var anAssignment = &assignment{
	ID: "a1", Server: endpoint{"chat-1", "127.0.0.1:7801", "chat.example.org"}, ExpiresAtMS: 1_800_000_000_000,
	Alternates: []endpoint{{"chat-2", "127.0.0.1:7801", "chat.example.org"}},
}

func TestFromTheCodeToLoggingOut(t *testing.T) {
	h := open(t, func(c *gate.Config) { c.Zone = "east" })
	const name, email = "王小明", "Ming@example.org"
	digits := h.code(email)
	first := h.loggedIn(h.post("/v1/accounts", map[string]string{
		"email": email, "name": name, "password": password, "code": digits, "device": "laptop",
	}))
	token, err := base64.RawURLEncoding.DecodeString(first.Token)
	if err != nil || len(token) != 32 || first.User.ID == "" || first.User.Name != name {
		t.Errorf("registered as %+v (%v)", first, err)
	}
	if left := time.Until(time.UnixMilli(first.ExpiresAtMS)); left < 89*24*time.Hour || left > 91*24*time.Hour {
		t.Errorf("the session lasts %v", left)
	}
	if diff := cmp.Diff(anAssignment, first.Assignment); diff != "" {
		t.Errorf("assignment (-want +got):\n%s", diff)
	}
	if asked := h.status.last(); fmt.Sprint(asked.GetUserId()) != first.User.ID || asked.GetZone() != "east" {
		t.Errorf("status got %v", asked)
	}

	var me struct {
		User    struct{ ID, Name, Email string }
		Session struct {
			ID, Device  string
			ExpiresAtMS int64 `json:"expires_at_ms"`
		}
	}
	r := h.do(http.MethodGet, "/v1/me", first.Token, "")
	if err := json.Unmarshal([]byte(r.body), &me); err != nil || r.status != http.StatusOK ||
		me.User.ID != first.User.ID || me.User.Name != name || me.User.Email != email ||
		me.Session.ID == "" || me.Session.Device != "laptop" || me.Session.ExpiresAtMS != first.ExpiresAtMS {
		t.Errorf("me: %d %s", r.status, r.body)
	}
	if r.header.Get("Cache-Control") != "no-store" || strings.Contains(r.body, "$schema") {
		t.Errorf("me: header %v, body %s", r.header, r.body)
	}

	// By name, regardless of case, and by address; each on a device of its own.
	for _, by := range []map[string]string{
		{"name": name, "password": password, "device": "phone"},
		{"email": "ming@EXAMPLE.org", "password": password, "device": "tablet"},
	} {
		l := h.loggedIn(h.post("/v1/sessions", by))
		if l.User != first.User || l.Token == first.Token || l.Assignment == nil {
			t.Errorf("log-in %v: %+v", by, l)
		}
	}
	// A client that does not connect now needs no assignment.
	before := h.status.count()
	phone := map[string]string{"name": name, "password": password, "device": "phone"}
	if l := h.loggedIn(h.post("/v1/sessions?later=true", phone)); l.Assignment != nil || h.status.count() != before {
		t.Errorf("an assignment that was not requested: %+v", l.Assignment)
	}
	// A log-in on the same device ends the older session.
	laptop := map[string]string{"name": name, "password": password, "device": "laptop"}
	second := h.loggedIn(h.post("/v1/sessions", laptop))
	h.want("the older session", h.do(http.MethodGet, "/v1/me", first.Token, ""), 401, errs.CodeUnauthenticated)

	if r := h.do(http.MethodDelete, "/v1/sessions/current", second.Token, ""); r.status != http.StatusNoContent ||
		r.body != "" {
		t.Errorf("log-out: %d %s", r.status, r.body)
	}
	for _, path := range []string{"/v1/me", "/v1/sessions/current"} {
		method := map[string]string{"/v1/me": http.MethodGet}[path]
		if method == "" {
			method = http.MethodDelete
		}
		r := h.do(method, path, second.Token, "")
		h.want("after the log-out", r, 401, errs.CodeUnauthenticated)
		if r.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("no WWW-Authenticate: %v", r.header)
		}
	}
	h.nothingSecretIn(digits, password, first.Token, second.Token, email)
}

// nothingSecretIn checks for what must never be logged.
func (h *harness) nothingSecretIn(secrets ...string) {
	h.t.Helper()
	log := h.log.String()
	if !strings.Contains(log, "msg=request") {
		h.t.Error("the log has no request")
	}
	for _, s := range secrets {
		if strings.Contains(log, s) {
			h.t.Errorf("the log has %q", s)
		}
	}
}

func TestAssignments(t *testing.T) {
	h := open(t, nil)
	token := h.register("ann").Token
	r := h.do(http.MethodPost, "/v1/assignments", token, `{"avoid":["chat-9","chat-7"]}`)
	var got assignment
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != http.StatusOK {
		t.Fatalf("%d %s (%v)", r.status, r.body, err)
	}
	if diff := cmp.Diff(anAssignment, &got); diff != "" {
		t.Errorf("assignment (-want +got):\n%s", diff)
	}
	if avoid := h.status.last().GetAvoid(); len(avoid) != 2 || avoid[0] != "chat-9" || avoid[1] != "chat-7" {
		t.Errorf("status was asked to avoid %v", avoid)
	}
	if r := h.do(http.MethodPost, "/v1/assignments", token, `{}`); r.status != http.StatusOK {
		t.Errorf("without avoid: %d %s", r.status, r.body)
	}
	h.want("no token", h.do(http.MethodPost, "/v1/assignments", "", `{}`), 401, errs.CodeUnauthenticated)
	many := `{"avoid":[` + strings.Repeat(`"x",`, 16) + `"x"]}`
	h.want("17 to avoid", h.do(http.MethodPost, "/v1/assignments", token, many), 422, errs.CodeInvalid)
	long := `{"avoid":["` + strings.Repeat("x", 129) + `"]}`
	h.want("a long one", h.do(http.MethodPost, "/v1/assignments", token, long), 422, errs.CodeInvalid)
}

// Only the mail shows whether an address has an account.
func TestTheAnswerDoesNotShowWhetherAnAddressHasAnAccount(t *testing.T) {
	h := open(t, nil)
	h.register("ann")
	h.flush() // or the used code could be guessed
	ask := func(email string) reply {
		return h.requestCode(email)
	}
	known, unknown := ask("Ann@Example.org"), ask("bob@example.org")
	if known.status != unknown.status || known.body != unknown.body {
		t.Errorf("known: %d %s, unknown: %d %s", known.status, known.body, unknown.status, unknown.body)
	}
	// It goes to the account's own address, whatever was typed, behind the code.
	m := h.mail.Wait(t, "ann@example.org", 2)
	if sixDigits.MatchString(m.Text) || !strings.Contains(m.Text, "has an account already") ||
		!strings.Contains(m.Text, "\n    ann\n") {
		t.Errorf("the mail says:\n%s", m.Text)
	}
	// Guesses get the same answers until there are no tries left.
	for i := range 7 {
		guess := func(email string) reply {
			body := registration("carl", "000000")
			body["email"] = email
			return h.post("/v1/accounts", body)
		}
		a, b := guess("ann@example.org").problem(), guess("bob@example.org").problem()
		if a.Detail != b.Detail || a.Code != errs.CodeInvalid || b.Code != errs.CodeInvalid {
			t.Errorf("guess %d: known %q, unknown %q", i, a.Detail, b.Detail)
		}
	}
}

func TestATakenNameDoesNotCostTheCode(t *testing.T) {
	h := open(t, nil)
	h.register("ann")
	digits := h.code("bob@example.org")
	reg := registration("bob", digits)
	for _, same := range []string{"ann", "ANN", "Ａｎｎ", " ann ", "аnn" /* Cyrillic */, "ɑnn"} {
		reg["name"] = same
		r := h.post("/v1/accounts", reg)
		h.want("name "+same, r, 409, errs.CodeConflict)
		if e := r.problem().Errors; len(e) != 1 || e[0].Location != "body.name" {
			t.Errorf("name %q: %s", same, r.body)
		}
	}
	reg["name"] = "bob"
	h.loggedIn(h.post("/v1/accounts", reg))
	// The code is used up. A person who reads the address's mail may know that it
	// has an account.
	reg["name"] = "bob2"
	r := h.post("/v1/accounts", reg)
	h.want("a second use", r, 409, errs.CodeConflict)
	if e := r.problem().Errors; len(e) != 1 || e[0].Location != "body.email" {
		t.Errorf("a second use: %s", r.body)
	}
	// The code is used up, and not only the address.
	db := testenv.Open(t, h.cfg.MySQL)
	if _, err := db.ExecContext(t.Context(), "DELETE FROM users WHERE name = 'bob'"); err != nil {
		t.Fatal(err)
	}
	h.want("a third use, without the account", h.post("/v1/accounts", reg), 409, errs.CodeConflict)
}

func TestOfTwoRegistrationsAtOnceOneWins(t *testing.T) {
	const n = 8
	for _, c := range []struct {
		name  string
		field string
		body  func(i int, codes []string) map[string]string
	}{
		{"the same name", "body.name", func(i int, codes []string) map[string]string {
			r := registration(fmt.Sprintf("p%d", i), codes[i])
			r["name"] = "Wanted"
			return r
		}},
		{"the same address and code", "body.email", func(i int, codes []string) map[string]string {
			r := registration("shared", codes[n])
			r["name"] = fmt.Sprintf("other%d", i)
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, nil)
			codes := make([]string, n+1)
			for i := range n {
				codes[i] = h.code(fmt.Sprintf("p%d@example.org", i))
			}
			codes[n] = h.code("shared@example.org")
			replies := make([]reply, n)
			var wg sync.WaitGroup
			for i := range n {
				body := encode(t, c.body(i, codes))
				wg.Go(func() { replies[i], _ = h.try(http.MethodPost, "/v1/accounts", "", body) })
			}
			wg.Wait()
			won := 0
			for _, r := range replies {
				if r.status == http.StatusCreated {
					won++
					continue
				}
				p := r.problem()
				if r.status != http.StatusConflict || len(p.Errors) != 1 || p.Errors[0].Location != c.field {
					t.Errorf("a loser got %d %s, want a conflict of %s", r.status, r.body, c.field)
				}
			}
			if won != 1 {
				t.Errorf("%d won, want one", won)
			}
		})
	}
}

func TestWrongPasswordAndUnknownUserAreOneAnswer(t *testing.T) {
	h := open(t, nil)
	h.register("ann")
	var details []string
	for _, c := range []map[string]string{
		credentials("ann", "wrong password"), credentials("ann", ""), credentials("ann", strings.Repeat("x", 10_000)),
		credentials("nobody", password),
		{"email": "ann@example.org", "password": "wrong password", "device": "d"},
		{"email": "nobody@example.org", "password": password, "device": "d"},
	} {
		r := h.post("/v1/sessions", c)
		h.want(fmt.Sprintf("%.60v", c), r, 401, errs.CodeUnauthenticated)
		details = append(details, r.problem().Detail)
	}
	for _, d := range details {
		if d != details[0] {
			t.Errorf("%q and %q differ", d, details[0])
		}
	}
}

// Stronger parameters reach people who registered before.
func TestAnOldHashIsRenewedAtLogIn(t *testing.T) {
	h := open(t, nil)
	h.register("ann")
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	h.cfg.Passwords.MemoryKiB, h.cfg.Passwords.Passes = 128, 2
	h.start()
	h.eventually("ready", func() bool { return h.get("/readyz").status == http.StatusOK })
	db := testenv.Open(t, h.cfg.MySQL)
	for range 2 {
		h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
		var stored string
		if err := db.QueryRowContext(t.Context(), "SELECT password_hash FROM users").Scan(&stored); err != nil ||
			!strings.HasPrefix(stored, "$argon2id$v=19$m=128,t=2,p=1$") {
			t.Errorf("stored %q, %v", stored, err)
		}
	}
}

// People whose name or address an earlier release took, and nobody may choose now, log in.
func TestPeopleOfAnOlderReleaseLogIn(t *testing.T) {
	h := open(t, nil)
	h.register("ann")
	const name, address = "ben\u0301\u0301\u0301", "ann@my_host.example" // an accent thrice; no domain of DNS
	if _, _, err := text.Name(name); err == nil {
		t.Fatalf("%q may be chosen: this shows nothing", name)
	}
	if _, _, err := text.Email(address); err == nil {
		t.Fatalf("%q may be chosen: this shows nothing", address)
	}
	_, key, err := text.FindName(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = testenv.Open(t, h.cfg.MySQL).ExecContext(t.Context(),
		"UPDATE users SET name = ?, name_key = ?, email = ?, email_key = ?", name, key, address, address)
	if err != nil {
		t.Fatal(err)
	}
	h.loggedIn(h.post("/v1/sessions", credentials(name, password)))
	h.loggedIn(h.post("/v1/sessions", map[string]string{"email": address, "password": password, "device": "x"}))
}

func TestASessionOfADeletedAccount(t *testing.T) {
	h := open(t, nil)
	token := h.register("ann").Token
	if r := h.do(http.MethodGet, "/v1/me", token, ""); r.status != http.StatusOK { // and is cached in Redis
		t.Fatalf("me: %d %s", r.status, r.body)
	}
	if _, err := testenv.Open(t, h.cfg.MySQL).ExecContext(t.Context(), "DELETE FROM users"); err != nil {
		t.Fatal(err)
	}
	h.want("me", h.do(http.MethodGet, "/v1/me", token, ""), 401, errs.CodeUnauthenticated)
}
