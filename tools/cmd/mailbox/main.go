// Command mailbox is the catch-all mail server of the local fleet.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/tools/mailbox"
)

func main() {
	os.Exit(run(context.Background(), os.Args))
}

func run(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name:            "mailbox",
		Usage:           "accept all mail over SMTP, deliver none, show it over HTTP",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "smtp-bind", EnvVars: []string{"MSRCHAT_SMTP_BIND"}, Value: "127.0.0.1:7725",
				Usage: "`HOST:PORT` that accepts mail",
			},
			&cli.StringFlag{
				Name: "http-bind", EnvVars: []string{"MSRCHAT_HTTP_BIND"}, Value: "127.0.0.1:7726",
				Usage: "`HOST:PORT` that shows it",
			},
		},
		Action:         serve,
		ExitErrHandler: func(*cli.Context, error) {}, // the exit code is run's
	}
	if err := app.RunContext(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, "mailbox:", err)
		return 1
	}
	return 0
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	box, err := mailbox.New(mailbox.Config{SMTPBind: c.String("smtp-bind"), HTTPBind: c.String("http-bind"), Log: log})
	if err != nil {
		return err
	}
	log.Info("accepting mail", "smtp", box.SMTPAddr(), "http", box.HTTPAddr())
	return box.Run(c.Context)
}
