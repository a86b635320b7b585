// Command chat is the chat server.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/process"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return process.Run(ctx, &cli.App{
		Name:    "chat",
		Usage:   "hold users' connections and deliver their messages",
		Version: process.Version(),
		Description: "SIGTERM drains: connections are asked, at the pace of --drain-rate, to go to another\n" +
			"server, messages under way are finished, then the process ends.",
		Writer: stdout,
		Flags:  flags(),
		Action: func(c *cli.Context) error { return serve(c, stderr) },
	}, args, stderr)
}

func flags() []cli.Flag {
	def := chat.Defaults()
	port := func(name string, at chat.Listener, usage string) []cli.Flag {
		bind, advertise := name+"-bind", name+"-advertise"
		return []cli.Flag{
			&cli.StringFlag{
				Name: bind, Value: at.Bind, EnvVars: process.Env(bind),
				Usage: "`HOST:PORT` " + usage, Category: "Ports",
			},
			&cli.StringFlag{
				Name: advertise, Value: at.Advertise, EnvVars: process.Env(advertise),
				Usage: "`HOST:PORT` under which others reach it (default: the bound one)", Category: "Ports",
			},
		}
	}
	return slices.Concat(
		process.Flags(),
		port("client", def.Client, "for users"),
		port("relay", def.Relay, "for other chat servers (gRPC)"),
		port("health", def.Health, "for health checks (grpc.health.v1)"),
		port("http", def.HTTP, "for /metrics, /healthz and /readyz"),
		[]cli.Flag{
			&cli.IntFlag{
				Name: "capacity", Value: def.Capacity, EnvVars: process.Env("capacity"),
				Usage: "admit at most this `NUMBER` of connections",
			},
			&cli.DurationFlag{
				Name: "heartbeat", Value: def.Heartbeat, EnvVars: process.Env("heartbeat"),
				Usage: "expect a frame from each client at least every `DURATION`",
			},
			&cli.DurationFlag{
				Name: "drain", Value: def.Drain, EnvVars: process.Env("drain"),
				Usage: "at a stop, have asked all connections to leave after this `DURATION`",
			},
			&cli.IntFlag{
				Name: "drain-rate", Value: def.DrainRate, EnvVars: process.Env("drain-rate"),
				Usage: "until then, ask at most this `NUMBER` of connections a second, all servers that leave together",
			},
			&cli.BoolFlag{
				Name: "profile", EnvVars: process.Env("profile"),
				Usage: "serve Go's profiles on the HTTP port, under /debug/pprof, for operators to see what takes time",
			},
			&cli.StringFlag{
				Name: "tls-server-name", EnvVars: process.Env("tls-server-name"),
				Usage: "`NAME` that clients verify; without a certificate here, a proxy in front speaks TLS",
			},
			&cli.StringFlag{
				Name: "tls-cert", EnvVars: process.Env("tls-cert"),
				Usage: "`FILE` with the certificate for clients and its chain, in PEM; read anew when it is replaced",
			},
			&cli.StringFlag{
				Name: "tls-key", EnvVars: process.Env("tls-key"),
				Usage: "`FILE` with the certificate's private key, in PEM",
			},
		},
		database.Flags(),
		cache.Flags(),
	)
}

// config reads the flags and the secrets.
func config(c *cli.Context) (cfg chat.Config, err error) {
	cfg = chat.Defaults()
	p := process.FromCLI(c)
	cfg.Instance, cfg.Release, cfg.Zone = p.Instance, p.Release, p.Zone
	cfg.Register = p.Register
	if cfg.Catalog, err = consul.New(p.ConsulAddr); err != nil {
		return cfg, err
	}
	for name, into := range map[string]*chat.Listener{
		"client": &cfg.Client, "relay": &cfg.Relay, "health": &cfg.Health, "http": &cfg.HTTP,
	} {
		into.Bind, into.Advertise = c.String(name+"-bind"), c.String(name+"-advertise")
	}
	cfg.Capacity, cfg.Heartbeat = c.Int("capacity"), c.Duration("heartbeat")
	cfg.Drain, cfg.DrainRate = c.Duration("drain"), c.Int("drain-rate")
	cfg.TLSServerName, cfg.Profile = c.String("tls-server-name"), c.Bool("profile")
	cfg.Certificate = certificate.Files{Cert: c.String("tls-cert"), Key: c.String("tls-key")}
	if cfg.Database, err = database.FromCLI(c); err != nil {
		return cfg, err
	}
	cfg.Redis, err = cache.FromCLI(c)
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
	s, err := chat.New(cfg, log)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return s.Run(c.Context)
}
