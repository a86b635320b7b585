// Command msrchat-bench measures a fleet of msrChat: durable messages a second,
// latency, what idle connections cost, how users reconnect after a server's death,
// how evenly they are assigned.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/process"

	"github.com/msrchat/msrchat/bench/flood"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/proof/account"
)

// exitInterrupted is a shell's code for Ctrl-C; the report has what was measured
// until then.
const exitInterrupted = 130

func main() { os.Exit(run(context.Background(), os.Args)) }

func run(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	code := process.Run(ctx, app(), args, os.Stderr)
	if ctx.Err() != nil && code != process.ExitUsage {
		return exitInterrupted
	}
	return code
}

func app() *cli.App {
	return &cli.App{
		Name: "msrchat-bench", Usage: "measure a fleet of msrChat", Version: process.Version(),
		Description: "It makes accounts of its own in the fleet's database, past the gate, and so needs\n" +
			"the database's password (MSRCHAT_MYSQL_PASSWORD). They are deleted at the end;\n" +
			"'msrchat-bench clean' deletes what an earlier call left behind.\n" +
			"Measure on a fleet without users: a load takes all the capacity that there is.\n\n" +
			"Exit codes: 0 measured; 1 failed, or a message was lost, doubled or out of order;\n" +
			"2 wrong usage; 130 interrupted, with a report of what was measured until then.",
		Commands: []*cli.Command{
			loadCommand(), idleCommand(), stormCommand(), floodCommand(), assignCommand(), cleanCommand(),
			floorCommand(), attackCommand(),
		},
		Action: func(c *cli.Context) error {
			return cli.ShowAppHelp(c)
		},
	}
}

// floorCommand is called by this program only: see package floor.
func floorCommand() *cli.Command {
	return &cli.Command{
		Name: floor.Command, Hidden: true, Flags: database.Flags(),
		Action: func(c *cli.Context) error {
			db, err := database.FromCLI(c)
			if err != nil {
				return process.Usage(err)
			}
			return floor.Main(c.Context, floor.Kind(c.Args().First()), db, os.Stdin, os.Stdout)
		},
	}
}

// attackCommand is called by this program only: see package flood.
func attackCommand() *cli.Command {
	return &cli.Command{
		Name: flood.Command, Hidden: true,
		Action: func(c *cli.Context) error { return flood.Main(c.Context, os.Stdin, os.Stdout) },
	}
}

func cleanCommand() *cli.Command {
	return &cli.Command{
		Name: "clean", Usage: "delete all accounts that measurements made, and what they wrote",
		Flags: database.Flags(),
		Action: func(c *cli.Context) error {
			cfg, err := database.FromCLI(c)
			if err != nil {
				return process.Usage(err)
			}
			db, err := account.Open(c.Context, cfg)
			if err != nil {
				return err
			}
			defer db.Close()
			removed, err := account.RemoveAll(c.Context, db)
			if err != nil {
				return err
			}
			_, err = os.Stdout.WriteString(removedText(removed) + "\n")
			return err
		},
	}
}
