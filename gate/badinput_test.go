package gate_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

// secret is in a value of every bad request; no answer may repeat it.
const secret = "hunter2-S3CR3T"

func TestBadBodies(t *testing.T) {
	h := open(t, nil)
	deep := strings.Repeat(`{"email":`, 6000) + "1" + strings.Repeat("}", 6000)
	const frame = `{"email":"","purpose":"register"}`
	sized := func(bytes int) string {
		return `{"email":"` + strings.Repeat("x", bytes-len(frame)) + `","purpose":"register"}`
	}
	for _, c := range []struct {
		name, body string
		status     int
		code       errs.Code
		says       string
	}{
		{"nothing", "", 400, errs.CodeInvalid, "body is required"},
		{"not JSON", secret, 400, errs.CodeInvalid, "not valid JSON"},
		{"half", `{"email":"` + secret, 400, errs.CodeInvalid, "not valid JSON at byte 24"},
		{"two", `{"email":"a@example.org","purpose":"register"}{}`, 400, errs.CodeInvalid, "not valid JSON"},
		{"null", `null`, 422, errs.CodeInvalid, "expected object"},
		{"a list", `["` + secret + `"]`, 422, errs.CodeInvalid, "expected object"},
		{"a number for a string", `{"email":` + "4711" + `,"purpose":"register"}`, 422, errs.CodeInvalid, "body.email"},
		{"missing", `{"purpose":"register"}`, 422, errs.CodeInvalid, "expected required property email"},
		{
			"a purpose that is none", `{"email":"a@example.org","purpose":"` + secret + `"}`, 422, errs.CodeInvalid,
			"body.purpose",
		},
		{
			"a member that is none", `{"email":"a@example.org","purpose":"register","extra":"` + secret + `"}`, 422,
			errs.CodeInvalid, "body.extra",
		},
		{
			"a member with a strange name", `{"email":"a@example.org","purpose":"register","` + secret + `":1}`, 422,
			errs.CodeInvalid, "unexpected property",
		},
		{
			"invalid UTF-8", "{\"email\":\"\xff\xfe\",\"purpose\":\"register\"}", 400, errs.CodeInvalid,
			"not valid UTF-8",
		},
		{"deep", deep, 422, errs.CodeInvalid, "schema"},
		{"64 KiB", sized(64 << 10), 422, errs.CodeInvalid, "too long"},
		{"64 KiB and one", sized(64<<10 + 1), 413, errs.CodeTooLarge, "65536"},
		{"a megabyte", strings.Repeat("x", 1<<20), 413, errs.CodeTooLarge, "65536"},
	} {
		r := h.do(http.MethodPost, "/v1/codes", "", c.body)
		h.want(c.name, r, c.status, c.code)
		if !strings.Contains(r.body, c.says) || strings.Contains(r.body, secret) {
			t.Errorf("%s: %s; want it to say %q and not to repeat the request", c.name, r.body, c.says)
		}
	}
	if n := h.metric(`msrchat_gate_problems_total{code="invalid",route="POST /v1/codes"}`); n != 14 {
		t.Errorf("%v invalid requests counted, want 14", n)
	}
	if n := h.metric(`msrchat_gate_problems_total{code="too_large",route="POST /v1/codes"}`); n != 2 {
		t.Errorf("%v too large requests counted, want 2", n)
	}
	if r := h.requestCode("ann@example.org"); r.status != http.StatusAccepted {
		t.Errorf("a good request afterwards: %d %s", r.status, r.body)
	}
}

func TestAnotherContentType(t *testing.T) {
	h := open(t, nil)
	for _, ct := range []string{
		"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
		"application/" + secret,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/v1/codes",
			strings.NewReader(`{"email":"a@example.org","purpose":"register"}`))
		if err != nil {
			t.Fatal(err)
		}
		if ct != "" {
			req.Header.Set("Content-Type", ct)
		}
		h.want(ct, h.send(req), http.StatusUnsupportedMediaType, errs.CodeInvalid)
	}
}

func TestBadValues(t *testing.T) {
	h := open(t, nil)
	digits := h.code("ann@example.org")
	long := strings.Repeat("长", 10_000)
	for _, c := range []struct{ member, value string }{
		{"name", ""},
		{"name", "a"},
		{"name", "a b"},
		{"name", "ann\x00"},
		{"name", "ann\n" + secret},
		{"name", "ann\x1b[31m"},
		{"name", "ann\u202egnp.exe"},
		{"name", "ann\u2066x"},
		{"name", "a\u200bnn"},
		{"name", "ann\ufffd"},
		{"name", long},
		{"email", ""},
		{"email", "ann"},
		{"email", secret + "@"},
		{"email", "Ann <ann@example.org>"},
		{"email", "ann@example.org\r\nBcc: x@example.org"},
		{"email", "ann\u202e@example.org"},
		{"email", strings.Repeat("a", 10_000) + "@example.org"},
		{"password", ""},
		{"password", "short"},
		{"password", long},
		{"code", ""},
		{"code", "12345"},
		{"code", secret},
		{"code", strings.Repeat("1", 10_000)},
		{"code", "12345\u202e6"},
		{"device", ""},
		{"device", "lap\x07top"},
		{"device", "lap\u202etop"},
		{"device", long},
	} {
		body := registration("ann", digits)
		body[c.member] = c.value
		what := fmt.Sprintf("%s %.30q", c.member, c.value)
		r := h.post("/v1/accounts", body)
		h.want(what, r, 422, errs.CodeInvalid)
		if e := r.problem().Errors; len(e) != 1 || e[0].Location != "body."+c.member {
			t.Errorf("%s: %s, want it to name the member", what, r.body)
		}
		if len(c.value) > 8 && strings.Contains(r.body, c.value) || strings.Contains(r.body, secret) {
			t.Errorf("%s: the answer repeats it: %.200s", what, r.body)
		}
	}
	// JSON can express surrogate halves, UTF-8 cannot.
	r := h.do(http.MethodPost, "/v1/accounts", "",
		`{"email":"ann@example.org","name":"an\ud800n","password":"correct horse","code":"`+digits+`","device":"d"}`)
	h.want("half a surrogate", r, 422, errs.CodeInvalid)
	// None of that used up the code.
	h.loggedIn(h.post("/v1/accounts", registration("ann", digits)))
	for _, c := range []map[string]string{
		{"password": password, "device": "d"},
		{"name": "ann", "email": "ann@example.org", "password": password, "device": "d"},
		{"name": "ann\x00", "password": password, "device": "d"},
		{"email": "nobody", "password": password, "device": "d"},
		{"name": "ann", "password": password, "device": ""},
	} {
		h.want(fmt.Sprint(c), h.post("/v1/sessions", c), 422, errs.CodeInvalid)
	}
	h.nothingSecretIn(secret, digits, password)
}

func TestTenWrongCodesInARow(t *testing.T) {
	h := open(t, nil)
	digits := h.code("ann@example.org")
	wrong := "000000"
	if digits == wrong {
		wrong = "000001"
	}
	for i := range 10 {
		r := h.post("/v1/accounts", registration("ann", wrong))
		h.want(fmt.Sprint("wrong code ", i+1), r, 422, errs.CodeInvalid)
		says := fmt.Sprintf("tries left: %d", 4-i)
		if i >= 4 {
			says = "ask for a new one"
		}
		if d := r.problem().Detail; !strings.Contains(d, says) {
			t.Errorf("wrong code %d: %q, want it to say %q", i+1, d, says)
		}
	}
	h.want("the right one, too late", h.post("/v1/accounts", registration("ann", digits)), 422, errs.CodeInvalid)
	if n := h.metric("msrchat_gate_code_checks_total"); n != 11 {
		t.Errorf("%v checks counted, want 11", n)
	}
	h.loggedIn(h.post("/v1/accounts", registration("ann", h.code("ann@example.org"))))
	// Bob is not affected.
	h.register("bob")
}

func TestBadTokens(t *testing.T) {
	h := open(t, nil)
	l := h.register("ann")
	db := testenv.Open(t, h.cfg.MySQL)
	made := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	for name, token := range map[string]string{
		"none":         "",
		"made up":      made([]byte(strings.Repeat("x", 32))),
		"zero":         made(make([]byte, 32)),
		"short":        made(make([]byte, 31)),
		"long":         made(make([]byte, 33)),
		"not base64":   "!" + l.Token[1:],
		"padded":       l.Token + "=",
		"huge":         strings.Repeat("A", 8000),
		"two":          l.Token + " " + l.Token,
		"another case": strings.ToUpper(l.Token),
	} {
		for _, call := range []struct{ method, path, body string }{
			{http.MethodGet, "/v1/me", ""},
			{http.MethodDelete, "/v1/sessions/current", ""},
			{http.MethodPost, "/v1/assignments", "{}"},
		} {
			r := h.do(call.method, call.path, token, call.body)
			h.want(name+" "+call.path, r, 401, errs.CodeUnauthenticated)
			if token != "" && strings.Contains(r.body, token) {
				t.Errorf("%s: the answer repeats the token", name)
			}
		}
	}
	for _, header := range []string{"Basic " + l.Token, l.Token, "Bearer", "Bearer  "} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/v1/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", header)
		h.want("Authorization "+header[:6], h.send(req), 401, errs.CodeUnauthenticated)
	}
	// The right one still works. Then it is revoked, and another one expires.
	if r := h.do(http.MethodGet, "/v1/me", l.Token, ""); r.status != http.StatusOK {
		t.Errorf("the right token: %d %s", r.status, r.body)
	}
	h.do(http.MethodDelete, "/v1/sessions/current", l.Token, "")
	h.want("revoked", h.do(http.MethodGet, "/v1/me", l.Token, ""), 401, errs.CodeUnauthenticated)
	again := h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	if _, err := db.ExecContext(t.Context(), "UPDATE sessions SET expires_at = 1"); err != nil {
		t.Fatal(err)
	}
	r := h.do(http.MethodGet, "/v1/me", again.Token, "")
	h.want("expired", r, 401, errs.CodeUnauthenticated)
	if !strings.Contains(r.body, "expired") {
		t.Errorf("expired: %s", r.body)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	h := open(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
		code         errs.Code
	}{
		{http.MethodGet, "/", 404, errs.CodeNotFound},
		{http.MethodGet, "/v1", 404, errs.CodeNotFound},
		{http.MethodGet, "/docs", 404, errs.CodeNotFound},
		{http.MethodGet, "/schemas/User.json", 404, errs.CodeNotFound},
		{http.MethodPost, "/v1/" + secret, 404, errs.CodeNotFound},
		{http.MethodGet, "/v1/codes", 405, errs.CodeInvalid},
		{http.MethodPut, "/v1/me", 405, errs.CodeInvalid},
		{http.MethodOptions, "/v1/me", 405, errs.CodeInvalid},
		{http.MethodPost, "/healthz", 405, errs.CodeInvalid},
	} {
		r := h.do(c.method, c.path, "", "")
		h.want(c.method+" "+c.path, r, c.status, c.code)
		if c.status == 405 && r.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
		if strings.Contains(r.body, secret) {
			t.Errorf("%s repeats the path: %s", c.path, r.body)
		}
	}
	// Invented paths and methods do not become series of their own.
	before := strings.Count(h.metrics(), "msrchat_gate_requests_total{")
	for i := range 20 {
		h.do(fmt.Sprintf("BREW%d", i), fmt.Sprintf("/pot/%d", i), "", "")
	}
	if after := strings.Count(h.metrics(), "msrchat_gate_requests_total{"); after > before+1 {
		t.Errorf("%d series before, %d after", before, after)
	}
}

// Nobody waits for the body of a request that has no operation.
func TestAnUnknownPathIsAnsweredBeforeItsBody(t *testing.T) {
	h := open(t, func(c *gate.Config) { c.HTTP.BodyTimeout = 5 * time.Minute })
	for _, line := range []string{"POST /v1/nothing", "PUT /v1/me", "POST /v1//me"} {
		nc, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(nc, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", line)
		_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", line, answer.Status)
			_ = answer.Body.Close()
		}
		_ = nc.Close()
	}
}

func TestLimits(t *testing.T) {
	h := open(t, func(c *gate.Config) {
		d := gate.Defaults()
		c.Codes.Pause = d.Codes.Pause
		c.Codes.PerClient = gate.Limit{Count: 4, Per: d.Codes.PerClient.Per}
		c.LogIns.PerAccountAndClient = gate.Limit{Count: 3, Per: d.LogIns.PerAccountAndClient.Per}
	})
	ask := func(email string) reply {
		return h.requestCode(email)
	}
	limited := func(what string, r reply) {
		t.Helper()
		h.want(what, r, 429, errs.CodeRateLimited)
		if p := r.problem(); p.RetryAfterMS <= 0 || r.header.Get("Retry-After") == "" {
			t.Errorf("%s: no retry time: %s", what, r.body)
		}
	}
	h.register("ann")
	limited("a second code at once", ask("ANN@example.org"))
	for _, other := range []string{"bob", "carl", "dora"} { // the refused one did not count
		if r := ask(other + "@example.org"); r.status != http.StatusAccepted {
			t.Errorf("a code to %s: %d %s", other, r.status, r.body)
		}
	}
	limited("a fifth code from one client", ask("emil@example.org"))

	for range 10 { // log-ins that succeed do not count
		h.loggedIn(h.post("/v1/sessions", credentials("ann", password)))
	}
	for range 3 {
		h.want("a wrong password", h.post("/v1/sessions", credentials("ann", "wrong password")), 401,
			errs.CodeUnauthenticated)
	}
	limited("a fourth wrong password", h.post("/v1/sessions", credentials("ann", "wrong password")))
	// By address is another count, which shows nothing of the name's.
	h.loggedIn(h.post("/v1/sessions", map[string]string{
		"email": "ann@example.org", "password": password, "device": "d",
	}))
	for range 3 {
		h.want("nobody", h.post("/v1/sessions", credentials("nobody", "wrong password")), 401, errs.CodeUnauthenticated)
	}
	limited("nobody, as often", h.post("/v1/sessions", credentials("nobody", "wrong password")))
	if n := h.metric("msrchat_gate_limited_total"); n != 4 {
		t.Errorf("%v refusals counted, want 4", n)
	}
}

// One client that asks for codes to somebody else's address does not use up what the
// owner may ask for.
func TestCodesForOthersCostTheOwnerNothing(t *testing.T) {
	h := open(t, func(c *gate.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.Codes.PerAddress = gate.Limit{Count: 100, Per: time.Hour}
		c.Codes.PerAddressAndClientLong = gate.Limit{Count: 2, Per: 24 * time.Hour}
		c.Codes.PerAddressLong = gate.Limit{Count: 4, Per: 24 * time.Hour}
	})
	h.from = "198.51.100.1"
	refused := 0
	for range 20 {
		if r := h.requestCode("bob@example.org"); r.status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 18 {
		t.Errorf("%d of 20 were refused, want all but two", refused)
	}
	h.from = "192.0.2.1"
	if r := h.requestCode("bob@example.org"); r.status != http.StatusAccepted {
		t.Errorf("bob's own code: %d %s", r.status, r.body)
	}
}
