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
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+string(filepath.Separator), "./client/cmd/msrchat", "./e2e/cmd/chaos-demo")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return []string{filepath.Join(bin, "chaos-demo"), "--root", root, "--bin", bin, "--msrchat", filepath.Join(bin, "msrchat")}
}

// The last counters of a run without loss.
var counters = regexp.MustCompile(`typed ([\d,]+), acknowledged ([\d,]+), shown ([\d,]+); lost 0, doubled 0, reordered 0\n\nNOTHING WAS LOST`)

func TestDemo(t *testing.T) {
	call := programs(t)
	t.Run("lines", func(t *testing.T) { demoInLines(t, call) })
	t.Run("panes", func(t *testing.T) { demoInPanes(t, call) })
	t.Run("usage", func(t *testing.T) {
		err := exec.CommandContext(t.Context(), call[0], "--interval", "1ms").Run()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("a wrong flag ends with %v, want exit code 2", err)
		}
	})
}

// Without a terminal it prints lines, and ends with the verdict.
func demoInLines(t *testing.T, call []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	args := append(call[1:len(call):len(call)], "--seed", "1", "--duration", "8s", "--interval", "4s", "--only", "kill-chat,kill-mysql")
	cmd := exec.CommandContext(ctx, call[0], args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the demo: %v\n%s%s", err, &out, &errs)
	}
	t.Logf("\n%s", &out)
	for _, want := range []string{"seed 1", "kill -9 chat-", "kill -9 mysql", ", 2 faults", "in both histories and on both screens", "--seed 1 --duration 8s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not there", want)
		}
	}
	found := counters.FindStringSubmatch(out.String())
	if found == nil {
		t.Fatal("there are no counters before the verdict")
	}
	if found[1] != found[2] || len(found[1]) < 3 {
		t.Errorf("typed %s, acknowledged %s: want as many, and more than some", found[1], found[2])
	}
}

// terminal is the demo in a tmux of the test's.
type terminal struct {
	t      *testing.T
	socket string
}

func (o *terminal) tmux(args ...string) string {
	o.t.Helper()
	out, err := exec.CommandContext(context.Background(), "tmux", append([]string{"-u", "-f", "/dev/null", "-S", o.socket}, args...)...).CombinedOutput()
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
	command := "TMPDIR=" + dir + " " + strings.Join(call, " ") + " --seed 2 --only kill-chat --interval 2s; echo $? > " + code + "; exec cat"
	o.tmux("new-session", "-d", "-s", "outer", "-x", "140", "-y", "40", command)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen at the end:\n%s", o.frame())
		}
		_ = exec.CommandContext(context.Background(), "tmux", "-S", o.socket, "kill-server").Run()
	})
	o.shows("F4 back here")
	o.tmux("send-keys", "-t", "outer", "F2")
	o.tmux("send-keys", "-t", "outer", "-l", "by hand 你好")
	o.shows("❯ by hand 你好")
	o.tmux("send-keys", "-t", "outer", "Enter")
	testenv.Until(t, "both terminals show it", func() bool { return strings.Count(o.frame(), "  by hand 你好") == 2 })
	o.shows("NOW kill -9 chat-")
	t.Logf("during a kill:\n%s", o.frame())
	o.tmux("send-keys", "-t", "outer", "F4")
	o.shows("q verdict now")
	o.tmux("send-keys", "-t", "outer", "q")
	o.shows("NOTHING WAS LOST")
	o.shows("1 of them typed by hand")
	t.Logf("the verdict:\n%s", o.frame())
	testenv.Until(t, "a key leaves", func() bool {
		if strings.Contains(o.frame(), "any key leaves") {
			o.tmux("send-keys", "-t", "outer", "x")
		}
		_, err := os.Stat(code)
		return err == nil
	})
	testenv.Until(t, "it tells its exit code", func() bool {
		got, err := os.ReadFile(code)
		return err == nil && strings.TrimSpace(string(got)) == "0"
	})
	o.shows("the same faults again: ./justw chaos-demo --seed 2")
	left, err := filepath.Glob(filepath.Join(dir, "msrchat-arena-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
