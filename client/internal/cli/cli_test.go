package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/cli"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store/sqlite"
)

const patience = 30 * time.Second

// world is a chat service and a machine with profiles.
type world struct {
	t    *testing.T
	log  *fake.Log
	gate *fake.Gate
	chat *fake.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, log: fake.NewLog()}
	w.chat = fake.NewServer(t, w.log, "chat-1")
	w.gate = fake.NewGate(t, w.log)
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("MSRCHAT_GATE", w.gate.URL)
	for _, name := range []string{"MSRCHAT_PROFILE", "MSRCHAT_PORT_BASE", "MSRCHAT_CA_FILE", "MSRCHAT_DEBUG"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// buffer is an output that may be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// command is a run of the program.
type command struct {
	t        *testing.T
	args     []string
	out, err buffer
	cancel   context.CancelFunc
	done     chan struct{}
	code     int
}

type option func(*cli.Env)

func stdin(s string) option { return func(e *cli.Env) { e.Stdin = strings.NewReader(s) } }

// terminal is a person who types answers, and passwords one after the other.
func terminal(typed string, passwords ...string) option {
	return func(e *cli.Env) {
		e.Stdin, e.Interactive, e.Terminal = strings.NewReader(typed), true, true
		e.ReadPassword = func(context.Context) (string, error) {
			if len(passwords) == 0 {
				return "", io.EOF
			}
			next := passwords[0]
			passwords = passwords[1:]
			return next, nil
		}
	}
}

func (w *world) start(args []string, options ...option) *command {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &command{t: w.t, args: args, cancel: cancel, done: make(chan struct{})}
	env := cli.Env{
		Stdin: strings.NewReader(""), Stdout: &c.out, Stderr: &c.err, Version: "test",
		ReadPassword: func(context.Context) (string, error) { return "", errors.New("no terminal") },
		Screen: func(context.Context, *client.Client, *sqlite.Store, *slog.Logger) error {
			return errors.New("no screen here")
		},
		Backoff: client.Backoff{
			First: time.Millisecond, Base: 5 * time.Millisecond, Cap: 20 * time.Millisecond,
			Stable: time.Millisecond,
		},
	}
	for _, o := range options {
		o(&env)
	}
	go func() {
		defer close(c.done)
		c.code = cli.Run(ctx, append([]string{"msrchat"}, args...), env)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-c.done
	})
	return c
}

func (c *command) wait() *command {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatalf("%q does not end; it said %s%s", c.args, c.out.String(), c.err.String())
	}
	return c
}

func (w *world) run(args []string, options ...option) *command {
	w.t.Helper()
	return w.start(args, options...).wait()
}

// ok runs a command that must succeed and returns what it printed.
func (w *world) ok(args []string, options ...option) string {
	w.t.Helper()
	c := w.run(args, options...)
	if c.code != 0 {
		w.t.Fatalf("%q ended with %d: %s", args, c.code, c.err.String())
	}
	return c.out.String()
}

// fails runs a command that must end with a code, and say something.
func (w *world) fails(code int, says string, args []string, options ...option) {
	w.t.Helper()
	c := w.run(args, options...)
	if c.code != code || !strings.Contains(c.err.String(), says) {
		w.t.Errorf("%q ended with %d and said %q, want %d and %q", args, c.code, c.err.String(), code, says)
	}
}

// register makes an account with a profile of its name.
func (w *world) register(name string) {
	w.t.Helper()
	w.ok(words("--profile "+name+" register --password-stdin --code "+fake.Code+
		" --name "+name+" --email "+name+"@example.org"), stdin("correct horse "+name+"\n"))
}

func words(s string) []string { return strings.Fields(s) }

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond) // between looks at a condition
	}
}

// object decodes a JSON line.
func object(t *testing.T, line string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(line), &o); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return o
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func TestFromTheFirstCodeToTheFirstMessage(t *testing.T) {
	w := newWorld(t)
	if out := w.ok(words("code ann@example.org")); !strings.Contains(out, "msrchat register --email ann@example.org") {
		t.Errorf("code printed %q", out)
	}
	out := w.ok(words("register --profile ann --email ann@example.org --name Ann --code 123456"),
		terminal("", "correct horse", "correct horse"))
	if !strings.Contains(out, "logged in as Ann until ") {
		t.Errorf("register printed %q", out)
	}
	w.register("bob")
	if out := w.ok(words("send --profile ann --to BOB hello there")); out != "1\n" {
		t.Errorf("send printed %q", out)
	}
	if out := w.ok(words("send --to ann --profile bob -"), stdin("多行\n文字\r\n\n")); out != "2\n" {
		t.Errorf("send from stdin printed %q", out)
	}
	sent := object(t, w.ok([]string{"--profile", "ann", "--json", "send", "--to", "bob", "--", "--json is text here"}))
	if sent["seq"] != 3.0 || sent["to"] != "bob" || sent["existing"] != false || len(sent["id"].(string)) != 36 ||
		sent["conversation"] == "" {
		t.Errorf("send printed %v", sent)
	}
	w.history()
	w.identity()
}

// What to do next is said for the same profile.
func TestTheNextCommandIsOfTheSameProfile(t *testing.T) {
	w := newWorld(t)
	const next = " register --email ann@example.org --name NAME --code CODE"
	for profile, want := range map[string]string{"default": "msrchat", "work": "msrchat --profile work"} {
		if out := w.ok(words("--profile " + profile + " code ann@example.org")); !strings.Contains(out, want+next) {
			t.Errorf("profile %s: %s", profile, out)
		}
	}
}

// history checks what history and chats print after the messages above.
func (w *world) history() {
	t := w.t
	t.Helper()
	got := lines(w.ok(words("history --profile ann --with Bob")))
	if len(got) != 3 {
		t.Fatalf("history printed %q", got)
	}
	for i, want := range []string{
		"bob #1  Ann: hello there", "bob #2  bob: 多行 ↵ 文字 ↵ ",
		"bob #3  Ann: --json is text here",
	} {
		if !strings.HasSuffix(got[i], want) {
			t.Errorf("line %d is %q, want …%q", i+1, got[i], want)
		}
	}
	for args, want := range map[string]string{
		"": "1 2 3", "--after 1": "2 3", "--limit 2": "2 3", "--after 1 --limit 1": "2",
		"--after 3": "", "--after 0 --limit 2": "1 2", "--limit 9": "1 2 3",
	} {
		var seqs []string
		for _, line := range lines(w.ok(words("history --json --profile bob --with ann " + args))) {
			o := object(t, line)
			seqs = append(seqs, fmt.Sprint(o["seq"]))
			if o["with"] != "Ann" || o["kind"] != "text" || o["mine"] != (o["from"] == "bob") {
				t.Errorf("object: %v", o)
			}
			if at, err := time.Parse(time.RFC3339, o["at"].(string)); err != nil || at.Location() != time.UTC {
				t.Errorf("at: %v, %v", o["at"], err)
			}
		}
		if got := strings.Join(seqs, " "); got != want {
			t.Errorf("history %s printed %s, want %s", args, got, want)
		}
	}
	if out := w.ok(words("chats --profile bob")); out != "Ann  3 messages\n" {
		t.Errorf("chats printed %q", out)
	}
	chat := object(t, w.ok(words("chats --json --profile bob")))
	last, _ := chat["last"].(map[string]any)
	if chat["with"] != "Ann" || chat["head"] != 3.0 || chat["unread"] != 1.0 || // behind bob's own

		last["text"] != "--json is text here" || last["at"] == "" {
		t.Errorf("chats printed %v", chat)
	}
}

// identity checks whoami, logout and login.
func (w *world) identity() {
	t := w.t
	t.Helper()
	if out := w.ok(words("--profile ann whoami")); !strings.HasPrefix(out, "Ann (id ") ||
		!strings.Contains(out, "on chat server chat-1 (127.0.0.1:") {
		t.Errorf("whoami printed %q", out)
	}
	me := object(t, w.ok(words("--profile ann whoami --json")))
	server, user := me["server"].(map[string]any), me["user"].(map[string]any)
	if server["instance"] != "chat-1" || server["connected"] != true || user["name"] != "Ann" ||
		user["email"] != "ann@example.org" || me["waiting"] != 0.0 {
		t.Errorf("whoami printed %v", me)
	}
	if out := w.ok(words("--profile ann logout")); out != "logged out Ann\n" {
		t.Errorf("logout printed %q", out)
	}
	w.fails(3, "msrchat --profile ann login --name NAME", words("--profile ann chats"))
	w.fails(3, "nobody is logged in", words("--profile ann logout"))
	w.fails(4, "wrong", words("--profile ann login --name ann --password-stdin"), stdin("nope nope\n"))
	w.ok(words("--profile ann login --email ann@example.org --password-stdin"), stdin("correct horse\r\n"))
	w.ok(words("--profile ann login --name ann"), terminal("", "correct horse"))
	if out := w.ok(words("--profile ann send --to bob back")); out != "4\n" {
		t.Errorf("send printed %q", out)
	}
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	for _, c := range []struct{ args, says string }{
		{"frobnicate", `no command "frobnicate"`},
		{"--frob", "frob"},
		{"send --frob", "frob"},
		{"send hello", "--to is missing"},
		{"--profile ann send --to bob hello --json", "--json goes before the text"},
		{"--profile ann send --to bob --lines hello", "too much"},
		{"history", "--with is missing"},
		{"history --with bob --limit x", "invalid value"},
		{"chats --with bob", "with"},
		{"code", "for which address"},
		{"code ann@example.org --json", "options go before"},
		{"register --email a@example.org", "--name is missing"},
		{"login", "give --name or --email"},
		{"login --name a --email b", "give --name or --email"},
		{"login --name a", "use --password-stdin"},
		{"login --name a --password-stdin", "has no password"},
		{"--profile a/b whoami", "a profile's name"},
		{"--gate nonsense code a@example.org", "the gate must be a URL"},
		{"--ca-file /does/not/exist --profile ann chats", "--ca-file"},
		{"", "needs a terminal"},
	} {
		w.fails(2, c.says, words(c.args))
	}
	out := w.ok(words("--help"))
	for _, want := range []string{
		"Exit codes", " 130 ", "MSRCHAT_GATE", "send", "tail", "history", "chats", "whoami",
		"register",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("--help does not tell of %q", want)
		}
	}
	if out := w.ok(words("--version")); !strings.Contains(out, "test") {
		t.Errorf("--version printed %q", out)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.fails(3, "msrchat login --name NAME", words("send --to bob hi"))
	w.fails(4, "e-mail address", words("code nonsense"))
	w.fails(4, "code", words("register --email a@example.org --name ann --code 1 --password-stdin"),
		stdin("correct horse\n"))
	w.fails(4, "shorter than 8", words("register --email a@example.org --name ann --code 1"),
		terminal("", "short", "short"))
	w.fails(4, "differ", words("register --email a@example.org --name ann --code 1"),
		terminal("", "correct horse", "correct house"))
	w.register("ann")
	w.fails(4, "taken", words("register --email b@example.org --name ANN --code 123456 --password-stdin"),
		stdin("correct horse\n"))
	w.fails(4, "nobody named nobody", words("--profile ann send --to nobody hi"))
	w.fails(4, "the text is empty", words("--profile ann send --to bob"), stdin("\n"))
	w.fails(4, "longer than 4096", words("--profile ann send --to bob"), stdin(strings.Repeat("長", 10_000)))
	w.fails(4, "control character", []string{"--profile", "ann", "send", "--to", "bob", "a\x1b[2Jb"})
	w.fails(4, "the name", []string{"--profile", "ann", "send", "--to", "b\x1bb", "hi"})
	w.fails(4, "the name", []string{"--profile", "ann", "history", "--with", "b b"})
	// A refused message does not stay in the outbox.
	if c := w.run(words("--profile ann outbox")); c.code != 0 || c.out.String() != "" ||
		!strings.Contains(c.err.String(), "empty") {
		t.Errorf("outbox: %d %q %q", c.code, c.out.String(), c.err.String())
	}
	if c := w.run(words("--profile ann chats")); c.code != 0 || c.out.String() != "" ||
		!strings.Contains(c.err.String(), "no conversations yet") {
		t.Errorf("chats: %d %q %q", c.code, c.out.String(), c.err.String())
	}
	if c := w.run(words("--profile ann history --with bob")); c.code != 0 || c.out.String() != "" ||
		!strings.Contains(c.err.String(), "no messages with bob yet") {
		t.Errorf("history: %d %q %q", c.code, c.out.String(), c.err.String())
	}
	w.log.Revoke("ann")
	w.fails(3, "log in", words("--profile ann whoami"))
	w.fails(3, "log in", words("--profile ann chats"))
	w.fails(3, "log in", words("--profile ann tail"))
}

func TestAMessageWithoutAConnectionIsKept(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.register("bob")
	w.chat.Kill()
	w.fails(5, "do not send it again", words("--profile ann send --timeout 50ms --to bob first"))
	w.fails(5, "msrchat:", words("--profile ann chats --timeout 50ms"))
	interrupted := w.start(words("--profile ann send --to bob second"))
	w.until("two queued", func() bool {
		return len(lines(w.ok(words("--profile ann outbox")))) == 2
	})
	interrupted.cancel()
	if c := interrupted.wait(); c.code != 130 || !strings.Contains(c.err.String(), "interrupted") ||
		!strings.Contains(c.err.String(), "kept") {
		t.Errorf("interrupted: %d %q", c.code, c.err.String())
	}
	queued := object(t, lines(w.ok(words("--profile ann outbox --json")))[0])
	if queued["text"] != "first" || queued["state"] != "queued" || queued["to"] != "bob" {
		t.Errorf("outbox printed %v", queued)
	}
	whoami := w.run(words("--profile ann whoami --timeout 50ms"))
	if whoami.code != 5 || !strings.Contains(whoami.out.String(), "not connected") {
		t.Errorf("whoami: %d %q %q", whoami.code, whoami.out.String(), whoami.err.String())
	}
	logout := w.run(words("--profile ann logout"))
	if logout.code != 0 || !strings.Contains(logout.err.String(), "2 messages wait") {
		t.Errorf("logout: %d %q", logout.code, logout.err.String())
	}
	w.ok(words("--profile ann login --name ann --password-stdin"), stdin("correct horse ann\n"))
	w.chat = fake.NewServer(t, w.log, "chat-2")
	w.gate.Only("chat-2")
	if out := w.ok(words("--profile ann send --to bob third")); out != "3\n" {
		t.Errorf("send printed %q", out)
	}
	if got := w.log.Texts(w.log.Open("ann", "bob")); fmt.Sprint(got) != "[first second third]" {
		t.Errorf("log: %q", got)
	}
}

func TestAGateOutOfReach(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	w.gate.Kill()
	w.fails(5, "cannot be reached", words("code a@example.org"))
	w.fails(5, "cannot be reached", words("--profile ann chats --timeout 50ms"))
	logout := w.run(words("--profile ann logout"))
	if logout.code != 5 || !strings.Contains(logout.err.String(), "forgotten here") {
		t.Errorf("logout: %d %q", logout.code, logout.err.String())
	}
	w.fails(3, "nobody is logged in", words("--profile ann whoami"))
}

func TestTheGateIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.register("ann")
	if err := os.Unsetenv("MSRCHAT_GATE"); err != nil {
		t.Fatal(err)
	}
	w.ok(words("--profile ann whoami"))
	t.Setenv("MSRCHAT_PORT_BASE", "1")
	w.fails(5, "http://127.0.0.1:1 cannot be reached", words("code a@example.org"))
	w.ok(words("--profile ann whoami"))
	w.fails(5, "127.0.0.1:2", words("--profile ann --gate http://127.0.0.1:2 logout"))
}

func TestTheScreenIsOpenedForWhoIsLoggedIn(t *testing.T) {
	w := newWorld(t)
	w.register("bob")
	opened := ""
	screen := func(e *cli.Env) {
		e.Screen = func(_ context.Context, c *client.Client, s *sqlite.Store, log *slog.Logger) error {
			log.Info("opened")
			opened = c.Session().User.Name
			return s.SetMeta(context.Background(), "opened", "x")
		}
	}
	answers := "what\nregister\nann@example.org\n123456\n!\n123456\nAnn\n"
	c := w.run(words("--profile ann --debug"), terminal(answers, "correct horse", "correct horse"), screen)
	if c.code != 0 || opened != "Ann" {
		t.Fatalf("ended with %d, opened for %q: %s", c.code, opened, c.err.String())
	}
	raw, err := os.ReadFile(filepath.Join(os.Getenv("XDG_STATE_HOME"), "msrchat", "ann", "debug.log"))
	if err != nil || !strings.Contains(string(raw), "opened") {
		t.Errorf("log: %q, %v", raw, err)
	}
	w.run(words("--profile bob logout"))
	c = w.run(words("--profile bob"), terminal("l\nbob\nbob\n", "wrong wrong", "correct horse bob"), screen)
	if c.code != 0 || opened != "bob" {
		t.Fatalf("ended with %d, opened for %q: %s", c.code, opened, c.err.String())
	}
	w.fails(3, "nobody is logged in", words("--profile carol"), terminal(""), screen)
}
