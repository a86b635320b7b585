package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/msrchat/msrchat/gate/internal/request"
)

// blocking is a handler that blocks until release is closed.
type blocking struct {
	inside, release chan struct{}
}

func (h blocking) ServeHTTP(http.ResponseWriter, *http.Request) {
	h.inside <- struct{}{}
	<-h.release
}

func TestOneTooManyIsRefusedWithARetryTime(t *testing.T) {
	const most = 4 // and two for each network
	reg := prometheus.NewPedanticRegistry()
	router := NewRouter(time.Minute, NewConcurrency(most, reg))
	busy := blocking{make(chan struct{}, most), make(chan struct{})}
	router.Handle("POST /thing", busy)
	router.Handle("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok"))
	}))
	client := netip.MustParseAddr("192.0.2.1")
	ask := func(method, path string, body io.Reader) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		ctx := request.With(t.Context(), &request.Info{Client: client})
		r := httptest.NewRequestWithContext(ctx, method, path, body)
		r.Header.Set("Content-Type", "application/json")
		router.ServeHTTP(w, r)
		return w
	}
	// A client that is slow to send a body uses no slot.
	slow, half := io.Pipe()
	defer half.Close()
	var all, inside sync.WaitGroup
	all.Go(func() { ask(http.MethodPost, "/thing", slow) })
	if _, err := half.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	enter := func() {
		inside.Go(func() { ask(http.MethodPost, "/thing", nil) })
		<-busy.inside
	}
	enter()
	enter()
	if w := ask(http.MethodPost, "/thing", nil); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a network that uses half: %d", w.Code)
	}
	client = netip.MustParseAddr("192.0.2.2")
	enter()
	client = netip.MustParseAddr("192.0.2.3")
	enter()
	client = netip.MustParseAddr("192.0.2.4")
	w := ask(http.MethodPost, "/thing", strings.NewReader("x"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" ||
		!strings.Contains(w.Body.String(), `"code":"exhausted"`) {
		t.Errorf("one too many: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := ask(http.MethodGet, "/healthz", nil); w.Code != http.StatusOK {
		t.Errorf("a health check under overload: %d", w.Code)
	}
	close(busy.release)
	inside.Wait()
	_ = half.Close()
	<-busy.inside // the slow one
	all.Wait()
	if n := testutil.CollectAndCount(reg, "msrchat_gate_overloaded_total", "msrchat_gate_requests"); n != 2 {
		t.Errorf("%d metrics", n)
	}
	all.Go(func() { <-busy.inside })
	if w := ask(http.MethodPost, "/thing", nil); w.Code != http.StatusOK {
		t.Errorf("with room again: %d", w.Code)
	}
	all.Wait()
}

func TestConnectionsAreBounded(t *testing.T) {
	const most = 4
	c := NewConnections(most, prometheus.NewPedanticRegistry())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler:     c.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})),
		ConnContext: c.Context, ConnState: c.State, ReadHeaderTimeout: time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(c.Listener(l)) }()
	defer func() {
		_ = srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	dial := func() net.Conn {
		nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		return nc
	}
	// open waits until so many are counted.
	open := func(n int64) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for tick := time.NewTicker(time.Millisecond); c.open.Load() != n; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%d are open, want %d", c.open.Load(), n)
			}
		}
	}
	ask := func(nc net.Conn) string {
		if _, err := nc.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<10)
		n, err := nc.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	first := dial()
	defer first.Close()
	if strings.Contains(ask(first), "Connection: close") {
		t.Error("closed with room for all")
	}
	var idle []net.Conn
	for range most - 1 {
		idle = append(idle, dial())
	}
	open(most)
	over := dial()
	if n, err := over.Read(make([]byte, 1)); err == nil || n != 0 {
		t.Error("one too many was served")
	}
	if testutil.ToFloat64(c.unused.WithLabelValues("full")) != 1 {
		t.Error("it is not counted")
	}
	if !strings.Contains(ask(first), "Connection: close") {
		t.Error("kept open although there is no room for others")
	}
	open(most - 1)
	for _, nc := range idle {
		_ = nc.Close()
	}
	open(0)
	again := dial()
	defer again.Close()
	ask(again)
}
