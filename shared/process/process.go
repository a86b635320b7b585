// Package process has the flags that every service program shares, and runs a
// program.
package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Config is a process's place in the fleet.
type Config struct {
	// Instance is unique in the fleet, Release the label of this build or
	// deployment, Zone where the process runs.
	Instance, Release, Zone string
	ConsulAddr              string
	// Register registers the process in Consul; off under Nomad, which does it.
	Register bool
	LogLevel string
}

// Env names the environment variable of a flag.
func Env(flag string) []string {
	return []string{"MSRCHAT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

// Flags are the command-line flags of every service.
func Flags() []cli.Flag {
	const category = "Process"
	return []cli.Flag{
		&cli.StringFlag{
			Name: "instance", EnvVars: append(Env("instance"), "NOMAD_ALLOC_ID"),
			Usage: "unique `ID` in the fleet (default: a random one)", Category: category,
		},
		&cli.StringFlag{
			Name: "release", Value: Version(), EnvVars: Env("release"),
			Usage: "`LABEL` of this deployment", Category: category,
		},
		&cli.StringFlag{
			Name: "zone", EnvVars: Env("zone"),
			Usage: "`NAME` of the zone this runs in", Category: category,
		},
		&cli.StringFlag{
			Name: "consul-addr", Value: consulAddr(), EnvVars: Env("consul-addr"),
			Usage: "`HOST:PORT` of this machine's Consul agent", Category: category,
		},
		&cli.BoolFlag{
			Name: "register", EnvVars: Env("register"),
			Usage: "register in Consul (not under Nomad, which does it)", Category: category,
		},
		&cli.StringFlag{
			Name: "log-level", Value: "info", EnvVars: Env("log-level"),
			Usage: "`LEVEL`: debug, info, warn or error", Category: category,
		},
	}
}

// The local fleet's ports follow from a base; Consul's is the next one.
const (
	portBaseEnv     = "MSRCHAT_PORT_BASE"
	defaultPortBase = 7700
	consulPort      = 1
)

func consulAddr() string {
	base := defaultPortBase
	if n, err := strconv.Atoi(os.Getenv(portBaseEnv)); err == nil && n > 0 && n < 65000 {
		base = n
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+consulPort))
}

// FromCLI reads the flags; without an instance it makes one up.
func FromCLI(c *cli.Context) Config {
	cfg := Config{
		Instance: c.String("instance"), Release: c.String("release"), Zone: c.String("zone"),
		ConsulAddr: c.String("consul-addr"), Register: c.Bool("register"), LogLevel: c.String("log-level"),
	}
	if cfg.Instance == "" {
		cfg.Instance = c.App.Name + "-" + strings.ToLower(rand.Text()[:10])
	}
	return cfg
}

// Version is what this program was built from: its module's version, else the
// revision of the sources, else "dev".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := "dev", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return revision + dirty
}

// Exit codes of every service program.
const (
	ExitOK     = 0
	ExitFailed = 1 // it ran and failed; the reason is on standard error
	ExitUsage  = 2 // wrong flags, arguments or settings
)

// usageError is a mistake of the program's caller.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as a mistake in flags, arguments or settings. Usage(nil)
// is nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Run runs an app until it ends, ctx ends, or the process gets SIGINT or SIGTERM,
// which end the app's context; a second signal kills the process. It reports an
// error once and returns the exit code.
func Run(ctx context.Context, app *cli.App, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	app.ErrWriter = stderr
	app.HideHelpCommand = true
	app.ExitErrHandler = func(*cli.Context, error) {} // the code below reports
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return Usage(err) }
	if app.Before == nil {
		app.Before = func(c *cli.Context) error {
			if name := c.Args().First(); name != "" && app.Command(name) == nil {
				return Usage(fmt.Errorf("unknown command %q", name))
			}
			return nil
		}
	}
	err := app.RunContext(ctx, args)
	var wrong usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "%s: %v\nTry '%s --help'.\n", app.Name, err, app.Name)
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", app.Name, err)
	return ExitFailed
}
