// Command fuzz drives everything that an outsider can reach of a running msrChat, with
// valid, odd and hostile values: ./justw fuzz.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/tools/mailbox"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/fuzz"
)

const description = `Starts the whole system as processes on this machine and sends it, at the same time,
requests of every operation of the gate's OpenAPI document, of chat.proto and of
relay.proto, with valid, odd and hostile values, and what is almost HTTP or almost
a frame. Beside that people chat and look at everything that they can see.

The seed decides every case; which ones run at the same time it does not. What was
found is kept as the exact bytes that were sent, and --replay sends them again. One
Ctrl-C ends the run.

Exit codes: 0 nothing was found; 1 something was, or it could not run; 2 wrong flags.`

func main() { os.Exit(process.Run(context.Background(), app(), os.Args, os.Stderr)) }

func app() *cli.App {
	return &cli.App{
		Name:        "fuzz",
		Usage:       "send a running msrChat everything that it should refuse",
		Version:     process.Version(),
		Description: description,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Minute, Usage: "go on for this `TIME`"},
			&cli.Uint64Flag{
				Name: "seed", Usage: "`NUMBER` that decides the cases (default: a random one, which is printed)",
			},
			&cli.IntFlag{Name: "workers", Value: 4, Usage: "do a `NUMBER` of cases of each kind at the same time"},
			&cli.StringFlag{Name: "only", Usage: "only these `KINDS` of cases, separated by commas"},
			&cli.BoolFlag{Name: "list", Usage: "list the kinds of cases"},
			&cli.StringFlag{Name: "replay", Usage: "instead, send again what a finding's `FOLDER` has"},
			&cli.IntFlag{Name: "times", Value: 10, Usage: "with --replay: a `NUMBER` of times"},
			&cli.BoolFlag{Name: "race", Usage: "build the servers with the race detector, which slows them"},
			&cli.StringFlag{
				Name:  "evidence",
				Usage: "keep what was found in this `FOLDER` (default: a new one in the temporary folder)",
			},
			&cli.StringFlag{Name: "root", Value: ".", Hidden: true, Usage: "the checkout"},
		},
		Action: action,
	}
}

func action(c *cli.Context) error {
	if c.Bool("list") {
		fmt.Println(strings.Join(fuzz.Kinds(), "\n"))
		return nil
	}
	cfg, err := config(c)
	if err != nil {
		return process.Usage(err)
	}
	var trace *fuzz.Trace
	if folder := c.String("replay"); folder != "" {
		if trace, err = fuzz.Load(folder); err != nil {
			return err
		}
	}
	a, stop, err := start(c, &cfg.Target)
	if err != nil {
		return err
	}
	defer stop()
	var result *fuzz.Result
	if trace != nil {
		result, err = fuzz.Replay(c.Context, cfg, trace, c.Int("times"))
	} else {
		fmt.Printf("seed %d, for %v\n", cfg.Seed, cfg.Duration)
		result, err = fuzz.Run(c.Context, cfg)
	}
	if err != nil {
		return err
	}
	fmt.Printf("\n%s", result)
	return verdict(a, cfg, result)
}

// verdict is nil if nothing was found, and no server crashed.
func verdict(a *arena.Arena, cfg fuzz.Config, result *fuzz.Result) error {
	crashes := a.Crashes()
	for _, err := range crashes {
		fmt.Println("CRASHED:", err)
	}
	if len(crashes) == 0 && result.Err() == nil {
		return nil
	}
	logs := filepath.Join(cfg.Evidence, "logs")
	if err := os.CopyFS(logs, os.DirFS(a.Logs())); err != nil {
		return fmt.Errorf("the logs were not kept: %w", err)
	}
	return fmt.Errorf("found %d things and %d crashes; --seed %d does the same cases again; logs are in %s",
		len(result.Findings), len(crashes), cfg.Seed, logs)
}

func config(c *cli.Context) (fuzz.Config, error) {
	cfg := fuzz.Config{
		Duration: c.Duration("duration"), Seed: c.Uint64("seed"), Workers: c.Int("workers"), Output: os.Stdout,
		Progress: 30 * time.Second, Evidence: c.String("evidence"),
		Only: strings.FieldsFunc(c.String("only"), func(r rune) bool { return r == ',' }),
	}
	if !c.IsSet("seed") {
		cfg.Seed = rand.Uint64N(1_000_000)
	}
	if cfg.Evidence == "" {
		cfg.Evidence = fuzz.Folder(cfg.Seed)
	}
	for _, name := range cfg.Only {
		if !slices.ContainsFunc(fuzz.Kinds(), func(k string) bool { return strings.HasPrefix(k, name+" ") }) {
			return cfg, fmt.Errorf("there is no kind %q; --list has them", name)
		}
	}
	switch {
	case c.Args().Present():
		return cfg, fmt.Errorf("unexpected argument %q", c.Args().First())
	case cfg.Duration < time.Second:
		return cfg, errors.New("the duration must be at least 1s")
	case cfg.Workers < 1 || cfg.Workers > 100 || c.Int("times") < 1:
		return cfg, errors.New("want 1 to 100 workers, and at least 1 time")
	}
	return cfg, nil
}

// start runs a mailbox here and everything else as processes.
func start(c *cli.Context, target *fuzz.Target) (*arena.Arena, func(), error) {
	root, err := filepath.Abs(c.String("root"))
	if err != nil {
		return nil, nil, err
	}
	box, err := mailbox.New(mailbox.Config{SMTPBind: "127.0.0.1:0", HTTPBind: "127.0.0.1:0"})
	if err != nil {
		return nil, nil, err
	}
	life, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- box.Run(life) }()
	stopBox := func() {
		end()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, "the mailbox:", err)
		}
	}
	cfg := arena.Config{
		Root: root, Chats: 2, SMTP: box.SMTPAddr(), Output: os.Stdout,
		// The fuzzer says whom it speaks for, as a proxy does, so that limits count many.
		Gate: []string{"--trusted-proxy", "127.0.0.0/8"},
	}
	if c.Bool("race") {
		cfg.BuildFlags = []string{"-race"}
	}
	a, err := arena.Start(c.Context, cfg)
	if err != nil {
		stopBox()
		return nil, nil, err
	}
	*target = fuzz.Target{
		Gate: strings.TrimPrefix(a.Gate(), "http://"), Chats: a.ChatListeners(), Relays: a.RelayListeners(),
		Metrics: a.Metrics(),
		Mail: func(address string) (string, bool) {
			mail, ok := box.Newest(address)
			return mail.Text, ok
		},
	}
	return a, func() {
		a.Close()
		stopBox()
	}, nil
}
