// Command chaos-demo shows in a minute that msrChat loses nothing:
// ./justw chaos-demo.
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
	"golang.org/x/term"

	"github.com/msrchat/msrchat/shared/process"

	"github.com/msrchat/msrchat/e2e/demo"
	"github.com/msrchat/msrchat/e2e/faults"
)

const description = `Starts the whole system as processes on this machine, and shows on one screen the
real chat program of two people, ann and ben, and below them the director: it has
both and twenty more devices talk, kills one process after the other, and says
what became of the messages. You may type into both terminals; what you type is
checked, too. In the end it compares what every device and both people saw with
what the database holds. Which process is killed when follows from --seed alone.

Keys: F2 ann, F3 ben, F4 the director; there q asks for the verdict now and Ctrl+C
leaves. After the verdict any key leaves. Everything that was started, and every
file, is gone then.

It needs tmux and a terminal of 80 columns and 24 rows; without them it prints
lines, as with --no-tmux.

Exit codes: 0 nothing was lost, doubled or reordered; 1 a promise was broken or a
fault did not heal (the journals and logs are kept, it says where); 2 wrong flags;
3 it could not run; 130 left before the verdict.`

const (
	exitCannot = 3
	exitLeft   = 130
)

func main() {
	p := &program{}
	code := process.Run(context.Background(), p.app(), os.Args, os.Stderr)
	if code == process.ExitFailed {
		code = p.failed
	}
	os.Exit(code)
}

// program is one call.
type program struct {
	failed int // the exit code of an error that is not about usage
}

// defaultKinds are each done once in a minute.
const defaultKinds = "kill-chat,kill-mysql,kill-redis,freeze-chat,kill-status,kill-gate,kill-consul"

func (p *program) app() *cli.App {
	return &cli.App{
		Name: "chaos-demo", Usage: "watch that nothing is lost while everything is killed", Version: process.Version(), Description: description,
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "seed", Usage: "`NUMBER` that the faults follow from (default: a random one, which is shown)"},
			&cli.DurationFlag{Name: "duration", Value: time.Minute, Usage: "go on for this `TIME`"},
			&cli.DurationFlag{Name: "interval", Value: 8 * time.Second, Usage: "begin a fault every `TIME`, or when the one before has healed"},
			&cli.StringFlag{Name: "only", Value: defaultKinds, Usage: "these `KINDS` of faults, or families of them, with commas between; ./justw faults --list shows them"},
			&cli.BoolFlag{Name: "no-tmux", Usage: "print lines"},
			&cli.StringFlag{Name: "root", Value: ".", Hidden: true, Usage: "the checkout"},
			&cli.StringFlag{Name: "bin", Hidden: true, Usage: "a folder with servers that are built already"},
			&cli.StringFlag{Name: "msrchat", Value: "msrchat", Hidden: true, Usage: "the chat program"},
			&cli.StringFlag{Name: "director", Hidden: true, Usage: "be the director's pane of the demo behind this `SOCKET`"},
		},
		Action: p.action,
	}
}

func (p *program) action(c *cli.Context) error {
	p.failed = exitCannot
	if socket := c.String("director"); socket != "" {
		return demo.Pane(c.Context, socket)
	}
	cfg, err := config(c)
	if err != nil {
		return process.Usage(err)
	}
	fmt.Printf("msrChat chaos demo, seed %d: starting the whole system\n", cfg.Seed)
	verdict, err := demo.Run(c.Context, cfg)
	switch {
	case errors.Is(err, demo.ErrLeft):
		p.failed = exitLeft
		return err
	case err != nil:
		return err
	case !verdict.Kept:
		p.failed = process.ExitFailed
		return errors.New("a promise was broken")
	}
	return nil
}

func config(c *cli.Context) (demo.Config, error) {
	terminal := term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
	cfg := demo.Config{
		Seed: c.Uint64("seed"), Duration: c.Duration("duration"), Interval: c.Duration("interval"),
		Plain: c.Bool("no-tmux") || !terminal, Bin: c.String("bin"), Msrchat: c.String("msrchat"), Output: os.Stdout,
	}
	if !c.IsSet("seed") {
		cfg.Seed = rand.Uint64N(1_000_000)
	}
	cfg.Replay = fmt.Sprintf("./justw chaos-demo --seed %d", cfg.Seed)
	for _, name := range []string{"duration", "interval", "only"} {
		if c.IsSet(name) {
			cfg.Replay += fmt.Sprintf(" --%s %v", name, c.Value(name))
		}
	}
	if cfg.Interval < time.Second || cfg.Duration < cfg.Interval {
		return cfg, errors.New("the interval must be at least 1s, the duration no shorter than it")
	}
	if c.Args().Present() {
		return cfg, fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	var err error
	cfg.Kinds, err = faults.Named(strings.FieldsFunc(c.String("only"), func(r rune) bool { return r == ',' }))
	if err != nil {
		return cfg, err
	}
	if cfg.Root, err = filepath.Abs(c.String("root")); err != nil {
		return cfg, err
	}
	cfg.Self, err = os.Executable()
	return cfg, err
}
