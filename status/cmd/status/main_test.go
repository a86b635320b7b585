package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/golden"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/status"
)

// parsed is the configuration that flags come to.
func parsed(t *testing.T, args ...string) status.Config {
	t.Helper()
	var cfg status.Config
	app := &cli.App{Name: "status", Flags: serveFlags(), Action: func(c *cli.Context) (err error) {
		cfg, err = config(c)
		return err
	}}
	if err := app.RunContext(t.Context(), append([]string{"status"}, args...)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestFlagsDefaultToTheDefaults(t *testing.T) {
	got := parsed(t)
	ignored := cmpopts.IgnoreFields(status.Config{}, "Instance", "Release", "Catalog")
	if diff := cmp.Diff(status.Defaults(), got, ignored); diff != "" {
		t.Errorf("config (-defaults +flags):\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"NOMAD_ALLOC_ID": "alloc-7", "MSRCHAT_RELEASE": "r7", "MSRCHAT_HTTP_BIND": "127.0.0.1:1",
	} {
		t.Setenv(name, value)
	}
	want := status.Defaults()
	want.Instance, want.Release, want.Zone = "alloc-7", "r7", "east"
	want.Register = true
	want.GRPCBind, want.GRPCAdvertise = "127.0.0.1:2", "a:2"
	want.HealthBind, want.HealthAdvertise, want.HTTPBind = "127.0.0.1:3", "a:3", "127.0.0.1:1"
	got := parsed(t, "--zone", "east", "--consul-addr", "127.0.0.1:8500", "--register", "--grpc-bind", "127.0.0.1:2",
		"--grpc-advertise", "a:2", "--health-bind", "127.0.0.1:3", "--health-advertise", "a:3")
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(status.Config{}, "Catalog")); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if where := fmt.Sprint(got.Catalog); where != "Consul at 127.0.0.1:8500" {
		t.Errorf("catalog %q", where)
	}
}

// The help is what operators read first: a change of it must show in review.
func TestHelpGolden(t *testing.T) {
	t.Setenv("MSRCHAT_PORT_BASE", "") // decides the default of --consul-addr
	for file, args := range map[string][]string{
		"help": {}, "help-fleet": {"fleet"}, "help-explain": {"explain"},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append(append([]string{"status"}, args...), "--help"), &out, &errOut)
		if code != process.ExitOK {
			t.Fatalf("%v: exit %d, %s", args, code, &errOut)
		}
		help := strings.ReplaceAll(out.String(), process.Version(), "VERSION")
		golden.Compare(t, "testdata/"+file+".txt", []byte(help))
	}
}

func TestMistakesAreSaidAndCostNothing(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--nonsense"}, "nonsense"},
		{[]string{"nonsense"}, "unknown command"},
		{[]string{"--log-level", "loud"}, "loud"},
		{[]string{"--grpc-bind", "7700"}, "host:port"},
		{[]string{"--consul-addr", ""}, "consul-addr"},
		{[]string{"fleet", "chat-1"}, "no argument"},
		{[]string{"explain", "--zone", "east", "chat-1"}, "--zone"},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"status"}, c.args...), &out, &errOut)
		if code != process.ExitUsage || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%v: exit %d, %q; want %d and %q", c.args, code, &errOut, process.ExitUsage, c.says)
		}
	}
}
