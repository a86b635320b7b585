package tui

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
)

// lockedBuffer is a terminal that only listens.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // under mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// keyboard is the other half of a terminal.
type keyboard struct {
	*io.PipeReader
	t *testing.T
	w *io.PipeWriter
}

func newKeyboard(t *testing.T) *keyboard {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return &keyboard{r, t, w}
}

func (k *keyboard) press(bytes string) {
	k.t.Helper()
	if _, err := io.WriteString(k.w, bytes); err != nil {
		k.t.Fatal(err)
	}
}

// patience bounds every wait in these tests; the machine may be busy.
const patience = 30 * time.Second

// see waits until a text was on the screen. The renderer writes what changed,
// which may be a part of a word: Ctrl+L has it write everything.
func see(t *testing.T, in *keyboard, out *lockedBuffer, text string) {
	t.Helper()
	eventually(t, func() bool {
		if strings.Contains(out.String(), text) {
			return true
		}
		in.press("\x0c")
		return false
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen in time")
		}
	}
}

// The terminal of these tests.
var (
	testSize = tea.WindowSizeMsg{Width: 100, Height: 30}
	xterm    = []string{"TERM=xterm-256color"}
)

// running is a whole program on a fake terminal.
type running struct {
	in     *keyboard
	out    *lockedBuffer
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, f *fakeBackend) *running {
	t.Helper()
	f.clock = time.Now
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r := &running{newKeyboard(t), &lockedBuffer{}, cancel, make(chan error, 1)}
	go func() {
		r.done <- Run(ctx, Options{Backend: f, Input: r.in, Output: r.out, Environ: xterm, size: testSize})
	}()
	see(t, r.in, r.out, "ann")
	return r
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return nil
	}
}

func (r *running) restored(t *testing.T) {
	t.Helper()
	got := r.out.String()
	for _, mode := range []string{"1049", "2004", "1004"} { // screen, paste, focus
		on, off := "\x1b[?"+mode+"h", "\x1b[?"+mode+"l"
		if i := strings.LastIndex(got, on); i < 0 || strings.LastIndex(got, off) < i {
			t.Errorf("%q was not followed by %q", on, off)
		}
	}
}

func TestAWishToEndRestoresTheTerminalAndKeepsTheDraft(t *testing.T) {
	for _, how := range []string{"context", "/quit", "ctrl+c"} {
		t.Run(how, func(t *testing.T) {
			f := newFake("ann")
			conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
			r := start(t, f)
			r.in.press("\r")
			see(t, r.in, r.out, "hello")
			want := "half a thought"
			switch how {
			case "context":
				r.in.press(want)
				see(t, r.in, r.out, "thought")
				r.cancel()
			case "/quit":
				r.in.press("/quit\r")
				want = ""
			case "ctrl+c":
				r.in.press(want)
				r.in.press("\x03\x03")
			}
			if err := r.wait(t); err != nil {
				t.Fatal(err)
			}
			r.restored(t)
			if got := f.own(conv).Draft; got != want {
				t.Errorf("the draft is %q, want %q", got, want)
			}
		})
	}
}

func TestWhatWasTypedLastIsSentOnTheWayOut(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 10, line{false, time.Hour, "hello"})
	r := start(t, f)
	r.in.press("\rone\rtwo\rthree\r\x03\x03")
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range f.logs[conv][1:] {
		got = append(got, m.Text())
	}
	if strings.Join(got, " ") != "one two three" {
		t.Errorf("sent: %q", got)
	}
}

func TestAPanicRestoresTheTerminal(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 0, line{false, time.Hour, "hello"})
	r := start(t, f)
	f.mu.Lock()
	f.panics = true
	f.mu.Unlock()
	r.in.press("\r")
	if err := r.wait(t); !errors.Is(err, tea.ErrProgramPanic) {
		t.Errorf("it ended with: %v", err)
	}
	r.restored(t)
}

func TestEventsOfNoKnownKindAreSkipped(t *testing.T) {
	f := newFake("ann")
	r := start(t, f)
	f.events <- nil
	f.events <- client.Received{} // no client tells this
	f.events <- client.SendChanged{}
	r.in.press("\x03\x03")
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	r.restored(t)
}

func TestTheEndOfTheClientEndsTheProgram(t *testing.T) {
	f := newFake("ann")
	r := start(t, f)
	close(f.events)
	if err := r.wait(t); !errors.Is(err, errEnded) {
		t.Errorf("got %v", err)
	}
	r.restored(t)
}

func TestRunNeedsABackend(t *testing.T) {
	if err := Run(t.Context(), Options{}); err == nil {
		t.Error("it ran without one")
	}
}

func TestPumpKeepsTheOrderAndGathers(t *testing.T) {
	events := make(chan client.Event, 3*batchSize)
	for i := range 3 * batchSize {
		events <- client.ConversationChanged{Conversation: uint64(i)}
	}
	close(events)
	var got []client.Event
	batches, ended := 0, false
	err := pump(t.Context(), events, func(msg tea.Msg) {
		switch msg := msg.(type) {
		case eventsMsg:
			if len(msg) > batchSize {
				t.Errorf("a batch of %d", len(msg))
			}
			batches++
			got = append(got, msg...)
		case endedMsg:
			ended = true
		}
	})
	if err != nil || !ended || batches != 3 || len(got) != 3*batchSize {
		t.Fatalf("%d events in %d batches, ended %t, %v", len(got), batches, ended, err)
	}
	for i, e := range got {
		if e.(client.ConversationChanged).Conversation != uint64(i) {
			t.Fatalf("event %d is %v", i, e)
		}
	}
}

func TestPumpEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pump(ctx, make(chan client.Event), func(tea.Msg) {}) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPumpTellsItsPanic(t *testing.T) {
	events := make(chan client.Event, 1)
	events <- client.Reset{}
	err := pump(t.Context(), events, func(tea.Msg) { panic("boom") })
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
}
