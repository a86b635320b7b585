package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/status"
)

func TestAReplicaLeavesInOrder(t *testing.T) {
	_, catalog := startConsul(t)
	r := startReplica(t, catalog, "status-1", func(c *status.Config) { c.DrainDelay = 700 * time.Millisecond })
	startChat(t, catalog, "a")
	c := newCaller(t, r.GRPCAddr())
	c.settled("a")
	watch, err := healthv1.NewHealthClient(dial(t, r.GRPCAddr())).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health %v, %v", first, err)
	}
	report, err := c.client.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if next, err := watch.Recv(); err != nil || next.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("health %v, %v", next, err)
	}
	// By now no caller is sent here any more; those that still come are served.
	if state := consulState(t, catalog, "status-1"); state != "absent" {
		t.Errorf("in Consul it is %s", state)
	}
	if _, err := c.assign(); err != nil {
		t.Errorf("while it leaves: %v", err)
	}
	if _, err := report.Recv(); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("the report stream ends with %v", err)
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}

func TestAReplicaMayEndAtOnce(t *testing.T) {
	for range 20 {
		cfg := status.Defaults()
		cfg.Instance, cfg.Release, cfg.Catalog, cfg.Register = "s", "v1", nowhere(t), true
		cfg.DrainDelay = time.Millisecond
		s, err := status.New(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil { // although Consul is away
			t.Fatal(err)
		}
		for _, addr := range []string{s.GRPCAddr(), s.HealthAddr(), s.HTTPAddr()} {
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				t.Fatalf("%s is still open", addr)
			}
		}
	}
}

func TestReadiness(t *testing.T) {
	agent, catalog := startConsul(t)
	agent.Kill()
	r := startReplica(t, catalog, "status-1", nil)
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + r.HTTPAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, text := get("/readyz"); code != 503 ||
		!strings.Contains(text, "Consul at "+agent.Addr+" has not answered yet") {
		t.Errorf("without Consul: %d %s", code, text)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("alive: %d", code)
	}
	agent.Start(t)
	eventually(t, "ready", 20*time.Second, func() bool { code, _ := get("/readyz"); return code == 200 })
	if _, text := get("/metrics"); !strings.Contains(text, `msrchat_status_servers{state="eligible"} 0`) {
		t.Errorf("metrics: %s", text)
	}
}

// consulState is passing, critical, or absent.
func consulState(t *testing.T, catalog *consul.Catalog, instance string) string {
	t.Helper()
	list, _, err := catalog.Client().Health().Service(status.ServiceName, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Service.Meta["instance"] == instance {
			return e.Checks.AggregatedStatus()
		}
	}
	return "absent"
}

// program builds the program once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "msrchat-status-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "status")
	out, err := exec.Command("go", "build", "-o", path, "./cmd/status").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return path, nil
})

func TestMain(m *testing.M) {
	m.Run()
	if path, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path)) // a leftover in the temporary directory
	}
}

// child is the program running by itself, without Nomad.
type child struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer // to be read once it ended
}

func startChild(t *testing.T, consulAddr, instance string) *child {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{
		cmd: exec.Command(path, "--register", "--consul-addr", consulAddr, "--instance", instance, "--release", "v9"),
	}
	c.cmd.Env = append(os.Environ(), "NOMAD_ALLOC_ID=")
	c.cmd.Stderr = &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() }) // it has ended already unless the test failed
	return c
}

// end sends a signal and waits.
func (c *child) end(t *testing.T, sig syscall.Signal) error {
	t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	return c.cmd.Wait()
}

func TestAProcessByItselfIsInConsulAsLongAsItLives(t *testing.T) {
	agent, catalog := startConsul(t)
	seen := func(instance, state string) time.Duration {
		t.Helper()
		return eventually(t, instance+" "+state, 20*time.Second,
			func() bool { return consulState(t, catalog, instance) == state })
	}
	polite, unlucky := startChild(t, agent.Addr, "polite"), startChild(t, agent.Addr, "unlucky")
	seen("polite", "passing")
	seen("unlucky", "passing")

	entries, _, err := catalog.Client().Health().Service(status.ServiceName, "", true, nil)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if e.Service.Meta["release"] != "v9" || e.Service.Address != "127.0.0.1" {
			t.Errorf("registered as %+v", e.Service)
		}
	}

	if err := polite.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, polite.stderr.String())
	}
	if state := consulState(t, catalog, "polite"); state != "absent" {
		t.Errorf("after SIGTERM it is %s", state)
	}
	if err := unlucky.end(t, syscall.SIGKILL); err == nil {
		t.Error("SIGKILL was not noticed")
	}
	t.Logf("critical %v after SIGKILL", seen("unlucky", "critical"))
}

// TestWatching watches a fleet with the program and the live page's stream
// through a restart of the only replica.
func TestWatching(t *testing.T) {
	agent, catalog := startConsul(t)
	first := startReplica(t, catalog, "status-1", nil)
	a := startChat(t, catalog, "a")
	newCaller(t, first.GRPCAddr()).settled("a")
	eventually(t, "in Consul", 20*time.Second, func() bool { return consulState(t, catalog, "status-1") == "passing" })

	resp, err := http.Get("http://" + first.HTTPAddr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil ||
		!strings.Contains(string(body), "<title>msrChat fleet</title>") {
		t.Errorf("the page: %v %s", err, body)
	}
	resp.Body.Close()
	events, err := http.Get("http://" + first.HTTPAddr() + "/fleet")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()

	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "fleet", "--watch", "--json")
	cmd.Env = append(os.Environ(), "MSRCHAT_CONSUL_ADDR="+agent.Addr)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended already unless the test failed
	pictures := json.NewDecoder(stdout)
	until := func(what string, done func(replica string, connections int) bool) {
		t.Helper()
		for {
			var f struct {
				Instance string
				Servers  []struct{ Load struct{ Connections int } }
			}
			if err := pictures.Decode(&f); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if len(f.Servers) == 1 && done(f.Instance, f.Servers[0].Load.Connections) {
				return
			}
		}
	}
	until("the first", func(replica string, _ int) bool { return replica == "status-1" })
	a.set(func(l *statusv1.Load) { l.Connections = 7 })
	until("a change", func(_ string, connections int) bool { return connections == 7 })

	if err := first.stop(); err != nil { // with both watching
		t.Error(err)
	}
	if body, err := io.ReadAll(events.Body); err != nil || !strings.Contains(string(body), `"connections":7`) ||
		!strings.Contains(string(body), "event: end") {
		t.Errorf("the stream ended with %v after %d bytes", err, len(body))
	}
	startReplica(t, catalog, "status-2", nil)
	until("its successor",
		func(replica string, connections int) bool { return replica == "status-2" && connections == 7 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stdout); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
}

func TestTheFleetCommand(t *testing.T) {
	agent, catalog := startConsul(t)
	r := startReplica(t, catalog, "status-1", nil)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	fleet := func(args ...string) (stdout, stderr string, code int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = append(os.Environ(), "MSRCHAT_CONSUL_ADDR="+agent.Addr)
		var out, errout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errout
		_ = cmd.Run() // the exit code tells
		return out.String(), errout.String(), cmd.ProcessState.ExitCode()
	}
	eventually(t, "in Consul", 20*time.Second, func() bool { return consulState(t, catalog, "status-1") == "passing" })

	if out, errout, code := fleet("fleet"); code != 0 || !strings.Contains(out, "There is no chat server") {
		t.Errorf("empty: %d %q %q", code, out, errout)
	}
	if out, _, code := fleet("fleet", "--json"); code != 0 || !strings.Contains(out, `"servers": []`) {
		t.Errorf("empty: %d %q", code, out)
	}

	a := startChat(t, catalog, "a")
	a.set(func(l *statusv1.Load) { l.Connections = 7 })
	eventually(t, "a reports 7 users", 20*time.Second, func() bool {
		s := newCaller(t, r.GRPCAddr()).server("a")
		return s.GetEligible() && s.GetLoad().GetConnections() == 7
	})
	for _, args := range [][]string{
		{"fleet"},
		{"fleet", "--addr", r.GRPCAddr()},
		{"--consul-addr", agent.Addr, "fleet"},
		{"fleet", "--consul-addr", agent.Addr},
	} {
		out, errout, code := fleet(args...)
		if code != 0 || !strings.Contains(out, "replica status-1") || !strings.Contains(out, a.health.Addr()) ||
			!strings.Contains(out, "7/1000") {
			t.Errorf("%v: %d %q %q", args, code, out, errout)
		}
	}
	out, _, _ := fleet("fleet", "--json")
	var parsed struct {
		Servers []struct {
			Instance string
			Eligible bool
			Load     struct{ Connections, Capacity int }
		}
	}
	if err := json.Unmarshal([]byte(out), &parsed); err != nil || len(parsed.Servers) != 1 ||
		parsed.Servers[0].Instance != "a" || !parsed.Servers[0].Eligible || parsed.Servers[0].Load.Connections != 7 {
		t.Errorf("%v: %s", err, out)
	}

	if out, errout, code := fleet("explain"); code != 0 ||
		!strings.Contains(out, "a would be taken (replica status-1)") || !strings.Contains(out, "7 connections") {
		t.Errorf("explain: %d %q %q", code, out, errout)
	}
	if out, errout, code := fleet("explain", "--avoid", "a", "--zone", "z", "--json"); code != 0 ||
		!strings.Contains(out, `"rank": 1`) || !strings.Contains(out, `"verdict": "skipped"`) {
		t.Errorf("explain as JSON: %d %q %q", code, out, errout)
	}
	if out, errout, code := fleet("explain", "a"); code != 0 || !strings.Contains(out, "a gets users") ||
		!strings.Contains(out, "reports in time") {
		t.Errorf("explain a server: %d %q %q", code, out, errout)
	}

	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"two servers to explain", []string{"explain", "a", "b"}, 2, "one server at most"},
		{"a server with preferences", []string{"explain", "--zone", "z", "a"}, 2, "for an assignment"},
		{"an unknown server", []string{"explain", "nobody"}, 1, `has no chat server "nobody"`},
		{"nobody to watch", []string{"fleet", "--watch", "--addr", "127.0.0.1:1"}, 1, "ask the replica at 127.0.0.1:1"},
		{"an unknown flag", []string{"--nonsense"}, 2, "Try 'status --help'"},
		{"an unknown command", []string{"nonsense"}, 2, `unknown command "nonsense"`},
		{"an argument too many", []string{"fleet", "x"}, 2, "takes no argument"},
		{"a bad address", []string{"--http-bind", "x"}, 2, `http-bind "x": want host:port`},
		{"a bad log level", []string{"--log-level", "loud"}, 2, "want debug, info"},
		{"a taken port", []string{"--grpc-bind", r.GRPCAddr()}, 1, "listen for grpc"},
		{"nobody at the address", []string{"fleet", "--addr", "127.0.0.1:1"}, 1, "ask the replica at 127.0.0.1:1"},
	} {
		if _, errout, code := fleet(c.args...); code != c.code || !strings.Contains(errout, c.want) {
			t.Errorf("%s: %d %q", c.name, code, errout)
		}
	}
}
