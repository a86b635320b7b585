package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/e2e/fleet"
)

// user is one profile of the msrchat program.
type user struct {
	t    *testing.T
	f    *fleet.Fleet
	home string
	name string
}

// newUser registers with the commands of the README.
func newUser(t *testing.T, f *fleet.Fleet, home, name string) *user {
	t.Helper()
	u := &user{t, f, home, name}
	email := name + "@example.org"
	u.must("", "code", email)
	u.must("a long password\n",
		"register", "--email", email, "--name", name, "--code", f.Code(email), "--password-stdin")
	return u
}

// must runs a command that has to succeed.
func (u *user) must(stdin string, args ...string) string {
	u.t.Helper()
	out, err := u.run(stdin, args...)
	if err != nil {
		u.t.Fatalf("msrchat %v: %v\n%s", args, err, out)
	}
	return out
}

func (u *user) run(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	cmd := u.f.Msrchat(ctx, u.home, u.name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, &stderr)
	}
	return stdout.String(), nil
}

// line is what tail and history print with --json.
type line struct {
	Seq  uint64 `json:"seq"`
	From string `json:"from"`
	Text string `json:"text"`
}

func lines(t *testing.T, out string) (all []line) {
	t.Helper()
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		all = append(all, l)
	}
	return all
}

// tail is a running `msrchat tail --json`; the mutex owns lines.
type tail struct {
	mu    sync.Mutex
	lines []line
	links []string // the servers it was connected to
}

func (u *user) tail() *tail {
	u.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := u.f.Msrchat(ctx, u.home, u.name, "--json", "tail")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	w := &tail{}
	var reading sync.WaitGroup
	reading.Go(func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			var l line
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				u.t.Errorf("tail says %q", s.Text())
			}
			w.mu.Lock()
			w.lines = append(w.lines, l)
			w.mu.Unlock()
		}
	})
	reading.Go(func() {
		for s := bufio.NewScanner(stderr); s.Scan(); {
			if m := connectedTo.FindStringSubmatch(s.Text()); m != nil {
				w.mu.Lock()
				w.links = append(w.links, m[1])
				w.mu.Unlock()
			}
		}
	})
	u.t.Cleanup(func() {
		cancel()
		reading.Wait()
		_ = cmd.Wait() // interrupted, as wanted
	})
	testenv.Until(u.t, u.name+"'s tail is connected", func() bool { return len(w.servers()) > 0 })
	return w
}

func (w *tail) servers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.links...)
}

func (w *tail) seen() []line {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]line(nil), w.lines...)
}

var connectedTo = regexp.MustCompile(`connected to (\S+)`)

// commands lets two profiles chat by script: 200 messages both ways, every one
// once, in order, as it was typed.
func commands(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	home := t.TempDir()
	cara := newUser(t, f, home, "cara")
	caras := cara.tail()
	dan := newUser(t, f, home, "dan")
	dans := dan.tail()
	who := cara.must("", "--json", "whoami")
	if !strings.Contains(who, `"name":"cara"`) || !strings.Contains(who, `"connected":true`) {
		t.Errorf("whoami: %s", who)
	}
	const each = 100
	texts := cluster.Corpus(each)
	var both sync.WaitGroup
	for _, side := range []struct {
		from *user
		to   string
	}{{cara, "dan"}, {dan, "cara"}} {
		both.Go(func() {
			last := uint64(0)
			for _, text := range texts {
				out, err := side.from.run(text, "send", "--to", side.to)
				var seq uint64
				if _, scanErr := fmt.Sscan(out, &seq); err != nil || scanErr != nil || seq <= last {
					t.Errorf("send printed %q after %d: %v", out, last, err)
					return
				}
				last = seq
			}
		})
	}
	both.Wait()
	history := lines(t, cara.must("", "--json", "history", "--with", "dan"))
	testenv.Until(t, "both tails show everything", func() bool {
		return len(caras.seen()) >= 2*each && len(dans.seen()) >= 2*each
	})
	for name, got := range map[string][]line{
		"cara's history": history, "dan's history": lines(t, dan.must("", "--json", "history", "--with", "cara")),
		"cara's tail": caras.seen(), "dan's tail": dans.seen(),
	} {
		checkLines(t, name, got, texts, "cara", "dan")
	}
	got := lines(t, cara.must("", "--json", "history", "--with", "dan", "--after", "150", "--limit", "10"))
	if len(got) != 10 || got[0].Seq != 151 {
		t.Errorf("history from 151: %v", got)
	}
	out, err := cara.run("", "send", "--to", "nobody-of-that-name", "hi")
	if err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("a message to nobody: %q, %v", out, err)
	}
	t.Logf("%d messages each way by script; cara on %v, dan on %v", each, caras.servers(), dans.servers())
}

func checkLines(t *testing.T, name string, got []line, texts []string, people ...string) {
	t.Helper()
	if len(got) != len(people)*len(texts) {
		t.Errorf("%s has %d messages, want %d", name, len(got), len(people)*len(texts))
		return
	}
	next := make(map[string]int)
	for i, l := range got {
		if l.Seq != uint64(i+1) {
			t.Fatalf("%s has number %d at place %d", name, l.Seq, i+1)
		}
		if want := texts[next[l.From]]; l.Text != want {
			t.Fatalf("%s: message %d of %s is %.40q, want %.40q", name, next[l.From], l.From, l.Text, want)
		}
		next[l.From]++
	}
}

// pane is a tmux pane that runs msrchat.
type pane struct {
	t       *testing.T
	session string
	socket  string
}

func (u *user) screen(socket string) *pane {
	u.t.Helper()
	p := &pane{u.t, u.name, socket}
	shell := fmt.Sprintf("HOME=%[1]s XDG_STATE_HOME=%[1]s exec %[2]s --profile %[3]s --gate %[4]s",
		u.home, u.f.Binary(), u.name, u.f.GateURL())
	p.tmux("new-session", "-d", "-s", p.session, "-x", "100", "-y", "30", shell)
	u.t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "tmux", "-S", socket, "kill-session", "-t", p.session).Run()
	})
	u.t.Cleanup(func() {
		if u.t.Failed() {
			u.t.Logf("%s's screen at the end:\n%s", u.name, p.frame())
		}
	})
	return p
}

func (p *pane) tmux(args ...string) string {
	p.t.Helper()
	args = append([]string{"-u", "-S", p.socket}, args...)
	out, err := exec.CommandContext(context.Background(), "tmux", args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (p *pane) frame() string { return p.tmux("capture-pane", "-p", "-t", p.session) }

func (p *pane) typed(text string) {
	p.t.Helper()
	p.tmux("send-keys", "-t", p.session, "-l", text)
}

func (p *pane) key(name string) {
	p.t.Helper()
	p.tmux("send-keys", "-t", p.session, name)
}

func (p *pane) shows(what string) {
	p.t.Helper()
	testenv.Until(p.t, p.session+"'s screen shows "+what, func() bool { return strings.Contains(p.frame(), what) })
}

// screens lets two people chat in two terminals, then sends by script under a
// profile whose screen and tail are open.
func screens(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("not run: tmux is not installed")
	}
	home := t.TempDir()
	erin, finn := newUser(t, f, home, "erin"), newUser(t, f, home, "finn")
	socket := filepath.Join(home, "tmux")
	e, n := erin.screen(socket), finn.screen(socket)
	for _, p := range []*pane{e, n} {
		p.shows("Ctrl+K")
	}
	e.key("C-k")
	e.typed("finn")
	e.shows("start a chat with")
	e.key("Enter")
	e.shows("Write to finn")
	say := func(from, to *pane, text string) {
		t.Helper()
		from.typed(text)
		from.shows(text)
		from.key("Enter")
		to.shows(text)
	}
	e.typed("你好 finn, lunch at 12?")
	e.key("Enter")
	n.shows("1 unread")
	n.key("Enter") // opens the only conversation
	n.shows("你好 finn, lunch at 12?")
	say(n, e, "はい、喜んで! 🎉")
	say(e, n, "맛있게 드세요 — see you there")
	t.Logf("erin's screen:\n%s", e.frame())

	// One profile: the screen, a tail and fifty sends at once.
	tailing := erin.tail()
	const sends = 50
	before := len(lines(t, erin.must("", "--json", "history", "--with", "finn")))
	var all sync.WaitGroup
	started := time.Now()
	for i := range sends {
		all.Go(func() {
			if out, err := erin.run("", "send", "--to", "finn", fmt.Sprint("at once ", i)); err != nil {
				t.Errorf("send %d: %v %s", i, err, out)
			}
		})
	}
	all.Wait()
	t.Logf("%d sends at once took %.1f s", sends, time.Since(started).Seconds())
	history := lines(t, finn.must("", "--json", "history", "--with", "erin"))
	seen := make(map[string]int)
	for i, l := range history {
		if l.Seq != uint64(i+1) {
			t.Fatalf("number %d at place %d", l.Seq, i+1)
		}
		seen[l.Text]++
	}
	for i := range sends {
		if n := seen[fmt.Sprint("at once ", i)]; n != 1 {
			t.Errorf("message %d is there %d times", i, n)
		}
	}
	if len(history) != before+sends {
		t.Errorf("%d messages, want %d", len(history), before+sends)
	}
	testenv.Until(t, "the tail shows them", func() bool { return len(tailing.seen()) >= sends })
	if got := tailing.servers(); len(got) != 1 {
		t.Errorf("the tail was on %v: somebody was disconnected", got)
	}
	n.shows(history[len(history)-1].Text)
	e.shows(history[len(history)-1].Text)
}
