package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/shared/golden"
	"github.com/msrchat/msrchat/shared/process"
)

// parsed is the configuration from the flags.
func parsed(t *testing.T, args ...string) chat.Config {
	t.Helper()
	var cfg chat.Config
	app := &cli.App{Name: "chat", Flags: flags(), Action: func(c *cli.Context) (err error) {
		cfg, err = config(c)
		return err
	}}
	if err := app.RunContext(t.Context(), append([]string{"chat"}, args...)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The flags' defaults are those of the package, so that its golden file covers
// both.
func TestFlagsDefaultToTheDefaults(t *testing.T) {
	got := parsed(t)
	ignored := cmpopts.IgnoreFields(chat.Config{}, "Instance", "Release", "Catalog", "Hooks")
	if diff := cmp.Diff(chat.Defaults(), got, ignored); diff != "" {
		t.Errorf("config (-defaults +flags):\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"NOMAD_ALLOC_ID":          "alloc-7",
		"MSRCHAT_RELEASE":         "r7",
		"MSRCHAT_CLIENT_BIND":     "127.0.0.1:1",
		"MSRCHAT_RELAY_ADVERTISE": "a:2",
		"MSRCHAT_DRAIN_RATE":      "7",
		"MSRCHAT_TLS_SERVER_NAME": "chat.example.org",
		"MSRCHAT_MYSQL_PASSWORD":  "m",
	} {
		t.Setenv(name, value)
	}
	want := chat.Defaults()
	want.Instance, want.Release, want.Zone = "alloc-7", "r7", "east"
	want.Register = true
	want.Client.Bind, want.Relay.Advertise = "127.0.0.1:1", "a:2"
	want.Health.Bind, want.HTTP.Bind = "127.0.0.1:3", "127.0.0.1:4"
	want.Capacity, want.Heartbeat = 100, 5*time.Second
	want.Drain, want.DrainRate = time.Minute, 7
	want.TLSServerName, want.Profile = "chat.example.org", true
	want.Database.Password = "m"
	got := parsed(t, "--zone", "east", "--consul-addr", "127.0.0.1:8500", "--register", "--health-bind", "127.0.0.1:3",
		"--http-bind", "127.0.0.1:4", "--capacity", "100", "--heartbeat", "5s", "--drain", "1m", "--profile")
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(chat.Config{}, "Catalog", "Hooks")); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if where := fmt.Sprint(got.Catalog); where != "Consul at 127.0.0.1:8500" {
		t.Errorf("catalog %q", where)
	}
}

func TestHelpGolden(t *testing.T) {
	t.Setenv("MSRCHAT_PORT_BASE", "") // decides the default of --consul-addr
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"chat", "--help"}, &out, &errOut); code != process.ExitOK {
		t.Fatalf("exit %d, %s", code, &errOut)
	}
	help := strings.ReplaceAll(out.String(), process.Version(), "VERSION")
	golden.Compare(t, "testdata/help.txt", []byte(help))
}

func TestMistakesAreUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--nonsense"}, "nonsense"},
		{[]string{"--log-level", "loud"}, "loud"},
		{[]string{"--heartbeat", "1ms"}, "heartbeat"},
		{[]string{"--capacity", "-1"}, "capacity"},
		{[]string{"--client-bind", ""}, "client"},
		{[]string{"--mysql-addr", ""}, "MySQL"},
		{[]string{"--redis-addr", "localhost"}, "Redis"},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"chat"}, c.args...), &out, &errOut)
		if code != process.ExitUsage || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%v: exit %d, %q; want %d and %q", c.args, code, errOut.String(), process.ExitUsage, c.says)
		}
	}
}
