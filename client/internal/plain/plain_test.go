package plain_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/msrchat/msrchat/client/internal/plain"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"你好，北京 👨‍👩‍👧 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿": "你好，北京 👨‍👩‍👧 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
		"two\nlines\r\nthree\rfour": "two ↵ lines ↵ three ↵ four",
		"a\tb":                      "a b",
		"\x1b[31mred\x1b[0m":        "[31mred[0m",
		"\x1b]52;c;ZXZpbA==\x07":    "]52;c;ZXZpbA==",
		"a\u009b2Jb\u0085c":         "a2Jb ↵ c",
		"evil\u202egpj.exe":         "evilgpj.exe",
		"\u2066x\u2069\ufeff\u2028": "x ↵ ",
		"\xff\xfe\x9b":              "���",
		"del\x7f nul\x00":           "del nul",
		"סבבה\u200f ok":             "סבבה\u200f ok",
	} {
		if got := plain.Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

// forbidden finds a byte or character that a terminal would act on.
func forbidden(b []byte) (rune, bool) {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) || r >= 0x202A && r <= 0x202E ||
			r >= 0x2066 && r <= 0x2069 {
			return rune(b[i]), true
		}
		i += n
	}
	return 0, false
}

func FuzzNothingHarmfulPasses(f *testing.F) {
	f.Add("\x1b]0;title\x07\u009d52;c;x\u009c\u202e\xc2\x9b\x9b")
	f.Fuzz(func(t *testing.T, s string) {
		line := plain.Line(s)
		if r, bad := forbidden([]byte(line)); bad {
			t.Fatalf("Line(%q) lets %U through", s, r)
		}
		if again := plain.Line(line); again != line {
			t.Fatalf("Line is not stable: %q, %q", line, again)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		safe := plain.JSON(raw)
		if r, bad := forbidden(safe); bad {
			t.Fatalf("JSON(%q) lets %U through", raw, r)
		}
		var before, after string
		if err := json.Unmarshal(raw, &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(safe, &after); err != nil || before != after {
			t.Fatalf("JSON changed the value: %q, %q, %v", before, after, err)
		}
		if !bytes.Equal(plain.JSON(safe), safe) {
			t.Fatal("JSON is not stable")
		}
	})
}
