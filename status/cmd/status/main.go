// Command status runs one replica of the status service, or shows operators
// what a running replica knows.
package main

import (
	"context"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/status"
)

const description = `Watches the chat servers in Consul's catalog, takes their load reports, and
assigns a server to each user. Any number of replicas may run; they are
independent of each other and keep nothing on disk.

Without Nomad, start it with --register, and it registers itself in Consul:

    status --register
    status fleet --watch
    status explain

Its HTTP port serves a live page of the fleet at /.

On SIGINT or SIGTERM it deregisters, finishes the calls in flight, and ends. A
second signal ends it at once.

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
		Usage:       "assign msrChat's users to chat servers",
		Description: description,
		Version:     process.Version(),
		Writer:      stdout,
		Flags:       serveFlags(),
		Action:      func(c *cli.Context) error { return serve(c, stderr) },
		Commands:    []*cli.Command{fleetCommand(stdout, stderr, usage), explainCommand(stdout, usage)},
	}, args, stderr)
}

func serveFlags() []cli.Flag {
	def := status.Defaults()
	address := func(name, value, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Value: value, EnvVars: process.Env(name), Usage: usage, Category: "Ports"}
	}
	return append(process.Flags(),
		address("grpc-bind", def.GRPCBind,
			"`HOST:PORT` to serve gates and chat servers on; port 0 takes a free one"),
		address("grpc-advertise", def.GRPCAdvertise, "`HOST:PORT` where they reach it (default: as bound)"),
		address("health-bind", def.HealthBind, "`HOST:PORT` to serve gRPC health checks on"),
		address("health-advertise", def.HealthAdvertise, "`HOST:PORT` where Consul reaches it (default: as bound)"),
		address("http-bind", def.HTTPBind,
			"`HOST:PORT` to serve the live page, /healthz, /readyz and /metrics on"),
	)
}

// config reads the flags.
func config(c *cli.Context) (cfg status.Config, err error) {
	cfg = status.Defaults()
	p := process.FromCLI(c)
	cfg.Instance, cfg.Release, cfg.Zone = p.Instance, p.Release, p.Zone
	cfg.Register = p.Register
	cfg.GRPCBind, cfg.GRPCAdvertise = c.String("grpc-bind"), c.String("grpc-advertise")
	cfg.HealthBind, cfg.HealthAdvertise = c.String("health-bind"), c.String("health-advertise")
	cfg.HTTPBind = c.String("http-bind")
	cfg.Catalog, err = consul.New(p.ConsulAddr)
	return cfg, err
}

func serve(c *cli.Context, logTo io.Writer) error {
	log, err := admin.Logger(process.FromCLI(c).LogLevel, logTo)
	if err != nil {
		return process.Usage(err)
	}
	cfg, err := config(c)
	if err != nil {
		return process.Usage(err)
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
