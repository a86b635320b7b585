// Command migrate brings the database up to this build's schema and exits.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/schema"
)

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name: "migrate", Usage: "bring the database up to this build's schema",
		Description: "Safe to run at any time and as often as you like: what exists is left alone, and of\n" +
			"several at once one works while the others wait.",
		Writer: stdout, ErrWriter: stderr, ExitErrHandler: func(*cli.Context, error) {},
		Flags: append(database.Flags(), &cli.DurationFlag{
			Name: "timeout", Value: 2 * time.Minute, EnvVars: []string{"MSRCHAT_TIMEOUT"},
			Usage: "give up after this `DURATION`, waiting for the database included",
		}),
		Action: migrate,
	}
	if err := app.RunContext(ctx, args); err != nil {
		fmt.Fprintln(stderr, "migrate:", err)
		return 1
	}
	return 0
}

func migrate(c *cli.Context) error {
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
	cfg, err := database.FromCLI(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	db, err := database.OpenWait(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := schema.Migrate(ctx, db, log); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "schema is at version %d\n", schema.Latest())
	return nil
}
