package gate_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/errs"
)

// impatient shortens the timeouts.
func impatient(c *gate.Config) {
	const short = 300 * time.Millisecond
	c.HTTP.HeaderTimeout, c.HTTP.BodyTimeout, c.HTTP.IdleTimeout = short, short, short
}

// raw sends bytes on a connection of its own and returns what comes back until
// the gate closes it.
func (h *harness) raw(parts ...string) (answer string, took time.Duration) {
	h.t.Helper()
	started := time.Now()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	for _, p := range parts {
		if _, err := io.WriteString(c, p); err != nil {
			break // it was closed already, as the test wants
		}
	}
	b, err := io.ReadAll(c)
	if err, ok := err.(net.Error); ok && err.Timeout() { //nolint:errorlint // straight from the connection
		h.t.Fatal("the connection was left open")
	}
	return string(b), time.Since(started)
}

func TestSilenceIsClosed(t *testing.T) {
	h := open(t, impatient)
	const post = "POST /v1/codes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for _, c := range []struct{ name, sent, want string }{
		{"silence", "", ""},
		{"half a header", "GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Slow: ", ""},
		{"a body that does not come", post + "Content-Length: 20\r\n\r\n{\"em", "HTTP/1.1 408 "},
		{"chunks that do not come", post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"em", "HTTP/1.1 408 "},
		{"silence after an answer", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 "},
	} {
		answer, took := h.raw(c.sent)
		if !strings.HasPrefix(answer, c.want) || c.want == "" && answer != "" || took > 5*time.Second {
			t.Errorf("%s: %.200q after %v, want %q", c.name, answer, took, c.want)
		}
		if strings.HasPrefix(c.want, "HTTP/1.1 408") && !strings.Contains(answer, `"code":"invalid"`) {
			t.Errorf("%s: no problem: %s", c.name, answer)
		}
	}
	h.eventually("they are counted", func() bool {
		return h.metric(`msrchat_gate_unused_connections_total{reason="silent"}`) == 1 &&
			h.metric(`msrchat_gate_unused_connections_total{reason="malformed"}`) == 1
	})
}

func TestWhatIsNotHTTP(t *testing.T) {
	h := open(t, impatient)
	for _, c := range []struct{ name, sent, want string }{
		{"random bytes", "\x00\x01\xfe\xff\r\n\r\n", "HTTP/1.1 400 "},
		{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400 "},
		{"a chat frame", "\x00\x00\x00\x05hello\r\n\r\n", "HTTP/1.1 400 "},
		{
			"a huge header", "GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
			"HTTP/1.1 431 ",
		},
		{
			"two lengths", "POST /v1/codes HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}",
			"HTTP/1.1 400 ",
		},
		{"HTTP 9", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "HTTP/1.1 505 "},
	} {
		if answer, _ := h.raw(c.sent); !strings.HasPrefix(answer, c.want) {
			t.Errorf("%s: %.100q, want %q", c.name, answer, c.want)
		}
	}
	h.eventually("they are counted", func() bool {
		return h.metric(`msrchat_gate_unused_connections_total{reason="malformed"}`) == 6
	})
	h.register("ann")
}

// A body that is too large is refused with and without an announced length, and
// the rest of it is not read as a request.
func TestALargeBodyInChunks(t *testing.T) {
	h := open(t, nil)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 60<<10, strings.Repeat("x", 60<<10))
	answer, _ := h.raw(
		"POST /v1/codes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
		chunk, chunk, "0\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
	)
	if !strings.HasPrefix(answer, "HTTP/1.1 413 ") || !strings.Contains(answer, `"code":"too_large"`) ||
		strings.Contains(answer, "200 OK") {
		t.Errorf("%.400q", answer)
	}
}

// A client that waits for 100 Continue gets one, but only for a body that will be
// read.
func TestExpectContinue(t *testing.T) {
	h := open(t, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	body := `{"email":"ann@example.org","purpose":"register"}`
	fmt.Fprintf(c, "POST /v1/codes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(body))
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := io.WriteString(c, body); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadString('\n'); err != nil { // the empty line after 100
		t.Fatal(err)
	}
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 202 ") {
		t.Errorf("%q, %v", line, err)
	}
}

func TestForOperators(t *testing.T) {
	h := open(t, nil)
	h.do(http.MethodGet, "/v1/me", h.register("ann").Token, "")
	if r := h.get("/healthz"); r.status != http.StatusOK {
		t.Errorf("healthz: %d %s", r.status, r.body)
	}
	if r := h.get("/readyz"); r.status != http.StatusOK || r.body != `{"status":"ready","degraded":[]}`+"\n" {
		t.Errorf("readyz: %d %s", r.status, r.body)
	}
	if r := h.get("/metrics"); r.status != http.StatusNotFound {
		t.Errorf("metrics on the port for everybody: %d", r.status)
	}
	metrics := h.metrics()
	for _, want := range []string{
		`msrchat_gate_requests_total{route="POST /v1/accounts",status="201"} 1`,
		`msrchat_gate_request_seconds_count{route="POST /v1/accounts"} 1`,
		`msrchat_gate_mails_total{result="sent"} 1`, `msrchat_gate_code_checks_total{result="ok"} 1`,
		`msrchat_gate_assignments_total{result="ok"} 1`, `msrchat_gate_password_wait_seconds_count 1`,
		`msrchat_gate_dependency_away{dependency="redis"} 0`, "msrchat_gate_mail_queue 0", "msrchat_gate_connections ",
		`go_sql_open_connections{db_name="mysql"}`, `go_sql_wait_count_total{db_name="mysql"}`,
		`go_sql_wait_duration_seconds_total{db_name="mysql"}`,
		"redis_pool_open_connections", "redis_pool_waits_total", "redis_pool_wait_seconds_total",
		"msrchat_session_lookups_total", "process_resident_memory_bytes",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	log := h.log.String()
	for _, want := range []string{
		`level=INFO msg=request`, `route="POST /v1/accounts" status=201`, "client=127.0.0.1", "took=",
		"level=DEBUG msg=request",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	h := open(t, nil)
	for in, kept := range map[string]bool{
		"": false, "from-the-proxy.1": true, "short": false, "bad id here": false, strings.Repeat("a", 65): false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/nothing", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["X-Request-Id"] = []string{in}
		r := h.send(req)
		id := r.header.Get("X-Request-Id")
		if (id == in) != kept || len(id) < 8 || r.problem().Instance != "urn:msrchat:request:"+id ||
			!strings.Contains(h.log.String(), "request="+id+" ") {
			t.Errorf("%.20q: got %q, %s", in, id, r.body)
		}
	}
}

// openapi.yaml is for people who read the repository, and is what the gate
// serves. "go run ./cmd/gate openapi > openapi.yaml" writes it.
func TestOpenAPIIsCheckedIn(t *testing.T) {
	want, err := gate.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("openapi.yaml")
	if err != nil || !bytes.Equal(have, want) {
		t.Errorf("openapi.yaml is not what the code says (%v): run go run ./cmd/gate openapi > openapi.yaml", err)
	}
	h := open(t, nil)
	if r := h.get("/openapi.yaml"); r.status != http.StatusOK || r.body != string(want) {
		t.Errorf("/openapi.yaml: %d, %d bytes, want %d", r.status, len(r.body), len(want))
	}
	r := h.get("/openapi.json")
	for _, part := range []string{`"openapi": "3.1.0"`, `"/v1/assignments"`, `"bearer"`, `"application/problem+json"`} {
		if !strings.Contains(r.body, part) {
			t.Errorf("/openapi.json has no %s", part)
		}
	}
	for _, echo := range []string{"ErrorModel", "$schema", "http://", "https://"} {
		if strings.Contains(r.body, echo) {
			t.Errorf("/openapi.json has %s", echo)
		}
	}
	h.want("docs", h.get("/docs"), 404, errs.CodeNotFound)
}
