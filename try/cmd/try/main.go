// Command try is the whole system in one process, for a first look.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/state"
	"github.com/msrchat/msrchat/try"
)

func main() {
	// A terminal that is closed is a Ctrl-C.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const description = `Runs a gate, two status and two chat servers and a mailbox in one process, on a
MariaDB and a Redis from the system's packages, without Consul and Nomad. Two
people chat over it:

   ./justw chat --profile ann
   ./justw chat --profile ben

The mails with their codes appear in its terminal; ./justw mail ADDRESS shows
the newest one whole.

Ctrl-C ends everything. What people write is kept in .fleet/data, where
./justw up, the fleet on Consul and Nomad, finds it too: one of both runs at a
time. ./justw down --purge removes it.

Everything binds to loopback. Exit codes: 0 ended by Ctrl-C, 1 failed, 2 wrong
usage.`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return process.Run(ctx, &cli.App{
		Name: "try", HelpName: try.Command, Usage: "the whole system in one process, for a first look",
		UsageText: try.Command, Description: description, Writer: stdout, HideVersion: true,
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "state", EnvVars: []string{"MSRCHAT_STATE"}, Value: ".fleet",
				Usage: "`DIR` where data, logs and secrets are kept",
			},
			&cli.IntFlag{
				Name: "port-base", EnvVars: []string{ports.EnvBase}, Value: ports.DefaultBase,
				Usage: "`PORT` that all others follow from",
			},
		},
		Action: func(c *cli.Context) error { return start(c, stdout) },
	}, args, stderr)
}

func start(c *cli.Context, out io.Writer) error {
	dir, err := state.Open(c.String("state"))
	if err != nil {
		return process.Usage(err)
	}
	table, err := ports.New(c.Int("port-base"))
	if err != nil {
		return process.Usage(err)
	}
	return try.Run(c.Context, try.Config{State: dir, Ports: table, Out: out})
}
