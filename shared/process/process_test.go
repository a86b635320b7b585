package process_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
)

func parse(t *testing.T, args ...string) process.Config {
	t.Helper()
	var cfg process.Config
	app := &cli.App{Name: "prog", Flags: process.Flags(), Action: func(c *cli.Context) error {
		cfg = process.FromCLI(c)
		return nil
	}}
	var stderr bytes.Buffer
	if code := process.Run(t.Context(), app, append([]string{"prog"}, args...), &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	return cfg
}

func TestDefaults(t *testing.T) {
	t.Setenv("NOMAD_ALLOC_ID", "")
	a, b := parse(t), parse(t)
	if !strings.HasPrefix(a.Instance, "prog-") || a.Instance == b.Instance {
		t.Errorf("random instances %q and %q", a.Instance, b.Instance)
	}
	if a.ConsulAddr != "127.0.0.1:7701" || a.Register || a.LogLevel != "info" || a.Release == "" {
		t.Errorf("defaults %+v", a)
	}
	t.Setenv("NOMAD_ALLOC_ID", "alloc")
	if got := parse(t, "--zone", "z", "--register").Instance; got != "alloc" {
		t.Errorf("under Nomad the instance is %q", got)
	}
}

func TestAnErrorIsReportedOnce(t *testing.T) {
	var stderr bytes.Buffer
	app := &cli.App{Name: "prog", Action: func(*cli.Context) error { return errors.New("no luck") }}
	if code := process.Run(t.Context(), app, []string{"prog"}, &stderr); code != process.ExitFailed ||
		stderr.String() != "prog: no luck\n" {
		t.Errorf("exit %d, %q", code, stderr.String())
	}
}

func TestWrongUsageHasItsOwnCode(t *testing.T) {
	for _, args := range [][]string{{"prog", "--nonsense"}, {"prog", "nonsense"}} {
		var stderr bytes.Buffer
		app := &cli.App{Name: "prog", Writer: io.Discard, Action: func(*cli.Context) error { return nil }}
		if code := process.Run(t.Context(), app, args, &stderr); code != process.ExitUsage ||
			!strings.Contains(stderr.String(), "--help") {
			t.Errorf("%v: exit %d, %q", args, code, &stderr)
		}
	}
}

func TestThePortBaseMovesConsul(t *testing.T) {
	t.Setenv("MSRCHAT_PORT_BASE", "8700")
	if got := parse(t).ConsulAddr; got != "127.0.0.1:8701" {
		t.Errorf("Consul at %s", got)
	}
}
