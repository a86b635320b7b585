package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/gate/internal/mailtest"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

// harness is a gate with its dependencies, all real except status.
type harness struct {
	t      *testing.T
	cfg    gate.Config
	url    string
	admin  string // the URL for operators
	from   string // X-Forwarded-For of requests, unless empty
	mail   *mailtest.Server
	status *fakeStatus
	log    *logBuffer
	// stop stops the gate and returns what Run did; it may be called again.
	stop func() error
}

// logBuffer keeps the log for assertions; its mutex owns the bytes.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// unlimited is what most tests want: cheap passwords, quick retries, no limits.
func unlimited(cfg *gate.Config) {
	none := gate.Limit{}
	cfg.Codes.Pause, cfg.Codes.PerAddress, cfg.Codes.PerAddressLong, cfg.Codes.PerClient = 0, none, none, none
	cfg.Codes.PerAddressAndClientLong = none
	cfg.LogIns = gate.LogIns{}
	cfg.Passwords.MemoryKiB, cfg.Passwords.Passes = 64, 1
	cfg.SMTP.FirstRetry, cfg.SMTP.LastRetry = 10*time.Millisecond, 100*time.Millisecond
	cfg.StatusTimeout = 500 * time.Millisecond
}

// open starts a gate with its dependencies and waits until it is ready.
func open(t *testing.T, change func(*gate.Config)) *harness {
	t.Helper()
	h := prepare(t, change)
	h.start()
	h.eventually("ready", func() bool { return h.get("/readyz").status == http.StatusOK })
	return h
}

// prepare starts everything but the gate.
func prepare(t *testing.T, change func(*gate.Config)) *harness {
	t.Helper()
	h := &harness{
		t:      t,
		mail:   mailtest.Start(t),
		status: startStatus(t),
		log:    &logBuffer{},
	}
	h.cfg = gate.Defaults()
	h.cfg.Instance, h.cfg.Bind = "gate-under-test", "127.0.0.1:0"
	h.cfg.MySQL = testenv.MariaDB(t)
	h.cfg.Redis = testenv.Redis(t)
	h.cfg.SMTP.Addr = h.mail.Addr
	h.cfg.StatusTarget = "passthrough:///" + h.status.addr
	unlimited(&h.cfg)
	if change != nil {
		change(&h.cfg)
	}
	return h
}

// start starts the gate; the test's end stops it.
func (h *harness) start() {
	h.t.Helper()
	s, err := gate.New(h.cfg, slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		h.t.Fatal(err)
	}
	h.url, h.admin = "http://"+s.HTTPAddr(), "http://"+s.AdminAddr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	h.t.Cleanup(func() {
		if err := h.stop(); err != nil {
			h.t.Errorf("gate stopped with %v", err)
		}
		if h.t.Failed() {
			var log strings.Builder
			for line := range strings.Lines(h.log.String()) {
				if !strings.Contains(line, "/readyz") {
					log.WriteString(line)
				}
			}
			h.t.Logf("the gate's log:\n%s", log.String())
		}
	})
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) problem() (p struct {
	Code         errs.Code
	Status       int
	Title        string
	Detail       string
	Instance     string
	RetryAfterMS int64 `json:"retry_after_ms"`
	Errors       []struct{ Location, Message string }
},
) {
	_ = json.Unmarshal([]byte(r.body), &p) // left empty, which no assertion accepts
	return p
}

// do sends a request; body is JSON text, or empty for none.
func (h *harness) do(method, path, token, body string) reply {
	h.t.Helper()
	r, err := h.try(method, path, token, body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// metrics is what operators read.
func (h *harness) metrics() string {
	h.t.Helper()
	resp, err := http.Get(h.admin + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		h.t.Fatalf("metrics: %d, %v", resp.StatusCode, err)
	}
	return string(body)
}

func (h *harness) try(method, path, token, body string) (reply, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if h.from != "" {
		req.Header.Set("X-Forwarded-For", h.from)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return send(req)
}

func send(req *http.Request) (reply, error) {
	client := http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

// send sends a request that do cannot make.
func (h *harness) send(req *http.Request) reply {
	h.t.Helper()
	r, err := send(req)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *harness) get(path string) reply {
	h.t.Helper()
	return h.do(http.MethodGet, path, "", "")
}

func (h *harness) post(path string, body any) reply {
	h.t.Helper()
	return h.do(http.MethodPost, path, "", encode(h.t, body))
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// want checks a failure: its status, code and form.
func (h *harness) want(what string, r reply, status int, code errs.Code) {
	h.t.Helper()
	p := r.problem()
	if r.status != status || p.Code != code {
		h.t.Errorf("%s: %d %s, want %d %s", what, r.status, r.body, status, code)
		return
	}
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" || p.Status != status ||
		p.Title == "" || p.Detail == "" || p.Instance != "urn:msrchat:request:"+r.header.Get("X-Request-Id") {
		h.t.Errorf("%s: not a whole problem: %s %s", what, ct, r.body)
	}
}

// loginReply is what clients read of the reply.
type loginReply struct {
	Token       string
	User        struct{ ID, Name string }
	ExpiresAtMS int64 `json:"expires_at_ms"`
	Assignment  *assignment
}

type assignment struct {
	ID          string
	Server      endpoint
	ExpiresAtMS int64 `json:"expires_at_ms"`
	Alternates  []endpoint
}

type endpoint struct {
	Instance, Address string
	TLSServerName     string `json:"tls_server_name"`
}

// loggedIn checks a success and reads it.
func (h *harness) loggedIn(r reply) loginReply {
	h.t.Helper()
	var l loginReply
	if err := json.Unmarshal([]byte(r.body), &l); err != nil || r.status != http.StatusCreated {
		h.t.Fatalf("log-in: %d %s (%v)", r.status, r.body, err)
	}
	return l
}

var sixDigits = regexp.MustCompile(`(?m)^Your code: ([0-9]{6})$`)

// requestCode is POST /v1/codes.
func (h *harness) requestCode(email string) reply {
	h.t.Helper()
	return h.post("/v1/codes", map[string]string{"email": email, "purpose": "register"})
}

// code requests a code and reads it from the mail.
func (h *harness) code(email string) string {
	h.t.Helper()
	n := len(h.mail.To(email))
	if r := h.requestCode(email); r.status != http.StatusAccepted {
		h.t.Fatalf("code: %d %s", r.status, r.body)
	}
	m := sixDigits.FindStringSubmatch(h.mail.Wait(h.t, email, n+1).Text)
	if m == nil {
		h.t.Fatalf("no code in the mail to %s", email)
	}
	return m[1]
}

const password = "correct horse battery"

// registration is a body for POST /v1/accounts.
func registration(name, code string) map[string]string {
	return map[string]string{
		"email":    name + "@example.org",
		"name":     name,
		"password": password,
		"code":     code,
		"device":   "laptop",
	}
}

// register creates an account and returns its first log-in.
func (h *harness) register(name string) loginReply {
	h.t.Helper()
	return h.loggedIn(h.post("/v1/accounts", registration(name, h.code(name+"@example.org"))))
}

func credentials(name, pass string) map[string]string {
	return map[string]string{"name": name, "password": pass, "device": "phone"}
}

func (h *harness) eventually(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	h.t.Fatalf("never seen: %s", what)
}

// metric is the sum of the series whose line begins with prefix.
func (h *harness) metric(prefix string) float64 {
	h.t.Helper()
	var sum float64
	for line := range strings.Lines(h.metrics()) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			var v float64
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err != nil {
				h.t.Fatalf("metric %q: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// flush empties Redis.
func (h *harness) flush() {
	h.t.Helper()
	testenv.EmptyRedis(h.t, h.cfg.Redis)
}

// fakeStatus answers like a status server.
type fakeStatus struct {
	statusv1.UnimplementedStatusServiceServer
	addr   string
	server *grpc.Server

	mu     sync.Mutex // owns the fields below
	answer func(*statusv1.AssignRequest) (*statusv1.Assignment, error)
	asked  []*statusv1.AssignRequest
}

func startStatus(t *testing.T) *fakeStatus {
	t.Helper()
	s := &fakeStatus{}
	s.serve(t, "127.0.0.1:0")
	return s
}

func (s *fakeStatus) serve(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.addr, s.server = l.Addr().String(), grpc.NewServer()
	statusv1.RegisterStatusServiceServer(s.server, s)
	healthv1.RegisterHealthServer(s.server, health.NewServer())
	server := s.server
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
}

func (s *fakeStatus) Assign(_ context.Context, req *statusv1.AssignRequest) (*statusv1.AssignResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req)
	if s.answer != nil {
		a, err := s.answer(req)
		return &statusv1.AssignResponse{Assignment: a}, errs.ToGRPC(err)
	}
	at := func(name string) *chatv1.Endpoint {
		return &chatv1.Endpoint{Instance: name, Address: "127.0.0.1:7801", TlsServerName: "chat.example.org"}
	}
	return &statusv1.AssignResponse{Assignment: &statusv1.Assignment{
		Id: "a1", Server: at("chat-1"), ExpiresAtMs: 1_800_000_000_000, Alternates: []*chatv1.Endpoint{at("chat-2")},
	}}, nil
}

func (s *fakeStatus) set(answer func(*statusv1.AssignRequest) (*statusv1.Assignment, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// count is how many requests it got.
func (s *fakeStatus) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *fakeStatus) last() *statusv1.AssignRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		return nil
	}
	return s.asked[len(s.asked)-1]
}
