package tui

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// typeInto presses keys; what is no key's name is typed.
func typeInto(t testing.TB, e *editor, m measure, width int, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if len(k) > 1 && (strings.Contains(k, "+") || editorKeys[k] != nil) {
			e.key(press(t, k), m, width)
			continue
		}
		for _, r := range k {
			e.key(tea.KeyPressMsg{Code: r, Text: string(r)}, m, width)
		}
	}
}

func TestEditorKeys(t *testing.T) {
	for _, test := range []struct {
		keys []string
		want string // | is the caret
	}{
		{[]string{"abc"}, "abc|"},
		{[]string{"abc", "left", "left", "X"}, "aX|bc"},
		{[]string{"abc", "home", "X", "end", "Y"}, "XabcY|"},
		{[]string{"abc", "ctrl+a", "right", "delete"}, "a|c"},
		{[]string{"你好", "left", "backspace"}, "|好"},
		{[]string{"a👨‍👩‍👧", "backspace"}, "a|"},
		{[]string{"a👍🏽b", "left", "left", "X"}, "aX|👍🏽b"},
		{[]string{"e\u0301x", "home", "delete"}, "|x"},
		{[]string{"one two three", "ctrl+w"}, "one two |"},
		{[]string{"one two", "alt+b", "alt+b", "alt+d"}, "| two"},
		{[]string{"one two", "ctrl+left", "ctrl+u"}, "|two"},
		{[]string{"再见，朋友", "ctrl+w"}, "再见，|"},
		{[]string{"foo.bar", "ctrl+w", "ctrl+w"}, "foo|"},
		{[]string{"one", "ctrl+right", "alt+left", "alt+right"}, "one|"},
		{[]string{"x", "left", "left", "backspace", "right", "right", "delete"}, "x|"},
		{[]string{"ab", "ctrl+b", "ctrl+f", "ctrl+h"}, "a|"},
	} {
		e := &editor{goal: -1}
		typeInto(t, e, methods[1], 40, test.keys...)
		if got := e.value[:e.caret] + "|" + e.value[e.caret:]; got != test.want {
			t.Errorf("%q: got %q, want %q", test.keys, got, test.want)
		}
	}
}

func TestEditorMovesByRows(t *testing.T) {
	m := methods[0]
	e := &editor{goal: -1}
	e.set("first line\nx\nthird 你好 line")
	for _, test := range []struct {
		key   string
		moved bool
		want  string // the text before the caret on its line
	}{
		{"up", true, "x"},
		{"up", true, "first line"},
		{"up", false, "first line"},
		{"down", true, "x"},
		{"down", true, "third 你好 line"},
		{"down", false, "third 你好 line"},
		{"home", true, ""},
		{"up", true, ""},
	} {
		moved := e.key(press(t, test.key), m, 40)
		got := e.value[e.lineStart(m):e.caret]
		if moved != test.moved || got != test.want {
			t.Errorf("%s: moved %t to %q, want %t, %q", test.key, moved, got, test.moved, test.want)
		}
	}
	// A column inside a wide character goes to its beginning.
	e.set("ab\n你好")
	e.caret = 1
	e.goal = -1
	e.key(press(t, "down"), m, 40)
	if got := e.value[e.lineStart(m):e.caret]; got != "" {
		t.Errorf("the caret is after %q", got)
	}
}

func TestCaretCells(t *testing.T) {
	for _, test := range []struct {
		text   string
		left   int
		method int
		x, y   int
	}{
		{"", 0, 0, 0, 0},
		{"hello", 0, 0, 5, 0},
		{"你好，北京", 0, 0, 0, 1}, // ten cells are full: the caret has the next row
		{"你好，北京", 1, 0, 8, 0},
		{"❤️ab", 0, 0, 3, 0},
		{"❤️ab", 0, 1, 4, 0},
		{"👍🏽", 0, 0, 2, 0},
		{"👍🏽", 0, 1, 2, 0},
		{"👨‍👩‍👧", 0, 0, 6, 0},
		{"👨‍👩‍👧", 0, 1, 2, 0},
		{"a\nb", 0, 0, 1, 1},
		{"hello world", 0, 0, 5, 1},
		{"0123456789", 0, 0, 0, 1},
		{"012345678 ", 0, 0, 0, 1},
		{"0123456789 x", 0, 0, 1, 1}, // the space hangs over the end, unseen
		{"\tx", 0, 0, 5, 0},
	} {
		m := methods[test.method]
		e := &editor{goal: -1}
		e.set(test.text)
		for range test.left {
			e.key(press(t, "left"), m, 10)
		}
		lines, x, y := e.view(m, 10, e.height(m, 10, 8))
		if x != test.x || y != test.y {
			t.Errorf("%q: the caret is at %d,%d, want %d,%d in\n%s",
				test.text, x, y, test.x, test.y, strings.Join(lines, "|\n"))
		}
	}
}

func TestEditorShowsThePartAroundTheCaret(t *testing.T) {
	m := methods[0]
	e := &editor{goal: -1}
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprint("line ", i))
	}
	e.set(strings.Join(all, "\n"))
	lines, _, y := e.view(m, 20, 8)
	if len(lines) != 8 || y != 7 || !strings.HasPrefix(lines[7], "line 19") {
		t.Errorf("row %d of %q", y, lines)
	}
	for range 10 {
		e.key(press(t, "up"), m, 20)
	}
	lines, _, y = e.view(m, 20, 8)
	if y != 0 || !strings.HasPrefix(lines[0], "line 9") {
		t.Errorf("row %d of %q", y, lines)
	}
	e.set("a name that is longer than its field")
	if shown, x := e.line(m, 10); m.width(shown) != 10 || x != 9 || !strings.HasPrefix(shown, "its field") {
		t.Errorf("%q, caret at %d", shown, x)
	}
	e.caret = 2
	if shown, x := e.line(m, 10); x != 2 || !strings.HasPrefix(shown, "a name") {
		t.Errorf("%q, caret at %d", shown, x)
	}
}

func TestEditorIsBounded(t *testing.T) {
	e := &editor{goal: -1}
	if !e.insert(strings.Repeat("x", maxDraft)) || e.insert("y") || len(e.value) != maxDraft {
		t.Errorf("it holds %d bytes", len(e.value))
	}
	e.set(strings.Repeat("你", maxDraft))
	if len(e.value) > maxDraft || !utf8.ValidString(e.value) {
		t.Errorf("it holds %d bytes", len(e.value))
	}
}

// FuzzEditor: whatever is pressed, the caret is between two characters and its
// cell is on the screen.
func FuzzEditor(f *testing.F) {
	names := []string{
		"left", "right", "up", "down", "home", "end", "backspace", "delete",
		"ctrl+w", "alt+d", "ctrl+u", "alt+b", "alt+f",
	}
	texts := []string{
		"a", " ", "word ", "你", "，", "\n", "❤️", "👨‍👩‍👧", "🇨🇳", "e",
		"\u0301", "\u200d", "\ufe0f", "🏽", "\t", "क्षि", "한",
	}
	f.Add([]byte{0, 20, 21, 3, 40, 2, 7, 250, 16, 17, 18}, 9)
	f.Fuzz(func(t *testing.T, moves []byte, width int) {
		width = 2 + (width & 0x1f)
		for _, m := range methods {
			e := &editor{goal: -1}
			for _, b := range moves {
				if int(b) < len(names) {
					e.key(press(t, names[b]), m, width)
				} else {
					e.insert(texts[int(b)%len(texts)])
				}
				if e.caret < 0 || e.caret > len(e.value) ||
					!utf8.ValidString(e.value) || !utf8.ValidString(e.value[:e.caret]) {
					t.Fatalf("the caret is at %d of %q", e.caret, e.value)
				}
				h := e.height(m, width, 8)
				lines, x, y := e.view(m, width, h)
				if x < 0 || x >= width || y < 0 || y >= len(lines) || len(lines) != h {
					t.Fatalf("the caret is at %d,%d in %d rows of %d: %q", x, y, len(lines), width, e.value)
				}
			}
		}
	})
}

func TestTheCursorIsAtTheCaretsCell(t *testing.T) {
	f := newFake("ann")
	f.conversation("bob", 10, line{true, 0, "x"})
	for _, width := range []int{100, 50} {
		for _, method := range methods {
			for _, text := range []string{
				"", "hello", "你好，北京", "❤️ 👍🏽", "👨‍👩‍👧", "🇨🇳x", "e\u0301", "क्षि", "two\nlines 你好",
			} {
				s := newScreen(t, f, width, 20)
				s.m.measure = method
				s.keys("enter")
				s.m.open.composer.insert(text)
				s.check()
				lines, cursor := s.m.frame()
				before := ansi.Strip(method.method.Truncate(lines[cursor.Y], cursor.X, ""))
				last := text[strings.LastIndexByte(text, '\n')+1:]
				want := method.show(last)
				if !strings.HasSuffix(before, "❯ "+want) && !strings.HasSuffix(before, "   "+want) {
					t.Errorf("width %d, %q: the cursor is after %q", width, text, before)
				}
				s.keys("ctrl+k")
				s.send(tea.PasteMsg{Content: cleanLine(text)})
				lines, cursor = s.m.frame()
				before = ansi.Strip(method.method.Truncate(lines[cursor.Y], cursor.X, ""))
				if want := method.show(cleanLine(text)); !strings.HasSuffix(before, "❯ "+want) {
					t.Errorf("width %d, %q in the switcher: the cursor is after %q", width, text, before)
				}
				s.keys("esc", "f1")
				if _, cursor = s.m.frame(); cursor != nil {
					t.Error("the help has a cursor")
				}
				s.keys("esc")
				s.m.open.composer.set("")
			}
		}
	}
}
