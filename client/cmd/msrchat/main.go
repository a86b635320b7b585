// Command msrchat is the chat program for terminals and scripts.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/cli"
	"github.com/msrchat/msrchat/client/internal/tui"
	"github.com/msrchat/msrchat/client/store/sqlite"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	stdin := int(os.Stdin.Fd())
	return cli.Run(ctx, os.Args, cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version(),
		Interactive: term.IsTerminal(stdin), Terminal: term.IsTerminal(int(os.Stdout.Fd())),
		ReadPassword: func(ctx context.Context) (string, error) { return readPassword(ctx, stdin) },
		Screen: func(ctx context.Context, c *client.Client, s *sqlite.Store, log *slog.Logger) error {
			return tui.Run(ctx, tui.Options{Backend: tui.NewBackend(c, s), Logger: log})
		},
	})
}

// readPassword reads a line that the terminal does not show. When ctx ends
// first the terminal shows input again; the reader is left behind, as the
// program ends.
func readPassword(ctx context.Context, fd int) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type reply struct {
		line []byte
		err  error
	}
	got := make(chan reply, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		got <- reply{line, err}
	}()
	select {
	case r := <-got:
		return string(r.line), r.err
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}

// version is the module's, or the commit of a build in the workspace.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && version == "(devel)" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return strings.Trim(version, "()")
}
