// Command status runs one replica of the status service and shows operators
// what a running one knows.
package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/status"
)

const description = `Follows the chat servers in Consul's catalog, takes their load reports, and
answers which one takes the next user. Any number of replicas may run; they
need not know of each other and keep nothing on disk.

Without Nomad, start it with --register and it appears in Consul by itself:

    status --register
    status fleet --watch
    status explain

Its HTTP port serves a live page of the fleet at /.

It leaves on SIGINT or SIGTERM: out of Consul first, then calls in flight are
finished. A second signal ends it at once.

The flags below may come from environment variables instead. Consul's own ones
apply as well (CONSUL_HTTP_TOKEN, CONSUL_CACERT, ...).

Exit codes: 0 ended well, 1 failed (the reason is on standard error), 2 wrong
flags or arguments.`

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	usage := func(_ *cli.Context, err error, _ bool) error { return process.Usage(err) }
	return process.Run(ctx, &cli.App{
		Name:        "status",
		Usage:       "sends msrChat's users to chat servers",
		Description: description,
		Version:     process.Version(),
		Writer:      stdout,
		Flags:       serveFlags(),
		Action:      func(c *cli.Context) error { return serve(c, stderr) },
		Commands:    []*cli.Command{fleetCommand(stdout, stderr, usage), explainCommand(stdout, usage)},
	}, args, stderr)
}

// env names a flag's environment variable.
func env(flag string) []string {
	return []string{"MSRCHAT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

func text(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func serveFlags() []cli.Flag {
	return append(process.Flags(),
		text("grpc-bind", "127.0.0.1:0", "`HOST:PORT` to serve gates and chat servers on; port 0 takes a free one"),
		text("grpc-advertise", "", "`HOST:PORT` where they reach it (default: as bound)"),
		text("health-bind", "127.0.0.1:0", "`HOST:PORT` to serve gRPC health checks on"),
		text("health-advertise", "", "`HOST:PORT` where Consul reaches it (default: as bound)"),
		text("http-bind", "127.0.0.1:0", "`HOST:PORT` to serve the live page, /healthz, /readyz and /metrics on"),
	)
}

func serve(c *cli.Context, logTo io.Writer) error {
	p := process.FromCLI(c)
	log, err := admin.Logger(p.LogLevel, logTo)
	if err != nil {
		return process.Usage(err)
	}
	cfg := status.Config{
		Instance: p.Instance, Release: p.Release, Zone: p.Zone, ConsulAddr: p.ConsulAddr, Register: p.Register,
		GRPCBind: c.String("grpc-bind"), GRPCAdvertise: c.String("grpc-advertise"),
		HealthBind: c.String("health-bind"), HealthAdvertise: c.String("health-advertise"),
		HTTPBind: c.String("http-bind"),
	}
	if err := cfg.Validate(); err != nil {
		return process.Usage(err)
	}
	server, err := status.New(cfg, log)
	if err != nil {
		return err
	}
	return server.Run(c.Context)
}
