package text_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

func TestNames(t *testing.T) {
	cases := []struct{ in, display, key string }{
		{"Ann", "Ann", "ann"},
		{"  ann ", "ann", "ann"},
		{"王小明", "王小明", "王小明"},
		{"지민", "지민", "지민"},
		{"さくら", "さくら", "さくら"},
		{"Straße", "Straße", "strasse"},
		{"Ａｎｎ", "Ann", "ann"},
		{"a.b_c-d", "a.b_c-d", "a.b_c-d"},
		{"É́lan"[:2] + "x", "Éx", "éx"},
		{"", "", ""},
		{"a", "", ""},
		{strings.Repeat("a", 33), "", ""},
		{strings.Repeat("长", 10_000), "", ""},
		{"a b", "", ""},
		{"a\x00b", "", ""},
		{"a\x1b[31m", "", ""},
		{"ab\u202e", "", ""},
		{"a\u200bb", "", ""},
		{"\xff\xfe", "", ""},
		{".ab", "", ""},
		{"ab😀", "", ""},
		{"a/b", "", ""},
	}
	for _, c := range cases {
		display, key, err := text.Name(c.in)
		if c.display == "" {
			if e := errs.From(err); err == nil || e.Code != errs.CodeInvalid || e.Field != "name" {
				t.Errorf("Name(%q) = %q, %q, %v; want it refused", c.in, display, key, err)
			}
			continue
		}
		if err != nil || display != c.display || key != c.key {
			t.Errorf("Name(%q) = %q, %q, %v; want %q, %q", c.in, display, key, err, c.display, c.key)
		}
	}
}

func TestEmails(t *testing.T) {
	if display, key, err := text.Email(" Ann.B@Example.COM "); err != nil || display != "Ann.B@Example.COM" ||
		key != "ann.b@example.com" {
		t.Errorf("got %q, %q, %v", display, key, err)
	}
	for _, in := range []string{
		"", "ann", "ann@", "@b.c", "Ann <a@b.c>", "a@b.c, d@e.f", "a\n@b.c", "a@b.c\u202e", "a\x00@b.c",
		strings.Repeat("a", 251) + "@b.c", "\xff@b.c",
	} {
		if _, _, err := text.Email(in); errs.CodeOf(err) != errs.CodeInvalid {
			t.Errorf("Email(%q): got %v, want it refused", in, err)
		}
	}
}

func TestMessages(t *testing.T) {
	for _, in := range []string{
		"hi", "two\nlines\tand a tab", "你好 こんにちは 안녕 👨‍👩‍👧 ❤️", strings.Repeat("字", text.MaxMessageRunes),
		strings.Repeat("😀", text.MaxMessageRunes), "שלום\u200f!",
	} {
		if err := text.Message(in); err != nil {
			t.Errorf("Message(%.20q…): %v", in, err)
		}
	}
	bad := map[string]errs.Code{
		"": errs.CodeInvalid, " \n ": errs.CodeInvalid, "a\x1b[2J": errs.CodeInvalid, "a\x00": errs.CodeInvalid,
		"a\u202eb": errs.CodeInvalid, "a\u2067b": errs.CodeInvalid, "a\u009bb": errs.CodeInvalid,
		"\xff": errs.CodeInvalid,
		strings.Repeat("x", text.MaxMessageRunes+1): errs.CodeTooLarge, strings.Repeat("x", 10_000): errs.CodeTooLarge,
	}
	for in, code := range bad {
		if got := errs.CodeOf(text.Message(in)); got != code {
			t.Errorf("Message(%.20q…): got %q, want %s", in, got, code)
		}
	}
	if text.Password("1234567") == nil || text.Password(strings.Repeat("x", 257)) == nil ||
		text.Password("12345678") != nil {
		t.Error("password limits are off")
	}
}

// A key is stable: the shown form has the same key.
func FuzzName(f *testing.F) {
	for _, s := range []string{"Ann", "Straße", "ﬃ", "İstanbul", "王小明", "ᾳͅ", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		display, key, err := text.Name(in)
		if err != nil {
			return
		}
		if _, again, err := text.Name(display); err != nil || again != key {
			t.Fatalf("%q shown as %q has key %q, read back %q, %v", in, display, key, again, err)
		}
		if !utf8.ValidString(display) || len(key) > 256 {
			t.Fatalf("%q gives display %q, key of %d bytes", in, display, len(key))
		}
	})
}
