package discovery_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/memory"
)

// What every catalog does, real Consul and the one in memory.
func TestCatalogs(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) discovery.Catalog{
		"consul": func(t *testing.T) discovery.Catalog {
			t.Helper()
			_, catalog := startConsul(t)
			return catalog
		},
		"memory": func(t *testing.T) discovery.Catalog {
			t.Helper()
			catalog := memory.New()
			t.Cleanup(catalog.Close)
			return catalog
		},
	} {
		for what, test := range map[string]func(*testing.T, discovery.Catalog){
			"processes are seen failing and gone":    seenFailingAndGone,
			"a registration is checked":              checksWhatItIsGiven,
			"http and tcp checks":                    checksHTTPAndTCP,
			"a new registration replaces the former": replaces,
			"a query waits for a change":             queryWaits,
			"a registration is listed as it is":      listedAsItIs,
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

func seenFailingAndGone(t *testing.T, catalog discovery.Catalog) {
	t.Helper()
	lists := watchReal(t, catalog, discovery.Options{EmptyAfter: time.Second})
	until(t, lists, "")
	one := start(t, catalog, "chat", "ONE")
	until(t, lists, "ONE")
	two := start(t, catalog, "chat", "TWO")
	until(t, lists, "ONETWO")
	one.health.Set(false)
	until(t, lists, "!ONETWO")
	one.health.Set(true)
	until(t, lists, "ONETWO")
	two.kill() // as kill -9 would, without deregistration
	until(t, lists, "ONE!TWO")
	if err := one.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, lists, "!TWO")
	if err := one.leave(t.Context()); err != nil {
		t.Errorf("leaving twice: %v", err)
	}
	if err := two.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, lists, "")
}

func checksWhatItIsGiven(t *testing.T, catalog discovery.Catalog) {
	t.Helper()
	good := discovery.Registration{
		Service: "chat", Instance: "ONE", Address: "127.0.0.1:7",
		Checks: []discovery.Check{{TCP: "127.0.0.1:7"}},
	}
	for _, c := range []struct {
		name  string
		spoil func(*discovery.Registration)
		want  string
	}{
		{"no service", func(r *discovery.Registration) { r.Service = "" }, "at least one check"},
		{"no instance", func(r *discovery.Registration) { r.Instance = "" }, "at least one check"},
		{"no check", func(r *discovery.Registration) { r.Checks = nil }, "at least one check"},
		{"no port", func(r *discovery.Registration) { r.Address = "127.0.0.1" }, "missing port"},
		{"a named port", func(r *discovery.Registration) { r.Address = "127.0.0.1:http" }, "numeric port"},
		{"port 0", func(r *discovery.Registration) { r.Address = "127.0.0.1:0" }, "numeric port"},
		{"no host", func(r *discovery.Registration) { r.Address = ":7" }, "host:port"},
		{"two kinds", func(r *discovery.Registration) {
			r.Checks = []discovery.Check{{Name: "both", TCP: "127.0.0.1:7", GRPC: "127.0.0.1:7"}}
		}, "exactly one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.spoil(&r)
			if _, err := catalog.Register(t.Context(), r); err == nil ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func checksHTTPAndTCP(t *testing.T, catalog discovery.Catalog) {
	t.Helper()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for id, check := range map[string]discovery.Check{
		"TCP":  {TCP: addr},
		"HTTP": {HTTP: "http://" + addr + "/"}, // answers 404
	} {
		leave, err := catalog.Register(t.Context(), discovery.Registration{
			Service: "chat", Instance: id, Address: addr, Checks: []discovery.Check{check},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = leave(context.WithoutCancel(t.Context())) }()
	}
	until(t, watchReal(t, catalog, discovery.Options{}), "!HTTPTCP")
}

// A process that starts again under its name, elsewhere, takes the place of the one
// before, and that one's end does not remove it.
func replaces(t *testing.T, catalog discovery.Catalog) {
	t.Helper()
	lists := watchReal(t, catalog, discovery.Options{})
	start(t, catalog, "chat", "ONE").kill()
	until(t, lists, "!ONE")
	again := start(t, catalog, "chat", "ONE")
	until(t, lists, "ONE")
	list, err := discovery.List(t.Context(), catalog, "chat")
	if err != nil || len(list) != 1 || list[0].Address != again.health.Addr() {
		t.Errorf("listed: %v, %v; want one at %s", list, err, again.health.Addr())
	}
}

func queryWaits(t *testing.T, catalog discovery.Catalog) {
	t.Helper()
	ask := func(after uint64, wait time.Duration) (string, uint64, time.Duration) {
		t.Helper()
		began := time.Now()
		list, index, err := catalog.Query(t.Context(), "chat", after, wait)
		if err != nil {
			t.Fatal(err)
		}
		return letters(list), index, time.Since(began)
	}
	got, index, _ := ask(0, time.Minute)
	if got != "" || index == 0 {
		t.Fatalf("at first: %q, index %d", got, index)
	}
	const pause = 300 * time.Millisecond
	waited := false
	for range 10 { // a young Consul counts its own changes too
		var took time.Duration
		_, index, took = ask(index, pause)
		waited = waited || took >= pause
	}
	if !waited {
		t.Errorf("nothing changed, and no answer took %v", pause)
	}
	p := start(t, catalog, "chat", "ONE")
	p.health.Set(false)
	time.AfterFunc(pause, func() { p.health.Set(true) })
	for began := time.Now(); got != "ONE"; {
		got, index, _ = ask(index, 10*time.Second)
		if time.Since(began) > 20*time.Second {
			t.Fatalf("last: %q", got)
		}
	}
	if _, _, took := ask(0, time.Minute); took > 10*time.Second {
		t.Errorf("at once took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pause)
	defer cancel()
	if _, _, err := catalog.Query(ctx, "chat", index, time.Minute); err == nil {
		t.Error("no error although the context ended")
	}
	if err := catalog.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func listedAsItIs(t *testing.T, catalog discovery.Catalog) {
	t.Helper()
	start(t, catalog, "status", "OTHER") // of another service: not listed
	p := start(t, catalog, "chat", "ONE")
	until(t, watchReal(t, catalog, discovery.Options{}), "ONE")
	list, err := discovery.List(t.Context(), catalog, "chat")
	if err != nil {
		t.Fatal(err)
	}
	want := []discovery.Instance{{
		ID: "ONE", Address: p.health.Addr(), Passing: true,
		Meta: map[string]string{discovery.MetaInstance: "ONE", discovery.MetaRelease: "v1"},
	}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}
}

// process stands in for one of our processes: gRPC health on a port.
type process struct {
	health *admin.HealthServer
	kill   func()
	leave  func(context.Context) error
}

func start(t *testing.T, catalog discovery.Catalog, service, instance string) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{health: admin.NewHealth(l)}
	p.health.Set(true)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.health.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	p.kill = func() { cancel(); <-ended }
	t.Cleanup(p.kill)
	p.leave, err = catalog.Register(ctx, discovery.Registration{
		Service: service, Instance: instance, Address: p.health.Addr(),
		Meta:   map[string]string{discovery.MetaRelease: "v1"},
		Checks: []discovery.Check{{Name: "health", GRPC: p.health.Addr()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// until reads lists until one is as wanted.
func until(t *testing.T, lists <-chan string, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case got := <-lists:
			if got == want {
				return
			}
			t.Logf("passed by: %q", got)
		case <-deadline:
			t.Fatalf("%q not seen", want)
		}
	}
}

func watchReal(t *testing.T, catalog discovery.Catalog, opts discovery.Options) <-chan string {
	t.Helper()
	lists := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = discovery.NewWatcher(catalog, "chat", opts).Run(ctx, func(list []discovery.Instance) {
			lists <- letters(list)
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return lists
}
