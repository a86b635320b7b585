// Package process is what every service program is told about itself on the
// command line, and how a program is run.
package process

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
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

// Flags are the command-line flags of every service.
func Flags() []cli.Flag {
	const category = "Process"
	return []cli.Flag{
		&cli.StringFlag{Name: "instance", EnvVars: []string{"MSRCHAT_INSTANCE", "NOMAD_ALLOC_ID"}, Usage: "unique `ID` in the fleet (default: made up)", Category: category},
		&cli.StringFlag{Name: "release", Value: Version(), EnvVars: []string{"MSRCHAT_RELEASE"}, Usage: "`LABEL` of this deployment", Category: category},
		&cli.StringFlag{Name: "zone", EnvVars: []string{"MSRCHAT_ZONE"}, Usage: "`NAME` of the zone this runs in", Category: category},
		&cli.StringFlag{Name: "consul-addr", Value: "127.0.0.1:7701", EnvVars: []string{"MSRCHAT_CONSUL_ADDR"}, Usage: "`HOST:PORT` of this machine's Consul agent", Category: category},
		&cli.BoolFlag{Name: "register", EnvVars: []string{"MSRCHAT_REGISTER"}, Usage: "register in Consul (not under Nomad, which does it)", Category: category},
		&cli.StringFlag{Name: "log-level", Value: "info", EnvVars: []string{"MSRCHAT_LOG_LEVEL"}, Usage: "`LEVEL`: debug, info, warn or error", Category: category},
	}
}

// FromCLI reads the flags; an instance that was not given is made up.
func FromCLI(c *cli.Context) Config {
	cfg := Config{
		Instance: c.String("instance"), Release: c.String("release"), Zone: c.String("zone"),
		ConsulAddr: c.String("consul-addr"), Register: c.Bool("register"), LogLevel: c.String("log-level"),
	}
	if cfg.Instance == "" {
		cfg.Instance = madeUp(c.App.Name)
	}
	return cfg
}

func madeUp(program string) string {
	return program + "-" + strings.ToLower(rand.Text()[:10])
}

// Version is the build's version: the module version or the commit, "dev" where
// the build knows neither.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "dev"
}

// Run runs an app until it ends or the process is told to stop (SIGINT or
// SIGTERM end the app's context; a second one kills), and returns the exit code.
func Run(app *cli.App, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	app.ErrWriter = stderr
	app.ExitErrHandler = func(*cli.Context, error) {} // the code below reports
	if err := app.RunContext(ctx, args); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", app.Name, err)
		return 1
	}
	return 0
}
