package tui

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
)

var methods = []measure{{ansi.WcWidth}, {ansi.GraphemeWidth}}

func TestEmojiAreReducedWhereTerminalsDisagree(t *testing.T) {
	for _, test := range []struct {
		text, wc string
		wcCells  int
		cells    int
	}{
		{"❤️", "❤", 1, 2},
		{"⚠️", "⚠", 1, 2},
		{"1️⃣", "1", 1, 2},
		{"👍🏽", "👍", 2, 2},
		{"👨‍👩‍👧", "👨👩👧", 6, 2},
		{"🏳️‍🌈", "🏳🌈", 3, 2},
		{"👩🏽‍💻", "👩💻", 4, 2},
		{"🇨🇳", "🇨🇳", 2, 2},
		{"🏽", "🏽", 2, 2}, // a tone alone is a picture
		{"你好", "你好", 4, 4},
		{"é", "é", 1, 1},
		{"क्षि", "क्षि", 3, 1}, // its joiners make its letters
		{"می‌خواهم", "می\u200cخواهم", 7, 7},
		{"a\u200bb", "ab", 2, 2},
	} {
		wc, graphemes := methods[0], methods[1]
		if got := wc.show(test.text); got != test.wc || wc.width(got) != test.wcCells {
			t.Errorf("%s without mode 2027: %q in %d cells, want %q in %d",
				test.text, got, wc.width(got), test.wc, test.wcCells)
		}
		if got := graphemes.width(graphemes.show(test.text)); got != test.cells {
			t.Errorf("%s with mode 2027: %d cells, want %d", test.text, got, test.cells)
		}
	}
}

func TestLinesBreakWhereReadersExpect(t *testing.T) {
	for _, test := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"short", 10, []string{"short"}},
		{"the quick brown fox", 10, []string{"the quick", "brown fox"}},
		{"exactly ten", 7, []string{"exactly", "ten"}},
		{"unbreakable", 4, []string{"unbr", "eaka", "ble"}},
		{"a unbreakable b", 6, []string{"a", "unbrea", "kable", "b"}},
		{"two\n\nlines", 10, []string{"two", "", "lines"}},
		{"你好世界再见", 5, []string{"你好", "世界", "再见"}},
		{"你好，世界", 5, []string{"你", "好，", "世界"}}, // no line begins with a comma
		{"「世界」", 6, []string{"「世", "界」"}},
		{"ab你好cd", 5, []string{"ab你", "好cd"}},
		{"many    spaces", 6, []string{"many", "spaces"}},
		{"\tx", 10, []string{"    x"}},
		{"🎉🎉🎉", 4, []string{"🎉🎉", "🎉"}},
	} {
		for _, m := range methods {
			if diff := cmp.Diff(test.want, m.lines(test.text, test.width)); diff != "" {
				t.Errorf("%q in %d:\n%s", test.text, test.width, diff)
			}
		}
	}
}

func TestFitAndSpread(t *testing.T) {
	m := methods[0]
	for _, test := range []struct{ got, want string }{
		{m.fit("ab", 4), "ab  "},
		{m.fit("abcdef", 4), "abc…"},
		{m.fit("你好吗", 4), "你… "},
		{m.fit("x", 0), ""},
		{m.fit("x", -1), ""},
		{m.cut("abcdef", 3), "ab…"},
		{m.spread("left", "right", 12), "left   right"},
		{m.spread("left side", "right", 12), "left … right"},
		{m.spread("left", "right", 6), "left  "},
		{rule(3), "───"},
		{rule(0), ""},
		{spaces(-1), ""},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
	if n := len(spaces(500)); n != 500 {
		t.Errorf("%d spaces", n)
	}
	if n := utf8.RuneCountInString(rule(500)); n != 500 {
		t.Errorf("a rule of %d", n)
	}
}

// FuzzRows: whatever the text, no row is too wide, none but spaces are unseen,
// and the rows cover the text.
func FuzzRows(f *testing.F) {
	seeds := []string{"the quick brown fox", "你好，世界 abc", "  x  y  ", "。。。。。。", "👨‍👩‍👧👨‍👩‍👧 ❤️"}
	for _, text := range append(seeds, hostileTexts...) {
		f.Add(text, 7)
	}
	f.Fuzz(func(t *testing.T, text string, width int) {
		text, width = clean(text), 2+(width&0x3f)
		for _, m := range methods {
			at := 0
			for i, r := range m.rows(text, width) {
				if r.from != at {
					t.Fatalf("row %d begins at %d, the one before ended at %d", i, r.from, at)
				}
				at = r.to
				if !r.soft {
					at++ // the line break
				}
				if w := r.width(); w > width {
					t.Fatalf("row %d is %d wide in %d: %q", i, w, width, r.text())
				}
				if w := m.width(r.text()); w != r.width() {
					t.Fatalf("row %d: its text has %d cells, its cells %d: %q", i, w, r.width(), r.text())
				}
				seen := r.from
				for _, c := range r.cells {
					if c.from != seen {
						t.Fatalf("row %d lost bytes %d..%d of %q", i, seen, c.from, text)
					}
					seen = c.to
				}
				if strings.Trim(text[seen:r.to], " ") != "" {
					t.Fatalf("row %d does not show %q", i, text[seen:r.to])
				}
			}
			if at != len(text)+1 {
				t.Fatalf("the rows end at %d of %d", at, len(text)+1)
			}
		}
	})
}
