// Command faults injects faults into a running msrChat and proves that nothing
// was lost: ./justw faults.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/faults"
)

const description = `Starts the whole system as processes on this machine, has people talk, and does
one fault after another: kills, freezes and restarts every kind of process,
breaks the connections between each pair, drops, doubles and reorders frames,
fills the database's disk. In the end it compares what every device saw with
what the database holds.

Every kind of fault comes equally often; --seed alone decides which one when, so
that a run can be repeated. One Ctrl-C ends the faults, and what was done until
then is judged; a second one ends everything at once.

Exit codes: 0 nothing was lost and every fault healed; 1 a promise was broken, a
fault did not heal, or it could not run (what happened is on the screen, the
devices' journals and the servers' logs are kept); 2 wrong flags.`

func main() { os.Exit(process.Run(context.Background(), app(), os.Args, os.Stderr)) }

func app() *cli.App {
	return &cli.App{
		Name:        "faults",
		Usage:       "inject faults into a running msrChat and prove that nothing is lost",
		Version:     process.Version(),
		Description: description,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Minute, Usage: "go on for this `TIME`"},
			&cli.DurationFlag{
				Name: "interval", Value: 10 * time.Second,
				Usage: "begin a fault every `TIME`, or when the one before has healed",
			},
			&cli.Uint64Flag{
				Name: "seed", Usage: "`NUMBER` that decides the plan (default: a random one, which is printed)",
			},
			&cli.Float64Flag{Name: "rate", Value: 500, Usage: "have `NUMBER` messages a second typed"},
			&cli.IntFlag{Name: "clients", Value: 200, Usage: "by a `NUMBER` of devices"},
			&cli.StringFlag{
				Name: "only", Usage: "only these `KINDS` of faults, or families of them, separated by commas",
			},
			&cli.BoolFlag{Name: "list", Usage: "list the kinds of faults"},
			&cli.BoolFlag{Name: "plan", Usage: "only print what would happen"},
			&cli.BoolFlag{Name: "planted", Usage: "instead, plant each of the known bugs and show that it is found"},
			&cli.BoolFlag{Name: "tls", Usage: "have the chat servers speak TLS with people"},
			&cli.BoolFlag{Name: "race", Usage: "build the servers with the race detector, which slows them"},
			&cli.StringFlag{
				Name:  "evidence",
				Usage: "keep what a failed run leaves in this `FOLDER` (default: a new one in the temporary folder)",
			},
			&cli.StringFlag{Name: "root", Value: ".", Hidden: true, Usage: "the checkout"},
		},
		Action: action,
	}
}

func action(c *cli.Context) error {
	cfg, err := config(c)
	switch {
	case err != nil:
		return process.Usage(err)
	case c.Bool("list"):
		for _, k := range faults.Kinds {
			fmt.Printf("%-17s %s\n", k.Name, strings.Join(append([]string{k.Help}, k.Variants...), "; "))
		}
		return nil
	case c.Bool("plan"):
		faults.Print(os.Stdout, cfg.Steps)
		return nil
	case c.Bool("planted"):
		return planted(c.Context, cfg.Root)
	}
	return run(c.Context, cfg)
}

func config(c *cli.Context) (faults.Config, error) {
	cfg := faults.Config{
		Interval: c.Duration("interval"), Duration: c.Duration("duration"),
		Rate: c.Float64("rate"), Clients: c.Int("clients"),
		Seed: c.Uint64("seed"), TLS: c.Bool("tls"), Output: os.Stdout, Evidence: c.String("evidence"),
	}
	if c.Bool("race") {
		cfg.BuildFlags = []string{"-race"}
	}
	if !c.IsSet("seed") {
		cfg.Seed = rand.Uint64N(1_000_000)
	}
	if cfg.Interval < 100*time.Millisecond || cfg.Duration < cfg.Interval {
		return cfg, errors.New("the interval must be at least 100ms, and the duration no shorter")
	}
	if cfg.Clients < 3 || cfg.Clients > 10_000 || cfg.Rate <= 0 || cfg.Rate > 100_000 {
		return cfg, errors.New("want 3 to 10000 clients and a rate from above 0 to 100000")
	}
	if c.Args().Present() {
		return cfg, fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	var err error
	if cfg.Root, err = filepath.Abs(c.String("root")); err != nil {
		return cfg, err
	}
	kinds, err := faults.Named(strings.FieldsFunc(c.String("only"), func(r rune) bool { return r == ',' }))
	cfg.Steps = faults.Plan(cfg.Seed, kinds, int(cfg.Duration/cfg.Interval))
	return cfg, err
}

// run does the faults and prints the result.
func run(ctx context.Context, cfg faults.Config) error {
	if cfg.Evidence == "" {
		cfg.Evidence = filepath.Join(os.TempDir(), fmt.Sprintf("msrchat-faults-%d-%d", cfg.Seed, os.Getpid()))
	}
	fmt.Printf("seed %d: %d faults planned in %v, %d people type %v messages a second\n",
		cfg.Seed, len(cfg.Steps), cfg.Duration, cfg.Clients, cfg.Rate)
	result, err := faults.Run(ctx, cfg)
	if result != nil {
		fmt.Printf("\n%s", result)
	}
	if err != nil {
		return err
	}
	if result.Err() != nil {
		return fmt.Errorf("failed; --seed %d does the same faults again", cfg.Seed)
	}
	return nil
}

// planted runs the trials and prints a line for each.
func planted(ctx context.Context, root string) error {
	bin, err := os.MkdirTemp("", "msrchat-planted-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if err := arena.Build(ctx, root, bin); err != nil {
		return err
	}
	var failed error
	for _, trial := range faults.Trials {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result, err := trial.Run(ctx, bin, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", trial, err)
		}
		word := "found"
		if trial.Bug == "" {
			word = "nothing found, as it should be"
		}
		if err := trial.Verdict(result); err != nil {
			word, failed = err.Error(), errors.Join(failed, err)
		}
		fmt.Printf("%-20s %s\n", trial, word)
		for _, v := range result.Report.Violations {
			fmt.Printf("%-20s %6d %s\n", "", v.Count, v.Kind)
		}
	}
	return failed
}
