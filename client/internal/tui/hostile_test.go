package tui

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/errs"
)

var colours = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// forbidden names what a frame has and must not have: anything that drives a
// terminal but colours and line ends, and direction overrides.
func forbidden(frame string) string {
	rest := colours.ReplaceAllString(frame, "")
	if !utf8.ValidString(rest) {
		return "a broken byte"
	}
	for _, r := range rest {
		if r < 0x20 && r != '\n' || r >= 0x7F && r < 0xA0 || r == '\u2028' || r == '\u2029' || override(r) {
			return fmt.Sprintf("U+%04X", r)
		}
	}
	return ""
}

// hostileTexts try to do more than be read.
var hostileTexts = []string{
	"\x1b]52;c;aGFja2Vk\x07clipboard", "\x1b[2J\x1b[H gone", "\x1b]0;title\x1b\\",
	"\u009b31mC1\u009c", "\x9b31m raw C1",
	"\x1bP+q544e\x1b\\", "bell\x07\x08\x08", "cr\rover", "nul\x00", "\u202Eevil\u202C \u2066x\u2069", "del\x7f",
	"line\u2028sep\u2029", "\v\f\x1c", "zalgo " + strings.Repeat("\u0301\u0323", 3000), "\u0301first",
	"a\u200db\u200c\u2060\ufeff", "\xff\xfe broken \xc3", strings.Repeat("\t", 100), strings.Repeat("\n", 100),
	"\U000E0001\U000E0041tags", "\u115f\u3164 filler",
}

func TestNoTextDrivesTheTerminal(t *testing.T) {
	for i, text := range hostileTexts {
		for _, size := range [][2]int{{100, 30}, {50, 16}, {20, 5}} {
			f := newFake("ann" + text)
			conv := f.conversation("p"+text, 100, line{false, time.Hour, text}, line{true, time.Minute, text})
			_, err := f.SetDraft(t.Context(), Target{f.epoch(), conv}, "", text)
			must(err)
			f.refuse = errs.New(errs.CodeForbidden, "%s", text)
			_, err = f.Send(t.Context(), Target{f.epoch(), conv}, text)
			must(err)
			s := newScreen(t, f, size[0], size[1]) // every frame is checked
			s.keys("enter")
			if s.m.open == nil {
				t.Fatalf("text %d: no chat", i)
			}
			f.say(conv, text)
			s.events()
			s.send(tea.PasteMsg{Content: text})
			s.keys("up", "left", "backspace", "ctrl+k")
			s.send(tea.PasteMsg{Content: text})
			s.keys("enter", "esc", "f1", "esc")
			f.setLink(client.Link{State: client.Offline, Cause: errs.New(errs.CodeUnavailable, "%s", text)})
			f.setLink(client.Link{State: client.Online, Instance: text})
			s.events()
			s.m.complain("x", errs.New(errs.CodeInternal, "%s", text))
			s.check()
		}
	}
}

// TestTheProgramWritesNoForeignSequences looks at all bytes that a whole run
// writes, through the renderer.
func TestTheProgramWritesNoForeignSequences(t *testing.T) {
	f := newFake("ann")
	conv := f.conversation("bob", 100)
	for _, text := range hostileTexts {
		f.say(conv, "begin "+text+" end")
	}
	out := &lockedBuffer{}
	in := newKeyboard(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			Backend: f, Input: in, Output: out, Environ: xterm, Location: time.UTC, size: testSize,
		})
	}()
	in.press("\r") // the only chat, at its first new message
	see(t, in, out, "clipboard end")
	for range 20 {
		in.press("\x1b[6~") // PgDn
	}
	see(t, in, out, "filler end")
	in.press("\x03")
	see(t, in, out, "again")
	in.press("\x03")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(out.String(), ansi.RequestBackgroundColor, "") // Bubble Tea's own
	for _, bad := range []string{
		"\x1b]52;c;aGFja2Vk", "\x1b]0;", "\x1bP", "\x07", "\u009b", "\u202e", "\u2028", "\x00", "\x7f",
		"\x1b[2J\x1b[H gone",
	} {
		if strings.Contains(got, bad) {
			t.Errorf("%q was written to the terminal", bad)
		}
	}
	if !utf8.ValidString(got) {
		t.Error("broken bytes were written to the terminal")
	}
	if on, off := strings.LastIndex(got, "\x1b[?1049h"), strings.LastIndex(got, "\x1b[?1049l"); on < 0 || off < on {
		t.Error("the alternate screen was not left")
	}
}

func TestCleanKeepsWhatIsHarmless(t *testing.T) {
	for _, text := range []string{
		"", "plain", "tab\tand\nline", "你好，北京", "👨‍👩‍👧 ❤️ 🇨🇳 👍🏽", "नमस्ते", "العربية \u200fx", "e\u0301", "�",
	} {
		if got := clean(text); got != text {
			t.Errorf("clean(%q) = %q", text, got)
		}
	}
	for in, want := range map[string]string{
		"a\r\nb\rc": "a\nb\nc", "\x1b[0m": "␛[0m", "\x9b": "�", "x\u202ey": "x�y", "a\u0085b": "a\nb", "\x7f": "␡",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := cleanLine("a\nb\tc"); got != "a b c" {
		t.Errorf("cleanLine gave %q", got)
	}
}

func FuzzCleanAndShow(f *testing.F) {
	for _, text := range hostileTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range methods {
			shown := m.show(clean(text))
			if bad := forbidden(shown); bad != "" {
				t.Fatalf("%s in %q", bad, shown)
			}
			if again := clean(shown); again != shown {
				t.Fatalf("cleaning twice: %q, then %q", shown, again)
			}
		}
	})
}
