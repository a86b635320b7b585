// Command gate is the HTTP front door of msrChat.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/gate"
	"github.com/msrchat/msrchat/shared/admin"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it ran and failed, or did not stop cleanly
	exitUsage  = 2 // wrong flags or settings
)

const description = `Accounts, verification codes by e-mail, sessions, and the assignment of chat
servers, over HTTP. "gate openapi" prints the API's description.

It starts without MySQL, Redis, the mail server or the status servers and uses
them as they appear: /readyz says what is missing, /metrics shows the rest.

Secrets come from the environment or from files, never from flags:
MSRCHAT_MYSQL_PASSWORD, MSRCHAT_REDIS_PASSWORD, MSRCHAT_SMTP_USER,
MSRCHAT_SMTP_PASSWORD, MSRCHAT_CODE_SECRET.

SIGTERM or Ctrl-C: /readyz fails, requests in flight and mail are finished, then
it exits with 0. A second signal ends it at once.`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name: "gate", Usage: "the HTTP front door of msrChat", Description: description,
		HideHelpCommand: true, Writer: stdout, ErrWriter: stderr,
		Version: version(),
		Flags:   flags(),
		Before: func(c *cli.Context) error {
			if c.Args().Present() && c.App.Command(c.Args().First()) == nil {
				return usage(fmt.Errorf("there is no command %q; see gate --help", c.Args().First()))
			}
			return nil
		},
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
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usage(err) },
		ExitErrHandler: func(*cli.Context, error) {}, // run decides
	}
	err := app.RunContext(ctx, args)
	var wrong usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintln(stderr, "gate:", err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "gate:", err)
	return exitFailed
}

// usageError is a mistake of whoever called the program.
type usageError struct{ error }

func usage(err error) error { return usageError{err} }

func serve(ctx context.Context, c *cli.Context, stderr io.Writer) error {
	log, err := admin.Logger(c.String("log-level"), stderr)
	if err != nil {
		return usage(err)
	}
	cfg, err := config(c)
	if err != nil {
		return usage(err)
	}
	if err := cfg.Validate(); err != nil {
		return usage(err)
	}
	server, err := gate.New(cfg, log)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal ends the process
	return server.Run(ctx)
}

// version is the module's version or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return info.Main.Version
}
