package gate_test

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/gate"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/golden"
)

// A changed default must show in review.
func TestDefaultsGolden(t *testing.T) {
	cfg := gate.Defaults()
	cfg.Passwords.AtOnce = 0 // the machine's
	got, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/defaults.json", append(got, '\n'))
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	good := gate.Defaults()
	good.Instance, good.StatusTarget = "gate-1", "passthrough:///127.0.0.1:1"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*gate.Config)
		says   string
	}{
		{func(c *gate.Config) { c.Instance = "" }, "--instance"},
		{func(c *gate.Config) { c.Bind = "7700" }, "host:port"},
		{func(c *gate.Config) { c.Advertise = "example.org" }, "advertised"},
		{func(c *gate.Config) { c.StatusTarget = "" }, "--consul-addr"},
		{func(c *gate.Config) { c.Register = true }, "--consul-addr"},
		{func(c *gate.Config) { c.MySQL.Addr = "" }, "MySQL"},
		{func(c *gate.Config) { c.Redis.Addrs = nil }, "Redis"},
		{func(c *gate.Config) { c.SMTP.Addr = "mail" }, "SMTP address"},
		{func(c *gate.Config) { c.SMTP.From = "us" }, "SMTP sender"},
		{func(c *gate.Config) { c.SMTP.TLS = "maybe" }, "SMTP TLS"},
		{func(c *gate.Config) { c.SMTP.Queue = 0 }, "mail queue"},
		{func(c *gate.Config) { c.SMTP.LastRetry = time.Millisecond }, "growing"},
		{func(c *gate.Config) { c.HTTP.BodyTimeout = 0 }, "HTTP body timeout"},
		{func(c *gate.Config) { c.HTTP.MaxHeaderBytes = 10 }, "header"},
		{func(c *gate.Config) { c.Codes.Tries = 1000 }, "tries"},
		{func(c *gate.Config) { c.Codes.Pause = -1 }, "pause"},
		{func(c *gate.Config) { c.Codes.PerAddress = gate.Limit{Count: 5} }, "codes per address"},
		{func(c *gate.Config) { c.LogIns.PerClient = gate.Limit{Count: -5, Per: time.Hour} }, "log-ins per client"},
		{func(c *gate.Config) { c.Passwords.MemoryKiB = 1 }, "memory"},
		{func(c *gate.Config) { c.Passwords.Lanes = 1000 }, "lanes"},
		{func(c *gate.Config) { c.Passwords.AtOnce = 0 }, "at once"},
		{func(c *gate.Config) { c.SessionLifetime = -time.Hour }, "session lifetime"},
		{func(c *gate.Config) { c.Drain = time.Hour }, "drain"},
	} {
		bad := good
		c.change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want a complaint with %q, got %v", c.says, err)
		}
	}
}

// Mail is sent without TLS only on this machine, unless that was configured.
func TestTheSMTPModeFollowsTheAddress(t *testing.T) {
	cfg := gate.Defaults()
	cfg.Instance, cfg.StatusTarget = "gate-1", "passthrough:///127.0.0.1:1"
	for addr, want := range map[string]string{
		"127.0.0.1:25": "none", "[::1]:25": "none", "localhost:25": "none",
		"10.0.0.1:25": "starttls", "mail.example.org:25": "starttls", "localhost.example.org:25": "starttls",
	} {
		cfg.SMTP.Addr = addr
		if got := gate.SMTPMode(cfg); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	cfg.SMTP.TLS = "tls"
	if got := gate.SMTPMode(cfg); got != "tls" {
		t.Errorf("asked for tls, got %s", got)
	}
}

func TestParseLimit(t *testing.T) {
	for in, want := range map[string]gate.Limit{
		"0":       {},
		"3/10m":   {Count: 3, Per: 10 * time.Minute},
		"10/24h":  {Count: 10, Per: 24 * time.Hour},
		"1/1h30m": {Count: 1, Per: 90 * time.Minute},
		"5/90s":   {Count: 5, Per: 90 * time.Second},
		"1/500ms": {Count: 1, Per: 500 * time.Millisecond},
	} {
		got, err := gate.ParseLimit(in)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "3", "3/", "/10m", "x/10m", "3/10", "-1/10m", "3/-10m", "3/0s", "3/10m/2", "99999999999/1s", "1/999999h",
		"3 / 10m",
	} {
		if got, err := gate.ParseLimit(in); err == nil {
			t.Errorf("%q was taken as %v", in, got)
		}
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"0", "3/10m", "1/1h0m0s", "-0/1s", "1/1.5h", "1/1us"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := gate.ParseLimit(s)
		if err != nil {
			return
		}
		back, err := gate.ParseLimit(l.String())
		if err != nil || back != l && l.Count != 0 {
			t.Errorf("%q is %+v, written %s, read %+v (%v)", s, l, l, back, err)
		}
	})
}

func splitPort(t *testing.T, addr string) (host string, port int) {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return host, port
}

func anEndpoint() *chatv1.Endpoint {
	return &chatv1.Endpoint{Instance: "chat-1", Address: "127.0.0.1:7801"}
}
