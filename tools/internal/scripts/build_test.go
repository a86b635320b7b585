// Package scripts tests what the shell scripts in tools/ share.
package scripts_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkout is a small one with a program, and a go on PATH that counts how often it is
// asked.
type checkout struct {
	t            *testing.T
	root, state  string
	asked, after string // files: a line for each call of go; what go runs when it is done
	env          []string
}

const program = `package main

import "fmt"

func main() { fmt.Print(text + more) }
`

func newCheckout(t *testing.T) *checkout {
	t.Helper()
	for _, name := range []string{"bash", "go", "find", "flock"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("not run: %v", err)
		}
	}
	if exec.CommandContext(t.Context(), "find", ".", "-maxdepth", "0", "-printf", "").Run() != nil {
		t.Skip("not run: find is not GNU's, so every start asks go")
	}
	dir := t.TempDir()
	c := &checkout{
		t: t, root: filepath.Join(dir, "checkout"), state: filepath.Join(dir, "state"),
		asked: filepath.Join(dir, "asked"), after: filepath.Join(dir, "after"),
	}
	realGo, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	c.write("../bin/go", fmt.Sprintf(`#!/bin/sh
echo "$*" >>%s
%s "$@"
code=$?
[ ! -e %s ] || . %s
exit $code
`, c.asked, realGo, c.after, c.after))
	if err := os.Chmod(filepath.Join(dir, "bin", "go"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "MSRCHAT_STATE="+c.state)
	c.write("go.work", "go 1.26.0\n\nuse ./hello\n")
	c.write("hello/go.mod", "module example.org/hello\n\ngo 1.26.0\n")
	c.write("hello/cmd/hello/main.go", program)
	c.write("hello/cmd/hello/text.go", "package main\n\nconst text = \"one\"\n")
	c.write("hello/cmd/hello/more.go", "package main\n\nconst more = \"\"\n")
	return c
}

func (c *checkout) path(name string) string { return filepath.Join(c.root, name) }

func (c *checkout) write(name, text string) {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Dir(c.path(name)), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// run starts the program as the recipes do. It returns what that printed, how often go
// was asked, and how long it took.
func (c *checkout) run(env ...string) (printed string, asked int, took time.Duration) {
	c.t.Helper()
	_ = os.Remove(c.asked)
	lib, err := filepath.Abs("../../lib.sh")
	if err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	cmd := exec.CommandContext(c.t.Context(), "bash", "-c",
		`set -euo pipefail; root=$1; . "$2"; program=$(build_program hello/cmd/hello); exec "$program"`,
		"bash", c.root, lib)
	cmd.Env = append(c.env, env...)
	var failed bytes.Buffer // and progress, on a busy machine
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		out = append(out, failed.Bytes()...)
	}
	took = time.Since(began)
	calls, _ := os.ReadFile(c.asked)
	return string(out), strings.Count(string(calls), "\n"), took
}

// settle waits until go is not asked any more: the last change has to be a moment ago.
func (c *checkout) settle(want string) {
	c.t.Helper()
	for range 100 {
		printed, asked, took := c.run()
		if printed != want {
			c.t.Fatalf("printed %q, want %q", printed, want)
		}
		if asked == 0 {
			c.t.Logf("without go it starts in %v", took)
			return
		}
		time.Sleep(100 * time.Millisecond) // between two looks
	}
	c.t.Fatal("go is asked again and again although nothing changed")
}

// An old program never runs after a change, whatever the change is, and go is not asked
// without one.
func TestAProgramIsNeverOlderThanItsSources(t *testing.T) {
	t.Parallel()
	const text = "hello/cmd/hello/text.go"
	for _, tc := range []struct {
		name   string
		change func(c *checkout)
		env    string
		want   string // in what it prints then
	}{
		{"an edit that keeps size and time", func(c *checkout) {
			info, err := os.Stat(c.path(text))
			if err != nil {
				c.t.Fatal(err)
			}
			c.write(text, "package main\n\nconst text = \"two\"\n")
			if err := os.Chtimes(c.path(text), info.ModTime(), info.ModTime()); err != nil {
				c.t.Fatal(err)
			}
		}, "", "two"},
		{"an older file takes its place", func(c *checkout) {
			c.write("old", "package main\n\nconst text = \"old\"\n")
			past := time.Now().Add(-time.Hour)
			if err := os.Chtimes(c.path("old"), past, past); err != nil {
				c.t.Fatal(err)
			}
			if err := os.Rename(c.path("old"), c.path(text)); err != nil {
				c.t.Fatal(err)
			}
		}, "", "old"},
		{"a new file", func(c *checkout) {
			c.write("hello/cmd/hello/new.go", "package main\n\nimport \"fmt\"\n\nfunc init() { fmt.Print(\"new \") }\n")
		}, "", "new one"},
		{"a file is gone", func(c *checkout) {
			if err := os.Remove(c.path(text)); err != nil {
				c.t.Fatal(err)
			}
		}, "", "undefined: text"},
		{"what does not compile", func(c *checkout) {
			c.write(text, "package main\n\nconst text = 1\n")
		}, "", "mismatched types"},
		{"a module file that go cannot read", func(c *checkout) {
			c.write("hello/go.mod", "nonsense\n")
		}, "", "nonsense"},
		{"other settings of go", func(c *checkout) {
			c.write("hello/cmd/hello/tagged.go",
				"//go:build tagged\n\npackage main\n\nimport \"fmt\"\n\nfunc init() { fmt.Print(\"tagged \") }\n")
			c.settle("one")
		}, "GOFLAGS=-tags=tagged", "tagged one"},
		{"the program is gone", func(c *checkout) {
			if err := os.Remove(filepath.Join(c.state, "build", "hello")); err != nil {
				c.t.Fatal(err)
			}
		}, "", "one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCheckout(t)
			c.settle("one")
			tc.change(c)
			printed, _, _ := c.run(tc.env)
			if !strings.Contains(printed, tc.want) {
				t.Errorf("after it: %q, want %q", printed, tc.want)
			}
			if old := strings.HasSuffix(printed, "one"); old != strings.HasSuffix(tc.want, "one") {
				t.Errorf("the old program ran: %q", printed)
			}
		})
	}
}

// What changes while go builds is not taken for built.
func TestAChangeDuringTheBuildIsNotLost(t *testing.T) {
	t.Parallel()
	c := newCheckout(t)
	c.settle("one")
	c.write("hello/cmd/hello/more.go", "package main\n\nconst more = \" more\"\n")
	time.Sleep(2 * time.Second) // so that only the change below is recent
	if err := os.WriteFile(c.after, []byte("case $1 in build) sed -i s/one/two/ "+
		c.path("hello/cmd/hello/text.go")+" ;; esac\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if printed, _, _ := c.run(); printed != "one more" {
		t.Fatalf("the first time: %q", printed)
	}
	if err := os.Remove(c.after); err != nil {
		t.Fatal(err)
	}
	if printed, _, _ := c.run(); printed != "two more" {
		t.Errorf("the second time: %q", printed)
	}
}

// Two terminals that begin at once after a change get whole programs.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	c := newCheckout(t)
	printed := make(chan string)
	for range 3 {
		go func() {
			out, _, _ := c.run()
			printed <- out
		}()
	}
	for range 3 {
		if out := <-printed; out != "one" {
			t.Errorf("printed %q", out)
		}
	}
}
