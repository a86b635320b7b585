// Command probe watches one chat server: whether what is acknowledged is in the
// log and delivered.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/probe"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/process"
)

func main() {
	os.Exit(process.Run(context.Background(), app(), os.Args, os.Stderr))
}

func app() *cli.App {
	return &cli.App{
		Name: "probe", Usage: "check that a chat server loses no message", Version: process.Version(),
		Description: "It runs beside a chat server and takes its --instance and --release. Accounts of its\n" +
			"own write to each other through this server and every other one, first a few thousand\n" +
			"messages as a proof, then a trickle. /readyz answers 503 for good once a promise was\n" +
			"broken, 429 (a warning to Consul) until the proof is complete and after failures that\n" +
			"break none, otherwise 200.",
		Flags:  append(append(process.Flags(), flags()...), database.Flags()...),
		Action: watch,
	}
}

func flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "chat-addr", EnvVars: []string{"MSRCHAT_CHAT_ADDR"},
			Usage: "`HOST:PORT` for users of the chat server to watch",
		},
		&cli.StringFlag{
			Name: "tls-server-name", EnvVars: []string{"MSRCHAT_TLS_SERVER_NAME"},
			Usage: "`NAME` in the chat server's certificate, if it speaks TLS",
		},
		&cli.StringFlag{
			Name: "tls-ca", EnvVars: []string{"MSRCHAT_TLS_CA"},
			Usage: "`FILE` with the authorities to trust, in PEM (default: the system's)",
		},
		&cli.StringFlag{
			Name: "http-bind", Value: "127.0.0.1:0", EnvVars: []string{"MSRCHAT_HTTP_BIND"},
			Usage: "`HOST:PORT` for /readyz, /healthz and /metrics",
		},
		&cli.IntFlag{
			Name: "slot", EnvVars: []string{"MSRCHAT_PROBE_SLOT", "NOMAD_ALLOC_INDEX"},
			Usage: "`NUMBER` of the set of accounts to use, a different one for each chat server",
		},
		&cli.IntFlag{
			Name: "messages", Value: probe.DefaultMessages, EnvVars: []string{"MSRCHAT_PROBE_MESSAGES"},
			Usage: "prove with this `NUMBER` of messages",
		},
		&cli.IntFlag{
			Name: "rate", Value: probe.DefaultRate, EnvVars: []string{"MSRCHAT_PROBE_RATE"},
			Usage: "`NUMBER` of messages a second of all probes of the fleet in their proofs",
		},
		&cli.DurationFlag{
			Name: "every", Value: probe.DefaultEvery, EnvVars: []string{"MSRCHAT_PROBE_EVERY"},
			Usage: "`DURATION` between two messages after the proof",
		},
	}
}

func watch(c *cli.Context) error {
	own := process.FromCLI(c)
	log, err := admin.Logger(own.LogLevel, os.Stderr)
	if err != nil {
		return process.Usage(err)
	}
	db, err := database.FromCLI(c)
	if err != nil {
		return process.Usage(err)
	}
	roots, err := certificate.Roots(c.String("tls-ca"))
	if err != nil {
		return process.Usage(err)
	}
	p, err := probe.New(probe.Config{
		Instance: own.Instance, Release: own.Release, Home: c.String("chat-addr"), Slot: c.Int("slot"),
		HTTPBind: c.String("http-bind"), ConsulAddr: own.ConsulAddr, Register: own.Register, Database: db,
		TLSServerName: c.String("tls-server-name"), Roots: roots,
		Messages: c.Int("messages"), Rate: c.Int("rate"), Every: c.Duration("every"),
	}, log)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return p.Run(c.Context)
}
