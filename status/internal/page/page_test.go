package page_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/status/internal/page"
	"github.com/msrchat/msrchat/status/internal/snapshot"
)

// serve serves the page with what show shows; nil watches for ever and shows
// nothing more.
func serve(t *testing.T, watch page.Watch) string {
	t.Helper()
	mux := http.NewServeMux()
	page.Register(mux, watch)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// showing is a watch that shows fleets and then waits.
func showing(fleets ...*statusv1.FleetResponse) page.Watch {
	return func(ctx context.Context, show func(*statusv1.FleetResponse) error) error {
		for _, f := range fleets {
			if err := show(f); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
}

// hostile is a name that a server might give itself.
const hostile = `"><script>document.title="owned"</script><img src=x onerror=alert(1)>`

// everyState is a fleet with a server in every state.
func everyState() *statusv1.FleetResponse {
	server := func(name, release string, load *statusv1.Load) *statusv1.Server {
		return &statusv1.Server{
			Endpoint: &chatv1.Endpoint{Instance: name, Address: "10.0.7.21:7740"}, Release: release, Zone: "north",
			InCatalog: true, Passing: true, Eligible: true, Load: load, ReportAgeMs: 420, FairShare: 9400,
		}
	}
	load := func(n uint32, sends float64) *statusv1.Load {
		return &statusv1.Load{
			Connections: n, Capacity: 18_200, SendRate: sends, QueueDelayMs: 1.4, Cpu: 0.42, MemoryBytes: 143 << 20,
		}
	}
	f := &statusv1.FleetResponse{
		Instance: "status-5e2a", CatalogAgeMs: 1800, AssignRate: 12.4,
		Balance: &statusv1.Balance{
			State: statusv1.Balance_STATE_MOVING, ToMove: 4822,
			Text: "4822 connections have to move to servers with more room",
		},
		Servers: []*statusv1.Server{
			server("chat-1f3c", "2026.11.3", load(11_840, 612)), server("chat-2a90", "2026.11.3", load(11_782, 598.5)),
			server("chat-3b77", "2026.11.3", load(4_578, 233)), server("chat-4c01", "2026.11.2", load(2_310, 88)),
			server("chat-5d18", "2026.11.3", load(18_196, 940)), server("chat-6e44", "2026.11.3", load(512, 0)),
			server("chat-7f02", "2026.11.3", nil),
		},
	}
	s := f.GetServers()
	s[0].KeepAtMost, s[1].KeepAtMost = 11_700, 11_700
	s[2].PendingAssignments = 310
	s[3].Eligible, s[3].Reason, s[3].Load.Draining, s[3].FairShare = false, "it reports that it is draining", true, 0
	s[4].Eligible, s[4].PendingAssignments = false, 4
	s[4].Reason = "it is full: 18196 connections, 4 pending assignments, capacity 18200"
	s[5].Eligible, s[5].Reason, s[5].Passing = false, "its check in Consul has failed for 7.0 s", false
	s[6].Eligible, s[6].Reason, s[6].FairShare = false, "it has not reported to this replica", 0
	return f
}

func TestThePageIsSelfContained(t *testing.T) {
	url := serve(t, showing(everyState()))
	for path, contentType := range map[string]string{
		"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript",
	} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		policy := resp.Header.Get("Content-Security-Policy")
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), contentType) ||
			!strings.HasPrefix(policy, "default-src 'none'; script-src 'self'") || strings.Contains(policy, "unsafe") ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
	}
	if resp, err := http.Get(url + "/nothing"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
}

func TestTheStream(t *testing.T) {
	nasty := everyState()
	nasty.Servers[0].Endpoint.Instance = "a\n\ndata: forged\n" + hostile
	read := func(t *testing.T, watch page.Watch) (*http.Response, string) {
		t.Helper()
		resp, err := http.Get(serve(t, watch) + "/fleet")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		buf := make([]byte, 64<<10)
		for err == nil {
			var n int
			n, err = resp.Body.Read(buf)
			b.Write(buf[:n])
		}
		return resp, b.String()
	}
	leaving := func(ctx context.Context, show func(*statusv1.FleetResponse) error) error {
		if err := show(nasty); err != nil {
			return err
		}
		return errs.New(errs.CodeUnavailable, "this status replica is shutting down")
	}
	resp, got := read(t, leaving)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	events := strings.Split(strings.TrimSuffix(got, "\n\n"), "\n\n")
	if len(events) != 3 || events[0] != "retry: 2000" ||
		events[2] != "event: end\ndata: \"this status replica is shutting down\"" {
		t.Fatalf("%d events: %q", len(events), got)
	}
	var f snapshot.Fleet
	if err := json.Unmarshal([]byte(strings.TrimPrefix(events[1], "data: ")), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Servers) != 7 || f.Servers[0].Instance != nasty.GetServers()[0].GetEndpoint().GetInstance() ||
		f.Balance.State != "moving" || f.Servers[0].KeepAtMost != 11_700 || f.Servers[6].Load != nil {
		t.Errorf("%+v", f)
	}

	resp, got = read(t, func(context.Context, func(*statusv1.FleetResponse) error) error {
		return errs.New(errs.CodeExhausted, "the fleet has 256 watches already")
	})
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got, "256 watches") ||
		resp.Header.Get("Retry-After") == "" {
		t.Errorf("too many: %s %q", resp.Status, got)
	}
}
