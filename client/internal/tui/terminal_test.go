package tui

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// terminal is the demo in a tmux of its own: the only test that sees what a
// terminal makes of the bytes.
type terminal struct {
	t      *testing.T
	socket string
}

func newTerminal(t *testing.T, width, height int, env ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("not run: tmux is not installed")
	}
	dir, err := os.MkdirTemp("", "tui") //nolint:usetesting // a short path: sockets allow about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	term := &terminal{t, filepath.Join(dir, "s")}
	args := []string{
		"-f", "/dev/null", "-u", "new-session", "-d", "-s", "demo",
		"-x", strconv.Itoa(width), "-y", strconv.Itoa(height),
		"-e", demoEnv + "=1", "-e", "LC_ALL=C.UTF-8",
	}
	for _, e := range env {
		args = append(args, "-e", e)
	}
	// The shell stays, so that what the program left behind can be looked at.
	script := "stty -a >%[1]s/before; %[2]s; echo left $?; stty -a >%[1]s/after; echo done; exec cat"
	term.tmux(append(args, fmt.Sprintf(script, dir, os.Args[0]))...)
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", term.socket}, args...)...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

func (term *terminal) keys(keys ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys", "-t", "demo"}, keys...)...)
}

func (term *terminal) typed(text string) {
	term.t.Helper()
	term.tmux("send-keys", "-t", "demo", "-l", text)
}

func (term *terminal) frame() string {
	term.t.Helper()
	return term.tmux("capture-pane", "-p", "-t", "demo")
}

func (term *terminal) see(text string) {
	term.t.Helper()
	eventually(term.t, func() bool { return strings.Contains(term.frame(), text) })
}

func (term *terminal) show(format string) string {
	term.t.Helper()
	return strings.TrimSpace(term.tmux("display-message", "-p", "-t", "demo", format))
}

// TestTerminal looks at the screen that tmux, which does not report mode 2027,
// has after it was drawn: borders in line, nothing lost, the cursor in its cell.
func TestTerminal(t *testing.T) {
	term := newTerminal(t, 100, 30)
	term.see("Welcome")
	term.keys("C-k")
	term.typed("bob")
	term.keys("Enter")
	term.see("❯ Write to bob")
	term.see("keycap 1 and warning ⚠")
	for i, line := range strings.Split(term.frame(), "\n")[2:28] {
		column, border := 0, -1
		for _, r := range line {
			if strings.ContainsRune("│├", r) {
				border = column
				break
			}
			column += methods[0].width(string(r))
		}
		if border != 30 {
			t.Errorf("row %d has its border at %d: %q", i+2, border, line)
		}
	}
	for _, test := range []struct {
		text string
		x    int
	}{{"hi ", 3}, {"你好，北京", 13}, {" ❤️👍🏽", 17}, {"👨‍👩‍👧", 23}, {" 🇨🇳 e\u0301", 28}} {
		term.typed(test.text)
		want := fmt.Sprint(31+3+test.x, " 28")
		eventually(t, func() bool { return term.show("#{cursor_x} #{cursor_y}") == want })
	}
	term.keys("M-Enter", "C-j")
	eventually(t, func() bool { return term.show("#{cursor_x} #{cursor_y}") == "34 28" })
	if frame := term.frame(); !strings.Contains(frame, "❯ hi 你好，北京 ❤👍👨👩👧 🇨🇳 ") {
		t.Errorf("the composer shows something else:\n%s", frame)
	}
	term.tmux("resize-window", "-t", "demo", "-x", "50", "-y", "16")
	term.see("unread elsewhere")
	term.tmux("resize-window", "-t", "demo", "-x", "20", "-y", "5")
	term.see("● online · server")
	term.tmux("resize-window", "-t", "demo", "-x", "100", "-y", "30")
	term.see("Dimitri.K")
	term.keys("C-u", "BSpace", "BSpace", "C-u")
	term.typed("hello bob")
	term.keys("Enter")
	term.see("You wrote: hello bob")
	term.keys("C-c", "C-c")
	term.see("left 0")
}

// TestSignalsRestoreTheTerminal: also SIGHUP, which Bubble Tea leaves alone.
func TestSignalsRestoreTheTerminal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			term := newTerminal(t, 80, 20)
			term.see("Welcome")
			if term.show("#{alternate_on}") != "1" {
				t.Fatal("it is not on the alternate screen")
			}
			shell := term.show("#{pane_pid}")
			out, err := exec.Command("pgrep", "-P", shell).Output()
			if err != nil {
				t.Skip("not run: pgrep: ", err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			term.see("left 0")
			term.see("done")
			if got := term.show("#{alternate_on} #{cursor_flag} #{mouse_any_flag}"); got != "0 1 0" {
				t.Errorf("alternate screen, cursor and mouse: %s", got)
			}
			before, err := os.ReadFile(filepath.Join(filepath.Dir(term.socket), "before"))
			must(err)
			after, err := os.ReadFile(filepath.Join(filepath.Dir(term.socket), "after"))
			must(err)
			if string(before) != string(after) {
				t.Errorf("stty before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

var colour = regexp.MustCompile(`\x1b\[([0-9;]*;)?[34][0-8][;m]`)

// TestNoColour: NO_COLOR leaves nothing but bold, faint and reverse.
func TestNoColour(t *testing.T) {
	for _, env := range []string{"NO_COLOR=yes", ""} {
		term := newTerminal(t, 80, 20, env)
		term.see("Welcome")
		coloured := colour.MatchString(term.tmux("capture-pane", "-e", "-p", "-t", "demo"))
		if coloured != (env == "") {
			t.Errorf("%q: colours: %t", env, coloured)
		}
	}
}
