package demo_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/arena"
)

// programs builds everything into a folder and returns how the demo is called.
func programs(t *testing.T) []string {
	t.Helper()
	for _, program := range []string{"mariadbd", "redis-server", "consul"} {
		testenv.Find(t, program)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := arena.Build(t.Context(), root, bin); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+string(filepath.Separator),
		"./client/cmd/msrchat", "./e2e/cmd/chaos-demo")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program := func(name string) string { return filepath.Join(bin, name) }
	return []string{program("chaos-demo"), "--root", root, "--bin", bin, "--msrchat", program("msrchat")}
}

// The last counters of a run without loss.
var counters = regexp.MustCompile(
	`typed (\d+), acknowledged (\d+), shown \d+; lost 0, doubled 0, reordered 0\n\nNOTHING WAS LOST`)

func TestDemo(t *testing.T) {
	call := programs(t)
	t.Run("lines", func(t *testing.T) { demoInLines(t, call) })
	t.Run("a loss", func(t *testing.T) { demoOfALoss(t, call) })
	t.Run("panes", func(t *testing.T) { demoInPanes(t, call) })
	t.Run("usage", func(t *testing.T) {
		if out, code := runDemo(t, call, "--interval", "1ms"); code != 2 {
			t.Errorf("a wrong flag ends with %d, want exit code 2:\n%s", code, out)
		}
	})
}

// runDemo runs it to its end, without a terminal.
func runDemo(t *testing.T, call []string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, call[0], append(call[1:len(call):len(call)], args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("the demo: %v\n%s", err, text)
	}
	t.Logf("\n%s", text)
	return string(text), cmd.ProcessState.ExitCode()
}

// Without a terminal it prints lines, and ends with the verdict.
func demoInLines(t *testing.T, call []string) {
	t.Helper()
	args := []string{"--seed", "1", "--duration", "8s", "--interval", "4s", "--only", "kill-chat,kill-mysql"}
	out, code := runDemo(t, call, args...)
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, want := range []string{
		"seed 1", "kill -9 chat-", "kill -9 mysql", "; faults: 2", "shown to both once, in order",
		"--seed 1 --duration 8s",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not there", want)
		}
	}
	found := counters.FindStringSubmatch(out)
	if found == nil {
		t.Fatal("there are no counters before the verdict")
	}
	if found[1] != found[2] || len(found[1]) < 3 {
		t.Errorf("typed %s, acknowledged %s: want equal numbers, and not too few", found[1], found[2])
	}
}

// Servers that acknowledge before they commit take messages with them when they are
// killed, and the demo says so.
func demoOfALoss(t *testing.T, call []string) {
	t.Helper()
	args := []string{"--seed", "1", "--duration", "4s", "--interval", "4s", "--only", "kill-chat"}
	out, code := runDemo(t, call, append(args, "--bug", string(planted.AckBeforeCommit))...)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !regexp.MustCompile(`; lost [1-9]\d*, .*\n\nA PROMISE WAS BROKEN\n`).MatchString(out) {
		t.Error("it does not show the loss")
	}
}

// terminal is the demo in a tmux of the test's.
type terminal struct {
	t      *testing.T
	socket string
}

func (o *terminal) tmux(args ...string) string {
	o.t.Helper()
	args = append([]string{"-u", "-f", "/dev/null", "-S", o.socket}, args...)
	out, err := exec.CommandContext(context.Background(), "tmux", args...).CombinedOutput()
	if err != nil {
		o.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (o *terminal) frame() string { return o.tmux("capture-pane", "-p", "-t", "outer") }

func (o *terminal) shows(what string) {
	o.t.Helper()
	testenv.Until(o.t, "the screen shows "+what, func() bool { return strings.Contains(o.frame(), what) })
}

// In a terminal there are three panes. What is typed by hand into ann's is on
// ben's and in the verdict.
func demoInPanes(t *testing.T, call []string) {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("not run: tmux is not installed")
	}
	dir := t.TempDir()
	code := filepath.Join(dir, "code")
	o := &terminal{t, filepath.Join(dir, "tmux")}
	command := "TMPDIR=" + dir + " " + strings.Join(call, " ") +
		" --seed 2 --only kill-chat --interval 2s; echo $? > " + code + "; exec cat"
	o.tmux("new-session", "-d", "-s", "outer", "-x", "140", "-y", "40", command)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen at the end:\n%s", o.frame())
		}
		_ = exec.CommandContext(context.Background(), "tmux", "-S", o.socket, "kill-server").Run()
	})
	o.shows("F4 here")
	o.tmux("send-keys", "-t", "outer", "F2")
	o.tmux("send-keys", "-t", "outer", "-l", "by hand 你好")
	o.shows("❯ by hand 你好")
	o.tmux("send-keys", "-t", "outer", "Enter")
	testenv.Until(t, "both terminals show it", func() bool { return strings.Count(o.frame(), "  by hand 你好") == 2 })
	o.shows("NOW kill -9 chat-")
	t.Logf("during a kill:\n%s", o.frame())
	o.tmux("send-keys", "-t", "outer", "F4")
	o.tmux("send-keys", "-t", "outer", "q")
	o.shows("NOTHING WAS LOST")
	o.shows("1 of them typed by hand")
	t.Logf("the verdict:\n%s", o.frame())
	testenv.Until(t, "a key leaves", func() bool {
		if strings.Contains(o.frame(), "any key, leaves") {
			o.tmux("send-keys", "-t", "outer", "x")
		}
		_, err := os.Stat(code)
		return err == nil
	})
	testenv.Until(t, "it prints its exit code", func() bool {
		got, err := os.ReadFile(code)
		return err == nil && strings.TrimSpace(string(got)) == "0"
	})
	o.shows("the same faults again: ./justw chaos-demo --seed 2")
	left, err := filepath.Glob(filepath.Join(dir, "msrchat-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
