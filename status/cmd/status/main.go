// Command status runs one replica of the status service and shows operators
// what a running one knows.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/status"
)

// Exit codes, in the help text too.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// consulPort is Consul's place above MSRCHAT_PORT_BASE.
const consulPort, defaultPortBase = 1, 7700

const description = `Follows the chat servers in Consul's catalog, takes their load reports, and
answers which one takes the next user. Any number of replicas may run; they
need not know of each other and keep nothing on disk.

Without Nomad, start it with --register and it appears in Consul by itself:

    status --register
    status fleet

It leaves on SIGINT or SIGTERM: out of Consul first, then calls in flight are
finished. A second signal ends it at once.

The flags below may come from environment variables instead. Consul's own ones
apply as well (CONSUL_HTTP_TOKEN, CONSUL_CACERT, ...).

Exit codes: 0 ended well, 1 failed (the reason is on standard error), 2 wrong
flags or arguments.`

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal has its usual effect

	usage := func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	app := &cli.App{
		Name:            "status",
		Usage:           "sends msrChat's users to chat servers",
		Description:     description,
		Version:         admin.Version(),
		Writer:          stdout,
		ErrWriter:       stderr,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {}, // run is the only exit
		OnUsageError:    usage,
		Flags:           serveFlags(),
		Action:          func(c *cli.Context) error { return serve(c, stderr) },
		Commands:        []*cli.Command{fleetCommand(stdout, usage)},
	}
	err := app.RunContext(ctx, args)
	var wrong usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "status: %v\nTry 'status --help'.\n", err)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "status: %v\n", err)
		return exitFailed
	}
}

// env names a flag's environment variable.
func env(flag string) []string {
	return []string{"MSRCHAT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

func text(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func serveFlags() []cli.Flag {
	instance := text("instance", "", "unique `NAME` of this process (default: $NOMAD_ALLOC_ID, else random)")
	instance.EnvVars = append(instance.EnvVars, "NOMAD_ALLOC_ID")
	return []cli.Flag{
		text("consul-addr", net.JoinHostPort("127.0.0.1", strconv.Itoa(portBase()+consulPort)), "`HOST:PORT` of the Consul agent's HTTP API"),
		instance,
		text("release", admin.Version(), "`LABEL` of this build or deployment"),
		text("zone", "", "`NAME` of the zone this process runs in"),
		text("grpc-bind", "127.0.0.1:0", "`HOST:PORT` to serve gates and chat servers on; port 0 takes a free one"),
		text("grpc-advertise", "", "`HOST:PORT` where they reach it (default: as bound)"),
		text("health-bind", "127.0.0.1:0", "`HOST:PORT` to serve gRPC health checks on"),
		text("health-advertise", "", "`HOST:PORT` where Consul reaches it (default: as bound)"),
		text("http-bind", "127.0.0.1:0", "`HOST:PORT` to serve /healthz, /readyz and /metrics on"),
		&cli.BoolFlag{Name: "register", Usage: "register in Consul; leave it off under Nomad, which does that", EnvVars: env("register")},
		text("log-level", "info", "`LEVEL` from which on to log: debug, info, warn or error"),
	}
}

// portBase is where the local fleet's ports start; one variable moves all.
func portBase() int {
	if n, err := strconv.Atoi(os.Getenv("MSRCHAT_PORT_BASE")); err == nil && n > 0 && n < 65000 {
		return n
	}
	return defaultPortBase
}

func serve(c *cli.Context, logTo io.Writer) error {
	if c.Args().Present() {
		return usageError{fmt.Errorf("unknown command %q", c.Args().First())}
	}
	log, err := admin.Logger(c.String("log-level"), logTo)
	if err != nil {
		return usageError{err}
	}
	cfg := status.Config{
		Instance: c.String("instance"), Release: c.String("release"), Zone: c.String("zone"),
		GRPCBind: c.String("grpc-bind"), GRPCAdvertise: c.String("grpc-advertise"),
		HealthBind: c.String("health-bind"), HealthAdvertise: c.String("health-advertise"),
		HTTPBind: c.String("http-bind"), ConsulAddr: c.String("consul-addr"), Register: c.Bool("register"),
	}
	if cfg.Instance == "" {
		cfg.Instance = "status-" + strings.ToLower(rand.Text()[:10])
	}
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	server, err := status.New(cfg, log)
	if err != nil {
		return err
	}
	return server.Run(c.Context)
}
