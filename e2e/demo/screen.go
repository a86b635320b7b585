package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"
)

// settings of the demo's own tmux, whose panes are the director's, ann's and ben's
// in this order. There is no prefix key: all keys but three go to the programs.
// ann's and ben's never end, so a program that ends was the director's; and it
// ends when nobody sees it any more.
const settings = `set -g status off
set -g prefix None
unbind -a -T prefix
unbind -n MouseDown3Pane
set -g mouse on
set -g focus-events on
set -g escape-time 10
set -g default-shell /bin/sh
set -g destroy-unattached on
set-hook -g pane-exited kill-server
set -g pane-border-status top
set -g @name director
set -g pane-border-format " #{?pane_active,#[bold],}#{@name} "
bind -n F2 select-pane -t %1
bind -n F3 select-pane -t %2
bind -n F4 select-pane -t %0
`

// InTmux runs a command, which is the demo again, in a tmux of its own in this
// terminal, prints its standard error, and returns its exit code.
func InTmux(ctx context.Context, command ...string) (code int, err error) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	_, missing := exec.LookPath("tmux")
	if err != nil || missing != nil || !term.IsTerminal(int(os.Stdin.Fd())) || width < 80 || height < 24 {
		return 0, errors.New("they need tmux and a terminal of 80 columns and 24 rows")
	}
	dir, err := os.MkdirTemp("", "msrchat-chaos-demo-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("conf"), []byte(settings), 0o600); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "env", append([]string{
		"-u", "TMUX", "tmux", "-u", "-S", file("tmux"), "-f", file("conf"), "new-session", // also inside of another one
		"sh", "-c", `"$@" 2>"$0/said"; echo $? >"$0/code"`, dir,
	}, command...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that it restores the terminal
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	_ = cmd.Run() // the exit code says it
	said, _ := os.ReadFile(file("said"))
	fmt.Printf("%s", said)
	if text, err := os.ReadFile(file("code")); err == nil {
		return strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return ExitLeft, nil // its pane was closed
}

// open opens ann's and ben's terminals above the director's pane, and returns the
// keys that are pressed in that one. Whoever leaves a terminal by mistake is back in
// a second.
func (d *director) open(ctx context.Context) (<-chan byte, error) {
	_, height, _ := term.GetSize(int(os.Stdout.Fd()))
	rows := strconv.Itoa(height - min(max(height*3/8, 11), 16))
	for i, split := range [][]string{{"-b", "-v", "-t", "%0", "-l", rows}, {"-h", "-t", "%1"}} {
		name, pane := names[i], "%"+strconv.Itoa(i+1)
		again := append([]string{"sh", "-c", `while :; do "$@"; sleep 1; done`, "sh"}, d.msrchat(ctx, name).Args...)
		naming := []string{";", "set", "-p", "-t", pane, "@name", name}
		if _, err := tmux(ctx, slices.Concat([]string{"split-window", "-d"}, split, again, naming)...); err != nil {
			return nil, err
		}
		if err := await(ctx, name+"'s terminal", func() bool {
			shown, _ := tmux(ctx, "capture-pane", "-p", "-t", pane)
			return strings.Contains(shown, names[1-i]) // whom they talk with
		}); err != nil {
			return nil, err
		}
		if _, err := tmux(ctx, "send-keys", "-t", pane, "Enter"); err != nil { // opens their only conversation
			return nil, err
		}
	}
	keys := make(chan byte)
	go func() { // it ends with the program
		key := make([]byte, 1)
		for _, err := os.Stdin.Read(key); err == nil; _, err = os.Stdin.Read(key) {
			keys <- key[0]
		}
	}()
	_, err := term.MakeRaw(int(os.Stdin.Fd())) // the pane is gone afterwards
	return keys, err
}

// tmux runs a command of the tmux that the demo runs in.
func tmux(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "tmux", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("tmux %s: %w: %s", args[0], err, out)
	}
	return string(out), nil
}

// draw shows a state in the pane; colours are left out where NO_COLOR is set.
func draw(s State) {
	const alternate, hidden, home, restOfLine, below = "\x1b[?1049h", "\x1b[?25l", "\x1b[H", "\x1b[K", "\x1b[J"
	if width, height, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		text := strings.ReplaceAll(view(s, width, height)+"\n", "\n", restOfLine+"\r\n")
		w := colorprofile.NewWriter(os.Stdout, os.Environ())
		_, _ = w.WriteString(alternate + hidden + home + strings.TrimSuffix(text, "\r\n") + below)
	}
}

// State is what the director's pane shows at a moment.
type State struct {
	Seed   uint64
	Began  time.Time
	Of     time.Duration // how long it is to last
	Faults []Fault       // the newest at the end
	// Crowd and People are the counters of the devices, and of ann and ben.
	Crowd, People Counts
	Broken        Counts    // what the checker has found
	Looked        time.Time // when
	Settling      bool      // nobody types any more
	// Verdict are its lines, the heading first; Kept says that all promises were.
	Verdict []string
	Kept    bool
}

// Fault is one that is active, or was.
type Fault struct {
	What           string // "kill -9 chat-2"
	Unacknowledged int    // messages when it began
	Began          time.Time
	Result         string // how long after its end everything worked, or that it does not; "" while active
}

const notHealed = "NOT HEALED"

// Counts are numbers of messages: typed, acknowledged and shown, or lost, doubled
// and reordered.
type Counts [3]int

func (c Counts) plus(o Counts) Counts { return Counts{c[0] + o[0], c[1] + o[1], c[2] + o[2]} }

// active is the fault that is active, if any.
func (s State) active() *Fault {
	if n := len(s.Faults); n > 0 && s.Faults[n-1].Result == "" {
		return &s.Faults[n-1]
	}
	return nil
}

// The styles use the terminal's own colours, which its owner can read on the
// background. They only repeat what words say.
var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = bold.Foreground(lipgloss.Green)
	bad   = bold.Foreground(lipgloss.Red)
)

// view is the director's pane: at most height lines, none wider than width.
func view(s State, width, height int) string {
	if width <= 0 || height <= 0 {
		return ""
	}
	hints := "F2 type as ann · F3 type as ben · F4 here: q verdict now · Ctrl+C leave"
	if s.Verdict != nil {
		hints = "F4, then any key, leaves · F2 ann · F3 ben"
	}
	lines := []string{
		fmt.Sprintf("%s  seed %s  %s", bold.Render("msrChat chaos demo"), bold.Render(fmt.Sprint(s.Seed)),
			faint.Render(fmt.Sprint(time.Since(s.Began).Truncate(time.Second), " of ", s.Of))),
		faint.Render(hints), "", s.present(), "",
	}
	if s.Verdict == nil {
		row := "%-12v %7v  %12v  %6v"
		lines = append(lines, faint.Render(fmt.Sprintf(row, "", "typed", "acknowledged", "shown")),
			fmt.Sprintf(row, fmt.Sprint(devices, " devices"), s.Crowd[0], s.Crowd[1], s.Crowd[2]),
			fmt.Sprintf(row, "ann and ben", s.People[0], s.People[1], s.People[2]), "")
	}
	lines = append(lines, s.found())
	for i, l := range s.Verdict {
		if i > 0 {
			lines = append(lines, lipgloss.NewStyle().Width(width).Render(l))
		}
	}
	room := height - lipgloss.Height(strings.Join(lines, "\n")) - 2
	if room > 0 && len(s.Faults) > 0 { // for the newest
		row := "%-34.34v %14v  %s"
		lines = append(lines, "", faint.Render(fmt.Sprintf(row, "fault", "unacknowledged", "result")))
		for _, f := range s.Faults[max(0, len(s.Faults)-room):] {
			lines = append(lines, fmt.Sprintf(row, f.What, f.Unacknowledged, cmp.Or(f.Result, "…")))
		}
	}
	return lipgloss.NewStyle().MaxWidth(width).MaxHeight(height).Render(strings.Join(lines, "\n"))
}

// present is the line about what is happening.
func (s State) present() string {
	f, n := s.active(), len(s.Faults)
	switch {
	case s.Kept:
		return good.Render(s.Verdict[0])
	case s.Verdict != nil:
		return bad.Render(s.Verdict[0])
	case f != nil:
		return fmt.Sprintf("%s %s · %d unacknowledged · %s",
			bad.Render("NOW"), bold.Render(f.What), f.Unacknowledged, seconds(time.Since(f.Began)))
	case n > 0 && strings.HasPrefix(s.Faults[n-1].Result, notHealed):
		return bad.Render(s.Faults[n-1].What + " " + s.Faults[n-1].Result)
	case s.Settling:
		return bold.Render("SETTLING") + " nobody types any more; the last messages arrive"
	}
	return good.Render("ALL IS WELL") + " the next fault comes"
}

// found is the line about what the checker has found.
func (s State) found() string {
	count := func(n int) string {
		if n > 0 {
			return bad.Render(fmt.Sprint(n))
		}
		return good.Render("0")
	}
	when := "not checked yet"
	if !s.Looked.IsZero() {
		when = fmt.Sprintf("checked %.0f s ago", time.Since(s.Looked).Seconds())
	}
	return fmt.Sprintf("lost %s  doubled %s  reordered %s  %s",
		count(s.Broken[0]), count(s.Broken[1]), count(s.Broken[2]), faint.Render(when))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
