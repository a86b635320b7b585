// Command chaos-demo shows in a minute that msrChat loses nothing:
// ./justw chaos-demo.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/process"

	"github.com/msrchat/msrchat/e2e/demo"
	"github.com/msrchat/msrchat/e2e/faults"
)

const description = `Starts the whole system as processes on this machine, and shows on one screen the
real chat program of two people, ann and ben, and below them the director: it has
both and twenty more devices talk, kills one process after the other, and counts
what was lost. You may type into both terminals; what you type is checked, too.
--seed alone decides which process is killed when.

Keys: F2 ann, F3 ben, F4 the director; there q asks for the verdict now and Ctrl+C
leaves. After the verdict any key leaves. Everything that was started, and every
file, is gone then.

It needs tmux and a terminal of 80 columns and 24 rows; without them it prints
lines, as with --no-tmux.

Exit codes: 0 nothing was lost, doubled or reordered; 1 a promise was broken or a
fault did not heal (the journals and logs are kept, it says where); 2 wrong flags;
3 it could not run; 130 left before the verdict.`

const exitCannot = 3

// kinds are each done once in a minute.
const kinds = "kill-chat,kill-mysql,kill-redis,freeze-chat,kill-status,kill-gate,kill-consul"

func main() {
	failed := exitCannot // the code of an error that is not about usage
	code := process.Run(context.Background(), &cli.App{
		Name: "chaos-demo", Usage: "watch that nothing is lost while everything is killed",
		Version: process.Version(), Description: description,
		Flags: []cli.Flag{
			&cli.Uint64Flag{
				Name: "seed", Value: rand.Uint64N(1_000_000), DefaultText: "a random one, which is shown",
				Usage: "`NUMBER` that decides the faults",
			},
			&cli.DurationFlag{Name: "duration", Value: time.Minute, Usage: "go on for this `TIME`"},
			&cli.DurationFlag{Name: "interval", Value: 8 * time.Second, Usage: "begin a fault every `TIME` at most"},
			&cli.StringFlag{Name: "only", Value: kinds, Usage: "faults of these `KINDS`; see ./justw faults --list"},
			&cli.BoolFlag{Name: "no-tmux", Usage: "print lines"},
			&cli.BoolFlag{Name: "panes", Hidden: true, Usage: "be in the director's pane"},
			&cli.StringFlag{Name: "root", Value: ".", Hidden: true, Usage: "the checkout"},
			&cli.StringFlag{Name: "bin", Hidden: true, Usage: "a folder with servers that are built already"},
			&cli.StringFlag{Name: "msrchat", Value: "msrchat", Hidden: true, Usage: "the chat program"},
			&cli.StringFlag{Name: "bug", Hidden: true, Usage: "plant a bug in the servers"},
		},
		Action: func(c *cli.Context) (err error) {
			failed, err = run(c)
			return err
		},
	}, os.Args, os.Stderr)
	if code == process.ExitFailed {
		code = failed
	}
	os.Exit(code)
}

// run returns the exit code that belongs to an error.
func run(c *cli.Context) (code int, err error) {
	cfg := demo.Config{
		Seed: c.Uint64("seed"), Duration: c.Duration("duration"), Interval: c.Duration("interval"),
		Root: c.String("root"), Bin: c.String("bin"), Msrchat: c.String("msrchat"), Bug: planted.Bug(c.String("bug")),
		Replay: fmt.Sprint("./justw chaos-demo --seed ", c.Uint64("seed")), Panes: c.Bool("panes"), Output: os.Stdout,
	}
	for _, name := range []string{"duration", "interval", "only"} {
		if c.IsSet(name) {
			cfg.Replay += fmt.Sprintf(" --%s %v", name, c.Value(name))
		}
	}
	if cfg.Interval < time.Second || cfg.Duration < cfg.Interval || c.Args().Present() {
		return 0, process.Usage(errors.New("want an interval of at least 1s, a duration no shorter, and no arguments"))
	}
	if cfg.Kinds, err = faults.Named(strings.Split(c.String("only"), ",")); err != nil {
		return 0, process.Usage(err)
	}
	// A closed terminal ends it like Ctrl-C.
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGHUP)
	defer stop()
	if !c.Bool("no-tmux") && !cfg.Panes {
		again := append([]string{os.Args[0], "--panes", "--seed", fmt.Sprint(cfg.Seed)}, os.Args[1:]...)
		code, err := demo.InTmux(ctx, again...)
		if err == nil {
			os.Exit(code) // it said why
		}
		fmt.Printf("no panes, only lines: %v\n", err)
	}
	fmt.Printf("msrChat chaos demo, seed %d: starting the whole system\n", cfg.Seed)
	kept, err := demo.Run(ctx, cfg)
	switch {
	case errors.Is(err, demo.ErrLeft), err != nil && ctx.Err() != nil:
		return demo.ExitLeft, demo.ErrLeft
	case err == nil && !kept:
		return process.ExitFailed, errors.New("a promise was broken")
	}
	return exitCannot, err
}
