// Command gate is msrChat's HTTP service for accounts and assignments.
package main

import (
	"context"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/admin"
	"github.com/msrchat/msrchat/shared/process"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

const description = `Accounts, verification codes by e-mail, sessions, and the assignment of chat
servers, over HTTP. "gate openapi" prints the API's description.

It starts without MySQL, Redis, the mail server or the status servers and uses
them as soon as they answer: /readyz says what is missing, /metrics has the rest.

Secrets come from the environment or from files, never from flags:
MSRCHAT_MYSQL_PASSWORD, MSRCHAT_REDIS_PASSWORD, MSRCHAT_SMTP_USER,
MSRCHAT_SMTP_PASSWORD, MSRCHAT_CODE_SECRET.

On SIGTERM or Ctrl-C /readyz fails, requests in flight are answered, queued mail
is sent, and it exits with 0. A second signal ends it at once.`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return process.Run(ctx, &cli.App{
		Name: "gate", Usage: "serve msrChat's accounts and assignments over HTTP", Description: description,
		Writer: stdout, Version: process.Version(), Flags: flags(),
		Action: func(c *cli.Context) error { return serve(c.Context, c, stderr) },
		Commands: []*cli.Command{{
			Name: "openapi", Usage: "print the API's OpenAPI document (YAML) and exit",
			Action: func(*cli.Context) error {
				doc, err := gate.OpenAPI()
				if err != nil {
					return err
				}
				_, err = stdout.Write(doc)
				return err
			},
		}},
	}, args, stderr)
}

func serve(ctx context.Context, c *cli.Context, stderr io.Writer) error {
	log, err := admin.Logger(process.FromCLI(c).LogLevel, stderr)
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
	server, err := gate.New(cfg, log)
	if err != nil {
		return err
	}
	return server.Run(ctx)
}
