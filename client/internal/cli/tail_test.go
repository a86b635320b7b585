package cli_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/msrchat/msrchat/client/internal/cli"
)

func TestTailFollowsThroughLostConnections(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	w.register("carol")
	conv, other := w.log.Open("ann", "bob"), w.log.Open("ann", "carol")
	tail := w.start(words("--profile ann --json tail"))
	only := w.start(words("--profile ann tail --with CAROL"))
	w.until("connected", func() bool {
		return strings.Contains(tail.err.String(), "connected to chat-1") &&
			strings.Contains(only.err.String(), "connected")
	})
	var want []string
	say := func(n int) {
		for i := range n {
			text := fmt.Sprintf("m %d 你好\n🎉", len(want))
			w.log.Say(conv, []string{"ann", "bob"}[i%2], text)
			want = append(want, text)
		}
	}
	say(20)
	w.chat.Cut()
	say(20)
	w.log.Say(other, "carol", "for carol's")
	w.until("41 messages", func() bool { return len(lines(tail.out.String())) == 41 })
	w.until("one message", func() bool { return len(lines(only.out.String())) == 1 })
	tail.cancel()
	only.cancel()
	if tail.wait().code != 0 || only.wait().code != 0 {
		t.Errorf("Ctrl-C: %d, %d", tail.code, only.code)
	}
	var got []string
	for _, line := range lines(tail.out.String()) {
		o := object(t, line)
		if o["with"] == "bob" {
			got = append(got, o["text"].(string))
			if o["seq"] != float64(len(got)) {
				t.Errorf("message %d has number %v", len(got), o["seq"])
			}
		}
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("tail printed %q", got)
	}
	if !strings.HasSuffix(only.out.String(), "carol #1  carol: for carol's\n") {
		t.Errorf("tail --with printed %q", only.out.String())
	}
	if n := strings.Count(tail.err.String(), "\n"); n > 3 {
		t.Errorf("%d status lines: %s", n, tail.err.String())
	}
	// What came meanwhile is printed next time, unless it is not wanted.
	say(2)
	if out := lines(w.ok(words("--profile ann tail --count 2"))); len(out) != 2 || !strings.Contains(out[1], "#42 ") {
		t.Errorf("the next tail printed %q", out)
	}
}

func TestTailEndsWithItsSession(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	tail := w.start(words("--profile ann tail"))
	w.until("connected", func() bool { return strings.Contains(tail.err.String(), "connected") })
	w.log.Revoke("ann")
	w.chat.Cut()
	if c := tail.wait(); c.code != 3 || !strings.Contains(c.err.String(), "login --name") {
		t.Errorf("ended with %d: %s", c.code, c.err.String())
	}
}

func TestLinesAreSentInOrder(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	var in strings.Builder
	for i := range 200 {
		fmt.Fprintf(&in, "line %d\n\n", i+1)
	}
	out := lines(w.ok(words("--profile ann send --to bob --lines"), stdin(in.String())))
	if len(out) != 200 || out[199] != "200" {
		t.Errorf("printed %d numbers, the last %q", len(out), out[len(out)-1])
	}
	texts := w.log.Texts(w.log.Open("ann", "bob"))
	for i, text := range texts {
		if text != fmt.Sprintf("line %d", i+1) {
			t.Fatalf("message %d is %q", i+1, text)
		}
	}
	c := w.run(words("--profile ann send --to bob --lines"), stdin("fine\n"+strings.Repeat("x", 20_000)+"\nnever\n"))
	if c.code != 4 || c.out.String() != "201\n" || !strings.Contains(c.err.String(), "longer") {
		t.Errorf("too long a line: %d %q %q", c.code, c.out.String(), c.err.String())
	}
}

// A pipe that stays open, as a log's does, tells of each line when it is there.
func TestLinesAreToldOneByOne(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	for _, end := range []struct {
		by   func(in *io.PipeWriter, c *command)
		code int
	}{
		{func(in *io.PipeWriter, _ *command) { _ = in.Close() }, 0},
		{func(_ *io.PipeWriter, c *command) { c.cancel() }, 130},
	} {
		out, in := io.Pipe()
		before := len(w.log.Texts(w.log.Open("ann", "bob")))
		c := w.start(words("--profile ann send --to bob --lines"), func(e *cli.Env) { e.Stdin = out })
		var want string
		for n := range 3 {
			fmt.Fprintln(in, "line", n)
			want += fmt.Sprintln(before + n + 1)
			w.until("its number", func() bool { return c.out.String() == want })
		}
		end.by(in, c)
		if c.wait().code != end.code {
			t.Errorf("ended with %d, want %d: %s", c.code, end.code, c.err.String())
		}
		_ = in.Close()
	}
}

// No byte that another person chose may act on the terminal, in any output.
func TestNothingFromOthersActsOnTheTerminal(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	conv := w.log.Open("ann", "bob")
	evil := "a\x1b]52;c;ZXZpbA==\x07\x1b[2J\u009b31m\u202egpj\u2066\x7f\u2028z"
	w.log.Inject(conv, "bob", evil)
	w.log.Tamper("bob", "bo\x1b[31mb\u202e")
	for _, args := range []string{
		"history --with ann", "history --with ann --json", "chats", "chats --json", "tail --count 1",
		"tail --json --count 1 --from-now",
	} {
		profile := "--profile ann "
		if strings.HasPrefix(args, "history") {
			profile = "--profile bob "
		}
		if strings.Contains(args, "from-now") {
			continue
		}
		c := w.run(words(profile + args))
		if c.code != 0 {
			t.Errorf("%s: %d %s", args, c.code, c.err.String())
		}
		for _, s := range []string{c.out.String(), c.err.String()} {
			harmless(t, args, s)
		}
		if strings.HasPrefix(args, "history --with ann --json") && object(t, c.out.String())["text"] != evil {
			t.Errorf("%s changed the text: %q", args, c.out.String())
		}
	}
	w.gate.Fail(fmt.Errorf("never shown"))
	harmless(t, "error", w.run(words("code \x1b[31m@example.org")).err.String())
}

func harmless(t *testing.T, what, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%s printed broken UTF-8: %q", what, s)
	}
	for _, r := range s {
		if r != '\n' && unicode.IsControl(r) || r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 {
			t.Errorf("%s printed %U in %q", what, r, s)
		}
	}
}

func TestNoSecretIsPrintedOrLogged(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	raw, err := os.ReadFile(filepath.Join(os.Getenv("XDG_STATE_HOME"), "msrchat", "ann", "session.json"))
	if err != nil {
		t.Fatal(err)
	}
	token := object(t, string(raw))["token"].(string)
	for _, args := range []string{"--debug send --to bob hi", "--debug whoami --json", "--debug chats"} {
		c := w.run(words("--profile ann " + args))
		if all := c.out.String() + c.err.String(); strings.Contains(all, token) ||
			strings.Contains(all, "correct horse") {
			t.Errorf("%s shows a secret: %s", args, all)
		}
	}
}
