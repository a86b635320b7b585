package client_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store/sqlite"
)

// The test binary plays a program of the profile when this variable is set.
const childVariable = "MSRCHAT_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// child sends its arguments, says "accepted" after each, waits for all, and
// says their numbers.
func child() int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	id, err := strconv.ParseUint(os.Getenv("CHILD_USER"), 10, 64)
	if err != nil {
		return fail(err)
	}
	token, err := client.ParseToken(os.Getenv("CHILD_TOKEN"))
	if err != nil {
		return fail(err)
	}
	gate, err := client.NewGate(os.Getenv("CHILD_GATE"), nil)
	if err != nil {
		return fail(err)
	}
	s, err := sqlite.Open(ctx, os.Getenv("CHILD_STORE"), id)
	if err != nil {
		return fail(err)
	}
	defer s.Close()
	c, err := client.Open(ctx, client.Options{
		Gate: gate, Store: s, SendOnly: true, Backoff: quick, Program: "child",
		Session: client.Session{Token: token, User: client.User{ID: id}},
	})
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	go func() {
		for range c.Events() { //nolint:revive // only the sends matter here
		}
	}()
	bob, err := c.Contact(ctx, "bob")
	if err != nil {
		return fail(err)
	}
	var outs []client.Outgoing
	for _, text := range os.Args[1:] {
		out, err := c.Send(ctx, bob.ID, text)
		if err != nil {
			return fail(err)
		}
		fmt.Println("accepted", text)
		outs = append(outs, out)
	}
	for _, out := range outs {
		got, err := c.Wait(ctx, out.ID)
		if err != nil {
			return fail(err)
		}
		fmt.Println("sent", got.Seq)
	}
	return 0
}

// program is a child process.
type program struct {
	cmd      *exec.Cmd
	out      *bufio.Scanner
	accepted []string
	numbers  []string
}

func (w *world) program(t *testing.T, path string, texts ...string) *program {
	t.Helper()
	s := w.session["alice"]
	cmd := exec.CommandContext(t.Context(), os.Args[0], texts...)
	cmd.Env = append(os.Environ(), childVariable+"=1", "CHILD_STORE="+path, "CHILD_GATE="+w.gate.URL,
		"CHILD_USER="+strconv.FormatUint(s.User.ID, 10), "CHILD_TOKEN="+s.Token.Encode())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &program{cmd: cmd, out: bufio.NewScanner(io.Reader(out))}
}

// read takes the child's lines until stop says so, or the end.
func (p *program) read(stop func() bool) {
	for !stop() && p.out.Scan() {
		if text, ok := strings.CutPrefix(p.out.Text(), "accepted "); ok {
			p.accepted = append(p.accepted, text)
		}
		if n, ok := strings.CutPrefix(p.out.Text(), "sent "); ok {
			p.numbers = append(p.numbers, n)
		}
	}
}

func never() bool { return false }

// A terminal UI, a tail and fifty sends under one profile at once; then the
// sends again, most of them killed.
func TestManyProgramsShareOneOutbox(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: -short")
	}
	w := newWorld(t, 2)
	path := filepath.Join(t.TempDir(), "alice.db")
	shared := func(o *client.Options) {
		s, err := sqlite.Open(t.Context(), path, w.session["alice"].User.ID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		o.Store = s
	}
	screen, tail := w.open(t, "alice", shared), w.open(t, "alice", shared)
	bob := w.open(t, "bob")
	const programs = 50
	want := runSends(t, w, path, programs, screen)
	log := w.log.Texts(w.conv)
	once(t, log, want)
	// Where the log was empty at the first look, the two received all of it.
	bob.untilTexts(w.conv, log)
	for _, p := range []*person{screen, tail} {
		until(t, "what was received reaches the end", func() bool {
			got := p.texts(w.conv)
			return len(got) <= len(log) && len(got) > 0 && slices.Equal(got, log[len(log)-len(got):])
		})
	}
	for _, p := range []*person{screen, tail} {
		p.mu.Lock()
		for _, l := range p.links {
			if l.State == client.Offline {
				t.Errorf("thrown out: %v", l.Cause)
			}
		}
		p.mu.Unlock()
	}
}

// runSends runs programs that send three messages each while the screen sends
// as well, and returns what must be in the log.
func runSends(t *testing.T, w *world, path string, programs int, screen *person) (want []string) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range programs {
		texts := numbered(fmt.Sprintf("p%d", i), 3)
		wg.Go(func() {
			p := w.program(t, path, texts...)
			p.read(never)
			if err := p.cmd.Wait(); err != nil || len(p.numbers) != 3 {
				t.Errorf("program %d: %v, numbers %q", i, err, p.numbers)
			}
			mu.Lock()
			defer mu.Unlock()
			want = append(want, texts...)
		})
	}
	var outs []client.Outgoing
	for _, text := range numbered("screen", 30) {
		outs = append(outs, screen.sendTo("Bob", text))
	}
	wg.Wait()
	for _, out := range outs {
		screen.wait(out)
	}
	return append(want, numbered("screen", 30)...)
}

// once checks that the log has exactly the wanted texts, each program's in the
// order typed.
func once(t *testing.T, log, want []string) {
	t.Helper()
	sorted, wanted := slices.Sorted(slices.Values(log)), slices.Sorted(slices.Values(want))
	if !slices.Equal(sorted, wanted) {
		t.Errorf("%d messages logged, want %d: %.500q", len(log), len(want), log)
	}
	last := map[string]int{}
	for _, text := range log {
		by, n, _ := strings.Cut(text, " ")
		number, err := strconv.Atoi(n)
		if err != nil || number <= last[by] {
			t.Errorf("%q came after %s %d", text, by, last[by])
		}
		last[by] = number
	}
}

func TestKilledProgramsLoseAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: -short")
	}
	w := newWorld(t, 2)
	path := filepath.Join(t.TempDir(), "alice.db")
	var mu sync.Mutex
	var accepted []string
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			p := w.program(t, path, numbered(fmt.Sprintf("p%d", i), 40)...)
			// Each one is killed at another point: while queueing, sending or waiting.
			p.read(func() bool { return len(p.accepted)+len(p.numbers) > i*3 })
			time.Sleep(time.Duration(i%5) * time.Millisecond) // moves the point
			if err := p.cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			p.read(never)
			_ = p.cmd.Wait() // "killed"
			mu.Lock()
			defer mu.Unlock()
			accepted = append(accepted, p.accepted...)
		})
	}
	wg.Wait()
	// The next program that is started sends what is left.
	last := w.program(t, path, "last 1")
	last.read(never)
	if err := last.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	log := w.log.Texts(w.conv)
	seen := map[string]int{}
	for _, text := range log {
		seen[text]++
	}
	for _, text := range accepted {
		if seen[text] != 1 {
			t.Errorf("accepted %q is in the log %d times", text, seen[text])
		}
	}
	for text, n := range seen {
		if n != 1 {
			t.Errorf("%q is in the log %d times", text, n)
		}
	}
	// A message may have been accepted without its word getting out.
	if len(log) < len(accepted)+1 {
		t.Errorf("%d messages logged, %d accepted", len(log), len(accepted))
	}
	var order []string
	for _, text := range log {
		if !strings.HasPrefix(text, "last") {
			order = append(order, text)
		}
	}
	once(t, order, order)
}
