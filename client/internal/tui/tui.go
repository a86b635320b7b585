package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
)

// Options say how the screen runs. Backend must be set.
type Options struct {
	Backend Backend
	// Logger must not write to the terminal; it may be nil.
	Logger *slog.Logger
	// Input and Output are the terminal; nil is the process's own.
	Input  io.Reader
	Output io.Writer
	// Environ is the environment; nil is the process's own.
	Environ []string
	// Location is where times are shown; nil is the machine's.
	Location *time.Location

	// size is the terminal's, where Output is none.
	size tea.WindowSizeMsg
}

// finishTime bounds the writes after the screen is gone.
const finishTime = 3 * time.Second

// Run shows the screen until its user leaves, ctx ends, or the process is asked
// to end by SIGINT, SIGTERM or SIGHUP; then it returns nil. In every case, a
// panic included, the terminal is restored and what was typed is kept.
func Run(ctx context.Context, opt Options) error {
	if opt.Backend == nil {
		return errors.New("run screen: no backend")
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Environ == nil {
		opt.Environ = os.Environ()
	}
	if opt.Location == nil {
		opt.Location = time.Local
	}
	// Commands outlive ctx: what was typed is kept after it has ended.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	start, err := takeSnapshot(work, opt.Backend, nil, nil)
	if err != nil {
		return fmt.Errorf("read chats: %w", err)
	}
	now := func() time.Time { return time.Now().In(opt.Location) }
	m := newModel(work, opt.Backend, opt.Logger, now, start)
	p := tea.NewProgram(m, programOptions(opt)...)

	ended := make(chan struct{})
	go quitOnSignal(ctx, p.Quit, ended)
	pumped := make(chan error, 1)
	go func() {
		err := pump(work, opt.Backend.Events(), p.Send)
		if err != nil {
			p.Quit()
		}
		pumped <- err
	}()
	_, err = p.Run()
	close(ended)
	stopAll, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	if ferr := m.finish(stopAll); ferr != nil {
		err = errors.Join(err, fmt.Errorf("keep drafts: %w", ferr))
	}
	stop()
	return errors.Join(err, <-pumped, m.ended)
}

func programOptions(opt Options) []tea.ProgramOption {
	// Bubble Tea leaves the screen as it is on SIGHUP; quitOnSignal does better.
	options := []tea.ProgramOption{tea.WithoutSignalHandler(), tea.WithEnvironment(opt.Environ)}
	if opt.Input != nil {
		options = append(options, tea.WithInput(opt.Input))
	}
	if opt.Output != nil {
		options = append(options, tea.WithOutput(opt.Output))
	}
	if opt.size.Width > 0 {
		options = append(options, tea.WithWindowSize(opt.size.Width, opt.size.Height))
	}
	for _, pair := range opt.Environ {
		// Any value counts (no-color.org); the library takes only a few.
		if len(pair) > len("NO_COLOR=") && pair[:len("NO_COLOR=")] == "NO_COLOR=" {
			options = append(options, tea.WithColorProfile(colorprofile.ASCII))
		}
	}
	return options
}

// quitOnSignal ends the program when the process is asked to end. Further signals
// wait until the terminal is restored.
func quitOnSignal(ctx context.Context, quit func(), ended <-chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	select {
	case <-signals:
	case <-ctx.Done():
	case <-ended:
		return
	}
	quit()
	<-ended
}
