package tui

import (
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// screen drives a Model as Bubble Tea does, but commands run one after another
// in the test's goroutine, and timers fire when the test says so. Every frame
// on the way is checked to be exactly as wide and high as the screen.
type screen struct {
	t *testing.T
	m *Model
	f *fakeBackend // nil on a real client

	quit  bool
	hold  bool      // commands wait for release
	held  []tea.Cmd // those that wait
	later []waiting // started timers
}

type waiting struct {
	d   time.Duration
	due time.Time // by the wall clock
	msg tea.Msg
}

func newScreen(t *testing.T, f *fakeBackend, width, height int) *screen {
	t.Helper()
	return screenOn(t, &screen{f: f}, f, f.clock, width, height)
}

// screenOn completes a screen on any backend.
func screenOn(t *testing.T, s *screen, b Backend, clock func() time.Time, width, height int) *screen {
	t.Helper()
	start, err := takeSnapshot(t.Context(), b, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.t = t
	s.m = newModel(t.Context(), b, slog.New(slog.DiscardHandler), clock, start)
	s.m.after = func(d time.Duration, msg tea.Msg) tea.Cmd {
		s.later = append(s.later, waiting{d, time.Now().Add(d), msg})
		return nil
	}
	s.run(s.m.Init())
	s.send(tea.WindowSizeMsg{Width: width, Height: height})
	return s
}

func (s *screen) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	if s.hold {
		s.held = append(s.held, cmd)
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.QuitMsg:
		s.quit = true
	case tea.BatchMsg:
		for _, c := range msg {
			s.run(c)
		}
	default:
		s.send(msg)
	}
}

// release runs the commands that were held.
func (s *screen) release() {
	s.t.Helper()
	s.hold = false
	held := s.held
	s.held = nil
	for _, cmd := range held {
		s.run(cmd)
	}
}

// send is one update, and all that follows from it, the client's events
// included.
func (s *screen) send(msg tea.Msg) {
	s.t.Helper()
	_, cmd := s.m.Update(msg)
	s.check()
	s.run(cmd)
	s.events()
}

// events passes on the client's events.
func (s *screen) events() {
	s.t.Helper()
	var batch eventsMsg
	for {
		select {
		case e := <-s.m.b.Events():
			batch = append(batch, e)
			continue
		default:
		}
		break
	}
	if len(batch) > 0 {
		s.send(batch)
	}
}

// fire lets the timers of at most d go off.
func (s *screen) fire(d time.Duration) {
	s.t.Helper()
	s.goOff(func(w waiting) bool { return w.d <= d })
}

func (s *screen) goOff(now func(waiting) bool) {
	s.t.Helper()
	later := s.later
	s.later = nil
	for _, w := range later {
		if now(w) {
			s.send(w.msg)
		} else {
			s.later = append(s.later, w)
		}
	}
}

// keys presses keys by their names.
func (s *screen) keys(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.send(press(s.t, name))
	}
}

func press(t testing.TB, name string) tea.KeyPressMsg {
	t.Helper()
	var k tea.KeyPressMsg
	rest := name
	for mod, bit := range map[string]tea.KeyMod{"ctrl+": tea.ModCtrl, "alt+": tea.ModAlt, "shift+": tea.ModShift} {
		if strings.Contains(rest, mod) {
			rest = strings.Replace(rest, mod, "", 1)
			k.Mod |= bit
		}
	}
	special := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft,
		"right": tea.KeyRight, "home": tea.KeyHome, "end": tea.KeyEnd, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown,
		"backspace": tea.KeyBackspace, "delete": tea.KeyDelete, "tab": tea.KeyTab, "f1": tea.KeyF1,
	}
	k.Code = special[rest]
	if k.Code == 0 {
		k.Code, _ = utf8.DecodeRuneInString(rest)
	}
	if got := k.Keystroke(); got != name {
		t.Fatalf("key %q is pressed as %q", name, got)
	}
	return k
}

// typed types a text, rune by rune.
func (s *screen) typed(text string) {
	s.t.Helper()
	for _, r := range text {
		s.send(tea.KeyPressMsg{Code: r, Text: string(r)})
	}
}

// goTo opens a chat by the switcher.
func (s *screen) goTo(name string) {
	s.t.Helper()
	s.keys("ctrl+k")
	s.typed(name)
	s.keys("enter")
	if s.m.open == nil || s.m.open.name != name {
		s.t.Fatalf("the chat with %s did not open:\n%s", name, s.frame())
	}
}

// frame is what is on the screen, without styles and blanks at line ends.
func (s *screen) frame() string {
	lines, _ := s.m.frame()
	for i := range lines {
		lines[i] = strings.TrimRight(ansi.Strip(lines[i]), " ")
	}
	return strings.Join(lines, "\n")
}

// check holds a frame to what every frame must be.
func (s *screen) check() {
	s.t.Helper()
	lines, cursor := s.m.frame()
	if len(lines) != max(s.m.height, 0) && s.m.width > 0 {
		s.t.Fatalf("%d lines on a screen of %d", len(lines), s.m.height)
	}
	for i, line := range lines {
		if w := s.m.measure.width(line); w != s.m.width {
			s.t.Fatalf("line %d is %d wide on a screen of %d: %q", i, w, s.m.width, ansi.Strip(line))
		}
	}
	if cursor != nil && (cursor.X < 0 || cursor.X >= s.m.width || cursor.Y < 0 || cursor.Y >= s.m.height) {
		s.t.Fatalf("the cursor is at %d,%d on a screen of %dx%d", cursor.X, cursor.Y, s.m.width, s.m.height)
	}
	if cursor != nil && cursor.X > 0 && s.m.open != nil && s.m.layers.onBase() {
		// A caret in the middle of a wide character is beside its place.
		if w := s.m.measure.width(s.m.measure.method.Truncate(lines[cursor.Y], cursor.X, "")); w != cursor.X {
			s.t.Fatalf("the cursor at %d is inside a character: %q", cursor.X, ansi.Strip(lines[cursor.Y]))
		}
	}
	if hostile := forbidden(strings.Join(lines, "\n")); hostile != "" {
		s.t.Fatalf("%s reaches the terminal:\n%q", hostile, lines)
	}
}

// has and hasNot look for texts on the screen.
func (s *screen) has(texts ...string) {
	s.t.Helper()
	frame := s.frame()
	for _, text := range texts {
		if !strings.Contains(frame, text) {
			s.t.Errorf("the screen lacks %q:\n%s", text, frame)
		}
	}
}

func (s *screen) hasNot(texts ...string) {
	s.t.Helper()
	frame := s.frame()
	for _, text := range texts {
		if strings.Contains(frame, text) {
			s.t.Errorf("the screen shows %q:\n%s", text, frame)
		}
	}
}

// restart ends the program and starts it again on the same store.
func (s *screen) restart() *screen {
	s.t.Helper()
	if err := s.m.finish(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return newScreen(s.t, s.f, s.m.width, s.m.height)
}
