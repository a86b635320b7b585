package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/golden"
	"github.com/msrchat/msrchat/shared/process"
)

// buffer is what a program printed; its mutex owns the bytes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// parsed is the configuration from the flags.
func parsed(t *testing.T, args ...string) (gate.Config, error) {
	t.Helper()
	var cfg gate.Config
	app := &cli.App{Name: "gate", Flags: flags(), Action: func(c *cli.Context) (err error) {
		cfg, err = config(c)
		return err
	}}
	err := app.RunContext(t.Context(), append([]string{"gate"}, args...))
	return cfg, err
}

var ignored = cmpopts.IgnoreFields(gate.Config{}, "Catalog", "Instance", "Release")

// The flags' defaults are those of the package, so that its golden file covers
// both.
func TestFlagsDefaultToTheDefaults(t *testing.T) {
	got, err := parsed(t)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(gate.Defaults(), got, ignored, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("config (-defaults +flags):\n%s", diff)
	}
	if got.Catalog == nil || !strings.HasPrefix(got.Instance, "gate-") || got.Release == "" {
		t.Errorf("catalog %v, instance %q, release %q", got.Catalog, got.Instance, got.Release)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("pepper\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"NOMAD_ALLOC_ID":           "alloc-7",
		"MSRCHAT_RELEASE":          "r7",
		"MSRCHAT_HTTP_BIND":        "127.0.0.1:1",
		"MSRCHAT_SMTP_USER":        "u",
		"MSRCHAT_SMTP_PASSWORD":    "p",
		"MSRCHAT_MYSQL_PASSWORD":   "m",
		"MSRCHAT_REDIS_PASSWORD":   "r",
		"MSRCHAT_CODE_SECRET":      "from the environment",
		"MSRCHAT_CODES_PER_CLIENT": "1000/1m",
		"MSRCHAT_REDIS_ADDR":       "a:1,b:2",
	} {
		t.Setenv(name, value)
	}
	got, err := parsed(t, "--zone", "east", "--http-bind", "127.0.0.1:2", "--http-advertise", "gate.example.org:80",
		"--admin-bind", "127.0.0.1:3", "--register", "--trusted-proxy", "10.1.2.3/8,fd00::/8", "--drain", "3s", "--code-secret-file", file,
		"--codes-per-address", "0", "--logins-per-account", "5/1h", "--passwords-at-once", "3", "--password-memory",
		"1024", "--smtp-tls", "tls", "--session-lifetime", "24h")
	if err != nil {
		t.Fatal(err)
	}
	want := gate.Defaults()
	want.Zone, want.Bind, want.Advertise, want.Register = "east", "127.0.0.1:2", "gate.example.org:80", true
	want.AdminBind = "127.0.0.1:3"
	want.Drain, want.Grace = 3*time.Second, want.Grace+3*time.Second
	want.MySQL.Password, want.Redis.Password, want.Redis.Addrs = "m", "r", []string{"a:1", "b:2"}
	want.SMTP.User, want.SMTP.Password, want.SMTP.TLS = "u", "p", "tls"
	want.Codes.Secret, want.Codes.PerAddress = []byte("pepper"), gate.Limit{}
	want.Codes.PerClient = gate.Limit{Count: 1000, Per: time.Minute}
	want.LogIns.PerAccount = gate.Limit{Count: 5, Per: time.Hour}
	want.Passwords.AtOnce, want.Passwords.MemoryKiB, want.SessionLifetime = 3, 1024, 24*time.Hour
	ignoreProxies := cmpopts.IgnoreFields(gate.Config{}, "TrustedProxies")
	if diff := cmp.Diff(want, got, ignored, ignoreProxies); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got.Instance != "alloc-7" || got.Release != "r7" || len(got.TrustedProxies) != 2 ||
		got.TrustedProxies[0].String() != "10.0.0.0/8" {
		t.Errorf("instance %q, release %q, proxies %v", got.Instance, got.Release, got.TrustedProxies)
	}
	// Limits are pointers: one parse must not change the defaults of the next.
	t.Setenv("MSRCHAT_TRUSTED_PROXY", "") // as the job has it
	again, err := parsed(t)
	if err != nil || again.Codes.PerAddress != gate.Defaults().Codes.PerAddress || len(again.TrustedProxies) != 0 {
		t.Errorf("parsed again: %v, %v, %v", again.Codes.PerAddress, again.TrustedProxies, err)
	}
}

func TestMistakesAreSaidAndCostNothing(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--nonsense"}, "nonsense"},
		{[]string{"nonsense"}, "unknown command"},
		{[]string{"--codes-per-address", "3"}, "3/10m"},
		{[]string{"--trusted-proxy", "10.0.0.1"}, "--trusted-proxy"},
		{[]string{"--log-level", "loud"}, "loud"},
		{[]string{"--http-bind", "7700"}, "host:port"},
		{[]string{"--smtp-tls", "maybe"}, "maybe"},
		{[]string{"--mysql-addr", ""}, "MySQL"},
		{[]string{"--redis-addr", "localhost"}, "Redis"},
		{[]string{"--code-secret-file", "/nowhere/at/all"}, "--code-secret-file"},
		{[]string{"--password-memory", "1"}, "memory"},
	} {
		var out, errOut buffer
		code := run(t.Context(), append([]string{"gate"}, c.args...), &out, &errOut)
		if code != process.ExitUsage || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%v: exit %d, %q; want %d and %q", c.args, code, errOut.String(), process.ExitUsage, c.says)
		}
	}
}

func TestHelpAndOpenAPI(t *testing.T) {
	t.Setenv("MSRCHAT_PORT_BASE", "") // decides the default of --consul-addr
	var out, errOut buffer
	if code := run(t.Context(), []string{"gate", "--help"}, &out, &errOut); code != process.ExitOK {
		t.Errorf("help: exit %d, %s", code, errOut.String())
	}
	help := strings.ReplaceAll(out.String(), process.Version(), "VERSION")
	golden.Compare(t, "testdata/help.txt", []byte(help))
	for _, secret := range []string{"MSRCHAT_MYSQL_PASSWORD", "MSRCHAT_SMTP_PASSWORD", "MSRCHAT_CODE_SECRET"} {
		if !strings.Contains(out.String(), secret) {
			t.Errorf("the help does not name %s", secret)
		}
	}
	out = buffer{}
	want, err := os.ReadFile("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if code := run(t.Context(), []string{"gate", "openapi"}, &out, &errOut); code != process.ExitOK ||
		out.String() != string(want) {
		t.Errorf("openapi: exit %d, %d bytes, want those of openapi.yaml", code, len(out.String()))
	}
}

var listening = regexp.MustCompile(`msg=listening .*http=(127\.0\.0\.1:[0-9]+)`)

// Without any of its dependencies the program starts, reports that, and stops.
func TestItStartsAloneAndStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errOut buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{
			"gate", "--http-bind", "127.0.0.1:0", "--mysql-addr", "127.0.0.1:1", "--redis-addr", "127.0.0.1:1",
			"--consul-addr", "127.0.0.1:1",
		}, &out, &errOut)
	}()
	addr := ""
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); addr == "" && time.Now().Before(deadline); <-tick.C {
		if m := listening.FindStringSubmatch(errOut.String()); m != nil {
			addr = m[1]
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/openapi.yaml": 200} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	cancel()
	select {
	case got := <-code:
		if got != process.ExitOK {
			t.Errorf("exit %d: %s", got, errOut.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it did not stop: %s", errOut.String())
	}
}
