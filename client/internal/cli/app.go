// Package cli is the msrchat program: its commands, what they print and how
// they end.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/profile"
	"github.com/msrchat/msrchat/client/store/sqlite"
	"github.com/msrchat/msrchat/shared/errs"
)

// Env is the program's surroundings.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string
	// Interactive says that standard input is a terminal with a person at it,
	// Terminal that standard output is one, too.
	Interactive, Terminal bool
	// ReadPassword reads a line without showing it.
	ReadPassword func(ctx context.Context) (string, error)
	// Screen shows the terminal UI until its user leaves.
	Screen func(ctx context.Context, c *client.Client, s *sqlite.Store, log *slog.Logger) error
	// Backoff replaces the waits between attempts to connect, for tests.
	Backoff client.Backoff
}

const description = `Without a command it opens the chat screen. The commands are for scripts: they
read no terminal but for passwords, and with --json print one object per line.

Begin:  msrchat code ann@example.org
        msrchat register --email ann@example.org --name ann --code 123456
        msrchat send --to bob "hello"

What you send is kept on this machine until a server has acknowledged it, and
is sent again by itself, by whichever msrchat of the profile has a connection.

Exit codes:
   0  done
   1  it failed for another reason than those below
   2  wrong usage
   3  not logged in, or no longer
   4  refused: something about the request is wrong
   5  no connection, or the service is busy; for send: the message is kept and
      will be sent, do not send it again
 130  interrupted

Environment: MSRCHAT_GATE, MSRCHAT_PROFILE, MSRCHAT_CA_FILE, MSRCHAT_DEBUG, and
MSRCHAT_PORT_BASE, which moves the default gate. Files are kept in
$XDG_STATE_HOME/msrchat/PROFILE (~/.local/state/msrchat/PROFILE), for nobody
else to read.`

// Run runs the program and returns its exit code. args begin with the
// program's name. It ends early when ctx does.
func Run(ctx context.Context, args []string, env Env) int {
	p := &program{Env: env}
	app := &cli.App{
		Name: "msrchat", Usage: "chat from a terminal", Description: description,
		UsageText: "msrchat [options]                    open the chat screen\n" +
			"msrchat [options] COMMAND [options]  see msrchat COMMAND --help",
		Version: env.Version, HideHelpCommand: true, EnableBashCompletion: true,
		Reader: env.Stdin, Writer: env.Stdout, ErrWriter: env.Stderr,
		Flags: commonFlags(true),
		Before: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" && c.App.Command(name) == nil {
				return usagef("there is no command %q; see msrchat --help", name)
			}
			return nil
		},
		Action:         p.screen,
		Commands:       p.commands(),
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return &usageError{err.Error()} },
		ExitErrHandler: func(*cli.Context, error) {}, // finish decides
	}
	app.Action = p.choose(app.Action)
	for _, c := range app.Commands {
		c.Action = p.choose(c.Action)
		c.Flags = append(c.Flags, commonFlags(false)...)
		c.OnUsageError = app.OnUsageError
		c.HideHelpCommand = true
	}
	parsing.Lock()
	err := app.RunContext(ctx, args)
	parsing.Unlock()
	if err == nil && p.chosen != nil {
		err = p.chosen()
	}
	return p.finish(ctx, err)
}

// parsing guards variables of urfave/cli that it writes while it parses; tests
// run several programs in one process.
var parsing sync.Mutex

// choose defers a command until parsing is done.
func (p *program) choose(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		p.chosen = func() error { return action(c) }
		return nil
	}
}

// program carries the surroundings to the commands.
type program struct {
	Env
	chosen  func() error    // the command that was given, nil for --help
	profile profile.Profile // set by the command that runs; names the profile in hints
}

// commonFlags may stand before and after the command. Only those before it
// carry the environment and the defaults, so that value finds what was typed.
func commonFlags(top bool) []cli.Flag {
	env := func(name string) []string {
		if top {
			return []string{name}
		}
		return nil
	}
	def := func(value string) string {
		if top {
			return value
		}
		return ""
	}
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print one JSON object per line"},
		&cli.StringFlag{
			Name: "profile", Usage: "keep people apart on one machine by `NAME`", EnvVars: env("MSRCHAT_PROFILE"),
			Value: def("default"), DefaultText: "default",
		},
		&cli.StringFlag{
			Name: "gate", Usage: "the service's `URL`", EnvVars: env("MSRCHAT_GATE"),
			DefaultText: "where one logged in, else the local fleet's",
		},
		&cli.PathFlag{
			Name: "ca-file", Usage: "trust the certificates in `FILE` and no others",
			EnvVars: env("MSRCHAT_CA_FILE"),
		},
		&cli.BoolFlag{
			Name: "debug", Usage: "log to standard error, the screen to a file in the profile",
			EnvVars: env("MSRCHAT_DEBUG"),
		},
	}
}

// value is a common flag's value, wherever it was given.
func value(c *cli.Context, name string) string {
	lineage := c.Lineage()
	for _, l := range lineage {
		if l.IsSet(name) {
			return l.String(name)
		}
	}
	return lineage[len(lineage)-2].String(name) // the app's own context; the last one is empty
}

func given(c *cli.Context, name string) bool {
	for _, l := range c.Lineage() {
		if l.IsSet(name) && l.Bool(name) {
			return true
		}
	}
	return false
}

// place finds the profile and its login, if there is one.
func (p *program) place(c *cli.Context) (login profile.Login, err error) {
	if p.profile, err = profile.New("", value(c, "profile")); err != nil {
		return login, &usageError{errs.From(err).Message}
	}
	login, err = p.profile.Login()
	if gate := value(c, "gate"); gate != "" {
		login.Gate = gate
	}
	if login.Gate == "" {
		login.Gate = defaultGate()
	}
	return login, err
}

// defaultGate is the local fleet's gate, on whichever ports it is.
func defaultGate() string {
	base := os.Getenv("MSRCHAT_PORT_BASE")
	if base == "" {
		return client.DefaultGate
	}
	u := url.URL{Scheme: "http", Host: "127.0.0.1:" + base}
	return u.String()
}

// gate makes a client of the gate.
func (p *program) gate(c *cli.Context, address string) (*client.Gate, error) {
	transport, err := transport(value(c, "ca-file"))
	if err != nil {
		return nil, err
	}
	g, err := client.NewGate(address, transport)
	if err != nil {
		return nil, &usageError{errs.From(err).Message}
	}
	return g, nil
}

// online is a running client with its store.
type online struct {
	*client.Client
	store *sqlite.Store
	login profile.Login
	gate  *client.Gate
	log   *slog.Logger
	logTo io.Closer // nil if nothing is to be closed
}

func (o *online) close() {
	o.Close()
	_ = o.store.Close()
	if o.logTo != nil {
		_ = o.logTo.Close()
	}
}

// open opens a client for the user who is logged in; it ends with ctx.
func (p *program) open(ctx context.Context, c *cli.Context, to logTo, change func(*client.Options)) (*online, error) {
	login, err := p.place(c)
	if err != nil {
		return nil, err
	}
	g, err := p.gate(c, login.Gate)
	if err != nil {
		return nil, err
	}
	roots, err := tlsConfig(value(c, "ca-file"))
	if err != nil {
		return nil, err
	}
	s, err := p.profile.Store(ctx, login)
	if err != nil {
		return nil, err
	}
	o := &online{store: s, login: login, gate: g}
	opt := client.Options{
		Gate: g, Session: login.Session, Store: s, Program: "msrchat/" + p.Version, TLS: roots, Backoff: p.Backoff,
	}
	change(&opt)
	if o.log, o.logTo, err = p.logger(given(c, "debug"), to); err == nil {
		opt.Logger = o.log
		o.Client, err = client.Open(ctx, opt)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return o, nil
}

// logTo says where a log goes that was asked for.
type logTo int

const (
	logToStderr logTo = iota
	logToFile         // the terminal belongs to the screen
)

// logger is silent unless asked.
func (p *program) logger(debug bool, to logTo) (*slog.Logger, io.Closer, error) {
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	switch {
	case !debug:
		return slog.New(slog.DiscardHandler), nil, nil
	case to == logToStderr:
		return slog.New(slog.NewTextHandler(p.Stderr, options)), nil, nil
	}
	f, err := os.OpenFile(filepath.Join(p.profile.Dir, "debug.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	return slog.New(slog.NewTextHandler(f, options)), f, nil
}

// sendOnly is for commands that receive nothing.
func sendOnly(o *client.Options) { o.SendOnly = true }

// drain reads events that the command does not need.
func drain(c *client.Client) {
	for range c.Events() { //nolint:revive // the command waits for its answers elsewhere
	}
}

// within bounds a command that waits for a server.
func within(c *cli.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Context, d)
}

func timeoutFlag(usage string) cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Usage: usage, Value: 30 * time.Second}
}

// noArgs refuses what a command does not take, such as a flag that came late.
func noArgs(c *cli.Context, most int) error {
	if c.NArg() <= most {
		return nil
	}
	extra := c.Args().Get(most)
	if strings.HasPrefix(extra, "-") {
		return usagef("%s: options go before the rest; see msrchat %s --help", extra, c.Command.Name)
	}
	return usagef("%q is too much; see msrchat %s --help", extra, c.Command.Name)
}
