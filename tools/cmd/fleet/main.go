// Command fleet starts, stops and shows the local fleet. People call it through
// the recipes of the Justfile, which install what it needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/state"
)

// Exit codes, as in the help text.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRolledBack  = 3   // upgrade: the previous version runs again
	exitInterrupted = 130 // as shells do for Ctrl-C
)

func main() {
	os.Exit(run(context.Background(), os.Args))
}

func run(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := app().RunContext(ctx, flagsFirst(args))
	var usage usageError
	switch {
	case err == nil: // also a log that was followed until Ctrl-C
		return exitOK
	case errors.Is(err, fleet.ErrLeft):
		fmt.Fprintln(os.Stderr, "interrupted;", err)
		return exitInterrupted
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "interrupted; the same command goes on from here, "+
			"./justw down (./justw destroy local after an apply) stops what runs")
		return exitInterrupted
	case errors.Is(err, fleet.ErrRolledBack):
		fmt.Fprintln(os.Stderr, "error:", err)
		return exitRolledBack
	case errors.As(err, &usage), errors.Is(err, fleet.ErrNoService):
		fmt.Fprintln(os.Stderr, "error:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	return exitFailed
}

type usageError struct{ error }

func app() *cli.App {
	return &cli.App{
		Name:            "fleet",
		Usage:           "the local fleet: Consul, Nomad, and the jobs of nomad/ on this machine",
		Description:     "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an upgrade was rolled back, 130 interrupted.",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "root", Usage: "`DIR` of the checkout (default: found from the working directory)"},
			&cli.StringFlag{
				Name: "state", EnvVars: []string{"MSRCHAT_STATE"},
				Usage: "`DIR` of the fleet's state (default: .fleet in the checkout)",
			},
			&cli.IntFlag{
				Name: "port-base", EnvVars: []string{ports.EnvBase},
				Usage: "`PORT` that all others follow from", DefaultText: fmt.Sprint(ports.DefaultBase),
			},
		},
		Commands:       commands(),
		ExitErrHandler: func(*cli.Context, error) {}, // the exit code is run's
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("there is no command %q; see fleet --help", c.Args().First())}
			}
			return cli.ShowAppHelp(c)
		},
	}
}

func commands() []*cli.Command {
	timeout := &cli.DurationFlag{
		Name: "timeout", Value: 5 * time.Minute, Usage: "give up if the services are not up after `DURATION`",
	}
	terraform := &cli.BoolFlag{Name: "terraform", Usage: "Terraform manages the fleet's jobs"}
	list := []*cli.Command{
		{
			Name: "up", Usage: "start what does not run yet, and wait until every check passes",
			ArgsUsage: "[SERVICE...]",
			Flags:     []cli.Flag{timeout},
			Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
				return f.Up(ctx, c.Args().Slice(), c.Duration("timeout"))
			}),
		},
		upgradeCommand(),
		{
			Name: "agents", Usage: "start Consul and Nomad and build the programs, for Terraform; " +
				"writes the jobs' variables as JSON",
			Action: with(func(ctx context.Context, _ *cli.Context, f *fleet.Fleet) error { return f.Agents(ctx) }),
		},
		{
			Name: "vars", Usage: "write the jobs' variables like agents, but start nothing",
			Action: with(func(ctx context.Context, _ *cli.Context, f *fleet.Fleet) error { return f.Vars(ctx) }),
		},
		{
			Name: "secrets", Usage: "print the jobs' secrets from Nomad, for Terraform",
			Hidden: true, // for a pipe, not for a screen
			Action: with(func(ctx context.Context, _ *cli.Context, f *fleet.Fleet) error { return f.Secrets(ctx) }),
		},
		{
			Name: "wait", Usage: "wait until every check of the jobs that Terraform runs passes",
			Flags: []cli.Flag{timeout},
			Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
				ctx, cancel := context.WithTimeout(ctx, c.Duration("timeout"))
				defer cancel()
				return f.Wait(ctx)
			}),
		},
		{
			Name: "down", Usage: "stop everything; the databases' files stay",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "purge", Usage: "remove them too, and the logs and builds"},
				terraform,
			},
			Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
				manager := state.ByUp
				if c.Bool("terraform") {
					manager = state.ByTerraform
				}
				return f.Down(ctx, manager, c.Bool("purge"))
			}),
		},
		{
			Name: "ps", Usage: "show services, addresses and checks",
			Action: with(func(ctx context.Context, _ *cli.Context, f *fleet.Fleet) error { return f.List(ctx) }),
		},
		{
			Name: "logs", Usage: "show the logs of all instances of a service, or of consul or nomad",
			ArgsUsage: "SERVICE",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as they grow"},
			},
			Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
				// The parser accepts flags only before the argument; people
				// write them after.
				args := c.Args().Slice()
				rest := slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
					return arg == "-f" || arg == "--follow"
				})
				if len(rest) != 1 {
					return usageError{fmt.Errorf("one argument is expected: SERVICE: %s, consul or nomad",
						strings.Join(job.Names(job.All()), ", "))}
				}
				service, follow := rest[0], c.Bool("follow") || len(rest) < len(args)
				return f.Logs(ctx, service, follow)
			}),
		},
		doctorCommand(),
		nodesDownCommand(),
		{
			Name: "mail", Usage: "show the newest mail to an address", ArgsUsage: "ADDRESS",
			Action: with(func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error {
				address, err := oneArgument(c, "ADDRESS")
				if err != nil {
					return err
				}
				return f.Mail(ctx, address)
			}),
		},
		{
			Name: "env", Usage: "print shell variables that point nomad, consul and msrchat at this fleet",
			Action: with(func(_ context.Context, _ *cli.Context, f *fleet.Fleet) error { return f.Env() }),
		},
	}
	for _, command := range list {
		command.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	}
	return list
}

type action func(ctx context.Context, c *cli.Context, f *fleet.Fleet) error

// with opens the fleet of the flags and passes it to the action.
func with(do action) cli.ActionFunc {
	return func(c *cli.Context) error {
		root, path, err := places(c)
		if err != nil {
			return err
		}
		dir, err := state.Open(path)
		if err != nil {
			return err
		}
		f, err := fleet.New(root, dir, c.Int("port-base"), os.Stdout)
		if err != nil {
			return err
		}
		return do(c.Context, c, f)
	}
}

// places are the checkout and the folder of the fleet's state.
func places(c *cli.Context) (root, statePath string, err error) {
	if root, err = checkout(c.String("root")); err != nil {
		return "", "", err
	}
	if statePath = c.String("state"); statePath == "" {
		statePath = filepath.Join(root, ".fleet")
	}
	return root, statePath, nil
}

// checkout returns the folder of the workspace file: the given one, or the
// first one upwards from the working directory.
func checkout(given string) (string, error) {
	dir, err := filepath.Abs(given)
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if given != "" || dir == filepath.Dir(dir) {
			return "", errors.New("no go.work here or above: give the checkout with --root")
		}
	}
}

func oneArgument(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", usageError{fmt.Errorf("one argument is expected: %s", what)}
	}
	return c.Args().First(), nil
}
