package admin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/errs"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
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

func TestHandler(t *testing.T) {
	var notReady error
	srv := httptest.NewServer(admin.Handler(admin.NewRegistry(), func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("ready is asked without a deadline")
		}
		return notReady
	}))
	defer srv.Close()
	for _, c := range []struct {
		name, path string
		notReady   error
		status     int
		want       string
	}{
		{"alive", "/healthz", nil, 200, "ok"},
		{"ready", "/readyz", nil, 200, "ok"},
		{"alive though not ready", "/healthz", io.EOF, 200, "ok"},
		{
			"not ready, safe reason", "/readyz", errs.New(errs.CodeUnavailable, "the database is away"), 503,
			"not ready: the database is away",
		},
		{"not ready, foreign reason", "/readyz", errors.New("user:secret@db"), 503, "not ready: internal error"},
		{"runtime metrics", "/metrics", nil, 200, "go_goroutines"},
		{"process metrics", "/metrics", nil, 200, "process_resident_memory_bytes"},
		{"unknown path", "/etc/passwd", nil, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			notReady = c.notReady
			status, body := get(t, srv.URL+c.path)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("got %d %q", status, body)
			}
		})
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, l, admin.Handler(admin.NewRegistry(), nil)) }()
	if status, _ := get(t, "http://"+l.Addr().String()+"/readyz"); status != 200 {
		t.Errorf("ready: got %d", status)
	}
	cancel()
	if err := wait(t, done); err != nil {
		t.Error(err)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	l := listen(t)
	l.Close()
	if err := admin.Serve(t.Context(), l, http.NotFoundHandler()); err == nil {
		t.Error("no error")
	}
	if err := admin.NewHealth(l).Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestHealth(t *testing.T) {
	h := admin.NewHealth(listen(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	conn, err := grpc.NewClient(h.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthv1.NewHealthClient(conn)
	watch, err := client.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		resp, err := watch.Recv()
		if err != nil || resp.GetStatus() != want {
			t.Fatalf("watch: got %v, %v; want %v", resp, err, want)
		}
	}
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	h.Set(true)
	expect(healthv1.HealthCheckResponse_SERVING)
	if resp, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil ||
		resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("check: got %v, %v", resp, err)
	}
	cancel()
	expect(healthv1.HealthCheckResponse_NOT_SERVING)
	if err := wait(t, done); err != nil {
		t.Error(err)
	}
}

func TestALeavingServiceEndsItsWatches(t *testing.T) {
	h := admin.NewHealth(listen(t))
	srv := grpc.NewServer()
	h.Register(srv)
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h.Set(true)
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v", resp, err)
	}
	h.Leave()
	h.Set(true) // too late
	for err == nil {
		var resp *healthv1.HealthCheckResponse
		if resp, err = watch.Recv(); resp.GetStatus() == healthv1.HealthCheckResponse_SERVING {
			t.Error("serving after it left")
		}
	}
	srv.GracefulStop() // would wait for the watch
	if err := wait(t, done); err != nil {
		t.Error(err)
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := admin.Logger("warn", &out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Warn("shown", "server", "chat-1")
	if text := out.String(); strings.Contains(text, "hidden") || !strings.Contains(text, "msg=shown server=chat-1") {
		t.Errorf("got %q", text)
	}
	if _, err := admin.Logger("loud", &out); err == nil || !strings.Contains(err.Error(), "want debug, info") {
		t.Errorf("an unknown level: %v", err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wait(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("still running")
		return nil
	}
}
