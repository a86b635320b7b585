package web

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestClient(t *testing.T) {
	f := NewClientFinder([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"direct", "192.0.2.1:5", nil, "192.0.2.1"},
		{"direct, and it lies", "192.0.2.1:5", []string{"198.51.100.9"}, "192.0.2.1"},
		{"a proxy", "10.1.1.1:5", []string{"198.51.100.9"}, "198.51.100.9"},
		{"a proxy, behind a client that lies", "10.1.1.1:5", []string{"1.1.1.1, 198.51.100.9"}, "198.51.100.9"},
		{"two proxies, two headers", "10.1.1.1:5", []string{"1.1.1.1, 198.51.100.9", "10.2.2.2"}, "198.51.100.9"},
		{"only proxies", "10.1.1.1:5", []string{"10.3.3.3"}, "10.3.3.3"},
		{"a proxy that says nothing", "10.1.1.1:5", nil, "10.1.1.1"},
		{"a proxy that says nonsense", "10.1.1.1:5", []string{"1.1.1.1, nonsense"}, "10.1.1.1"},
		{"with a port", "10.1.1.1:5", []string{"198.51.100.9:4711"}, "198.51.100.9"},
		{"IPv6", "[fd00::1]:5", []string{"[2001:db8::1]:9"}, "2001:db8::1"},
		{"IPv4 in IPv6", "[::ffff:10.1.1.1]:5", []string{"::ffff:198.51.100.9"}, "198.51.100.9"},
		{"with a zone", "[fe80::1%eth0]:5", nil, "fe80::1"},
		{"an endless chain", "10.1.1.1:5", []string{strings.Repeat("10.1.1.1,", 100_000)}, "10.1.1.1"},
		{"no address", "@", nil, "invalid IP"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		r.Header["X-Forwarded-For"] = c.forwarded
		if got := f.Client(r).String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzClient(f *testing.F) {
	f.Add("10.1.1.1:5", "198.51.100.9, 10.2.2.2")
	f.Add("[fd00::1%x]:5", "[::1]:1,,")
	f.Add("192.0.2.1:5", ",")
	trusted := netip.MustParsePrefix("10.0.0.0/8")
	finder := NewClientFinder([]netip.Prefix{trusted})
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", forwarded)
		got := finder.Client(r)
		if got.IsValid() && (got.Zone() != "" || got.Is4In6()) {
			t.Errorf("%s has a second spelling", got)
		}
		if p, err := netip.ParseAddrPort(peer); err == nil && !trusted.Contains(p.Addr().Unmap()) &&
			got != p.Addr().Unmap().WithZone("") {
			t.Errorf("%s was believed %q: %s", peer, forwarded, got)
		}
	})
}

func TestTheRouterAnswersWithProblems(t *testing.T) {
	m := NewRouter(time.Second, NewConcurrency(10, prometheus.NewRegistry()))
	m.HandleFunc("GET /thing/{id}",
		func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.PathValue("id"))) })
	m.HandleFunc("POST /thing/{id}", func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct {
		method, path string
		status       int
		allow, body  string
	}{
		{http.MethodGet, "/thing/7", 200, "", "7"},
		{http.MethodHead, "/thing/7", 200, "", "7"},
		{http.MethodGet, "/other", 404, "", `"code":"not_found"`},
		{http.MethodGet, "/", 404, "", `"code":"not_found"`},
		{http.MethodDelete, "/thing/7", 405, "GET, HEAD, POST", "only GET and HEAD and POST"},
		{"BREW", "/thing/7", 405, "GET, HEAD, POST", `"code":"invalid"`},
		{http.MethodGet, "/thing/../other", 404, "", `"code":"not_found"`},
		{http.MethodGet, "/other/../thing/7", 404, "", `"code":"not_found"`},
		{http.MethodGet, "//thing/7", 404, "", `"code":"not_found"`},
		{http.MethodPost, "/thing//7", 404, "", `"code":"not_found"`},
		{http.MethodGet, "/thing/7/", 404, "", `"code":"not_found"`},
	} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || w.Header().Get("Allow") != c.allow || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d, Allow %q, %s", c.method, c.path, w.Code, w.Header().Get("Allow"), w.Body)
		}
		if ct := w.Header().Get("Content-Type"); c.status >= 400 && ct != "application/problem+json" {
			t.Errorf("%s %s: %s", c.method, c.path, ct)
		}
	}
}

func TestConnectionMetricsAreThereFromTheStart(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	NewConnections(10, reg)
	families, err := reg.Gather()
	if err != nil || len(families) != 2 {
		t.Errorf("%d metrics, %v; want 2, there from the start", len(families), err)
	}
}
