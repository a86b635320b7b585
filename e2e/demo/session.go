package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The least terminal in which three panes show something.
const (
	minWidth, minHeight = 80, 24
	// stackBelow is the width below which the two terminals stand above each other,
	// if there are stackRows for it.
	stackBelow, stackRows = 100, 44
)

// session is a tmux server of the demo's own, with one window: ann's terminal,
// ben's, and the director's pane.
type session struct {
	tmux, socket string
	server       *child
}

// The panes, in the order of their making.
const (
	paneAnn      = "%0"
	paneDirector = "%1"
	paneBen      = "%2"
)

// settings of the server. The user's own are not read. There is no prefix key:
// all keys but four go to the programs.
const settings = `set -g status off
set -g prefix None
unbind -a -T prefix
unbind -n MouseDown3Pane
set -g mouse on
set -g focus-events on
set -g escape-time 10
set -g default-shell /bin/sh
set -g pane-border-status top
set -g pane-border-format " #{?pane_active,#[bold],}#{@name} "
bind -n F2 select-pane -t %0
bind -n F3 select-pane -t %2
bind -n F4 select-pane -t %1
`

// start starts the server with three panes. width and height are the terminal's.
// close must follow, also after an error.
func (s *session) start(ctx context.Context, env []string, width, height int, commands map[string]string) (err error) {
	conf := s.socket + ".conf"
	if err := os.WriteFile(conf, []byte(settings), 0o600); err != nil {
		return err
	}
	// In the foreground, so that it ends with this program.
	cmd := exec.Command(s.tmux, "-u", "-f", conf, "-S", s.socket, "-D")
	cmd.Env = append(withoutTmux(os.Environ()), env...)
	if s.server, err = start(cmd); err != nil {
		return err
	}
	return s.split(ctx, width, height, commands)
}

// split makes the window and its panes.
func (s *session) split(ctx context.Context, width, height int, commands map[string]string) error {
	w, h := strconv.Itoa(width), strconv.Itoa(height)
	bottom := strconv.Itoa(directorRows(height))
	side := []string{"split-window", "-d", "-h", "-t", paneAnn}
	if width < stackBelow && height >= stackRows {
		side[2] = "-v"
	}
	steps := [][]string{
		{"new-session", "-d", "-s", "demo", "-x", w, "-y", h, commands[paneAnn]},
		{"split-window", "-v", "-l", bottom, "-t", paneAnn, commands[paneDirector]},
		append(side, commands[paneBen]),
		{"set", "-p", "-t", paneAnn, "@name", "ann"},
		{"set", "-p", "-t", paneBen, "@name", "ben"},
		{"set", "-p", "-t", paneDirector, "@name", "director"},
	}
	for i, step := range steps {
		err := s.do(ctx, step...)
		// The first one waits for the server.
		for end := time.Now().Add(5 * time.Second); err != nil && i == 0 && time.Now().Before(end); {
			if perr := pause(ctx, look); perr != nil {
				return perr
			}
			err = s.do(ctx, step...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directorRows is how much of a terminal's height the director's pane takes.
func directorRows(height int) int { return min(max(height*3/8, 11), 16) }

// do runs a command of tmux.
func (s *session) do(ctx context.Context, args ...string) error {
	// -N: a server that the command itself started would outlive this program.
	out, err := exec.CommandContext(ctx, s.tmux, append([]string{"-N", "-S", s.socket}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tmux %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// frame is what a pane shows.
func (s *session) frame(ctx context.Context, pane string) string {
	out, _ := exec.CommandContext(ctx, s.tmux, "-N", "-S", s.socket, "capture-pane", "-p", "-t", pane).Output()
	return string(out)
}

// open waits for a chat screen and opens its only conversation.
func (s *session) open(ctx context.Context, pane, with string) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for !strings.Contains(s.frame(ctx, pane), with) {
		if err := pause(ctx, look); err != nil {
			return fmt.Errorf("a chat screen does not show %s: %w", with, err)
		}
	}
	return s.do(ctx, "send-keys", "-t", pane, "Enter")
}

// attach shows the session in this terminal. What it returns is closed when the
// session is not shown any more.
func (s *session) attach() (<-chan struct{}, error) {
	cmd := exec.Command(s.tmux, "-u", "-N", "-S", s.socket, "attach", "-t", "demo")
	cmd.Env = withoutTmux(os.Environ()) // or it would not run inside another tmux
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // however it ended, nobody looks
	}()
	return gone, nil
}

// close ends the server and what runs in the panes.
func (s *session) close() {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = s.do(ctx, "kill-server") // restores the terminal; the kill below does not
	select {
	case <-s.server.done:
	case <-ctx.Done():
		s.server.kill()
	}
}

func withoutTmux(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(pair string) bool {
		return strings.HasPrefix(pair, "TMUX=") || strings.HasPrefix(pair, "TMUX_PANE=")
	})
}
