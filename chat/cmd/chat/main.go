// Command chat is the chat server.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/process"
)

func main() {
	os.Exit(process.Run(context.Background(), app(), os.Args, os.Stderr))
}

func app() *cli.App {
	return &cli.App{
		Name:    "chat",
		Usage:   "hold users' connections and deliver their messages",
		Version: process.Version(),
		Description: "SIGTERM drains: connections are asked, at the pace of --drain-rate, to go to another\n" +
			"server, messages under way are finished, then the process ends.",
		Flags:  append(append(append(process.Flags(), flags()...), database.Flags()...), cache.Flags()...),
		Action: serve,
	}
}

func flags() []cli.Flag {
	port := func(name, usage string) []cli.Flag {
		env := strings.ToUpper(name)
		return []cli.Flag{
			&cli.StringFlag{
				Name:     name + "-bind",
				Value:    "127.0.0.1:0",
				EnvVars:  []string{"MSRCHAT_" + env + "_BIND"},
				Usage:    "`HOST:PORT` " + usage,
				Category: "Ports",
			},
			&cli.StringFlag{
				Name:     name + "-advertise",
				EnvVars:  []string{"MSRCHAT_" + env + "_ADVERTISE"},
				Usage:    "`HOST:PORT` under which others reach it (default: the bound one)",
				Category: "Ports",
			},
		}
	}
	out := port("client", "for users")
	out = append(out, port("relay", "for other chat servers (gRPC)")...)
	out = append(out, port("health", "for health checks (grpc.health.v1)")...)
	out = append(out, port("http", "for /metrics, /healthz and /readyz")...)
	return append(out,
		&cli.IntFlag{
			Name:    "capacity",
			Value:   chat.DefaultCapacity,
			EnvVars: []string{"MSRCHAT_CAPACITY"},
			Usage:   "admit at most this `NUMBER` of connections",
		},
		&cli.DurationFlag{
			Name:    "heartbeat",
			Value:   chat.DefaultHeartbeat,
			EnvVars: []string{"MSRCHAT_HEARTBEAT"},
			Usage:   "expect a frame from each client at least every `DURATION`",
		},
		&cli.DurationFlag{
			Name:    "drain",
			Value:   chat.DefaultDrain,
			EnvVars: []string{"MSRCHAT_DRAIN"},
			Usage:   "at a stop, have asked all connections to leave after this `DURATION`",
		},
		&cli.IntFlag{
			Name:    "drain-rate",
			Value:   chat.DefaultDrainRate,
			EnvVars: []string{"MSRCHAT_DRAIN_RATE"},
			Usage:   "until then, ask at most this `NUMBER` of connections a second, all servers that leave together",
		},
		&cli.BoolFlag{
			Name:    "profile",
			EnvVars: []string{"MSRCHAT_PROFILE"},
			Usage:   "serve Go's profiles on the HTTP port, under /debug/pprof, for operators to see what takes time",
		},
		&cli.StringFlag{
			Name:    "tls-server-name",
			EnvVars: []string{"MSRCHAT_TLS_SERVER_NAME"},
			Usage:   "`NAME` that clients verify, if a proxy in front speaks TLS",
		},
	)
}

func serve(c *cli.Context) error {
	p := process.FromCLI(c)
	log, err := admin.Logger(p.LogLevel, os.Stderr)
	if err != nil {
		return process.Usage(err)
	}
	db, err := database.FromCLI(c)
	if err != nil {
		return process.Usage(err)
	}
	redis, err := cache.FromCLI(c)
	if err != nil {
		return process.Usage(err)
	}
	listener := func(name string) chat.Listener {
		return chat.Listener{Bind: c.String(name + "-bind"), Advertise: c.String(name + "-advertise")}
	}
	s, err := chat.New(chat.Config{
		Instance:      p.Instance,
		Release:       p.Release,
		Zone:          p.Zone,
		ConsulAddr:    p.ConsulAddr,
		Register:      p.Register,
		Client:        listener("client"),
		Relay:         listener("relay"),
		Health:        listener("health"),
		HTTP:          listener("http"),
		Database:      db,
		Redis:         redis,
		Capacity:      c.Int("capacity"),
		Heartbeat:     c.Duration("heartbeat"),
		Drain:         c.Duration("drain"),
		DrainRate:     c.Int("drain-rate"),
		TLSServerName: c.String("tls-server-name"),
		Profile:       c.Bool("profile"),
	}, log)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return s.Run(c.Context)
}
