package text_test

import (
	"strings"
	"testing"
	"unicode"
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

// A new name has nothing invisible in it, and no tower of accents. A name of an
// earlier release is still found.
func TestNewNamesAreVisible(t *testing.T) {
	for _, in := range []string{
		"ann\ufe0f", "ann\u3164", "a\u034fnn", "\u3164\u3164", "an\u17b4n", "an\U000e0101n", "ann\u115f", "ann\u180b",
		"z" + strings.Repeat("\u0336", 30), "z\u0336\u0336x", "za\u0332\u0336\u0337\u0338\u0335",
	} {
		if display, _, err := text.Name(in); errs.CodeOf(err) != errs.CodeInvalid || display != "" {
			t.Errorf("Name(%q) = %q, %v; want it refused", in, display, err)
		}
		if display, key, err := text.FindName(in); err != nil || display == "" || key == "" {
			t.Errorf("FindName(%q) = %q, %q, %v", in, display, key, err)
		}
	}
	for _, in := range []string{"Nguyễn", "สมชาย", "नीतीश", "יִשְׂרָאֵל", "བཀྲ", "ខ្មែរ", "Zoë", "e\u0301lan"} {
		if _, _, err := text.Name(in); err != nil {
			t.Errorf("Name(%q): %v", in, err)
		}
	}
}

func TestNamesThatLookTheSame(t *testing.T) {
	for _, alike := range [][]string{
		{"ann", "Ann", "аnn", "ａnn", "ANN"}, // the third has a Cyrillic letter
		{"paypal", "раураӏ", "paypaI", "paypa1", "PAYPAL"},
		{"bob0", "bobo", "bobO", "bоbo"},
		{"modern", "rnodern"},
		{"Modern", "rnodern"},                    // the capital letter alone looks like nothing else
		{"Ivan", "іvan", "ivan", "lvan", "Іvan"}, // the second and the last have a Ukrainian letter
		{"Σοφια", "σοφια"},
	} {
		for _, other := range alike[1:] {
			_, key, err := text.Name(alike[0])
			_, same, otherErr := text.Name(other)
			if err != nil || otherErr != nil || key != same && text.Look(alike[0]) != text.Look(other) {
				t.Errorf("%q and %q look different (%v, %v)", alike[0], other, err, otherErr)
			}
		}
	}
	seen := map[[32]byte]string{}
	for _, name := range []string{
		"ann", "anna", "bob", "zoe", "zoë", "王小明", "王小朋", "지민", "user10", "user11", "user12", "bench-a-1", "bench-a-2",
	} {
		if before, ok := seen[text.Look(name)]; ok {
			t.Errorf("%q and %q look the same", before, name)
		}
		seen[text.Look(name)] = name
	}
}

// Two addresses have the same key only where mail reaches the same mailbox.
func TestKeysOfAddresses(t *testing.T) {
	key := func(in string) string {
		t.Helper()
		_, key, err := text.Email(in)
		if err != nil {
			t.Fatalf("Email(%q): %v", in, err)
		}
		return key
	}
	for _, same := range [][]string{
		{"ann@example.org", "Ann@EXAMPLE.org", "ANN@example.ORG", "ann@ｅxample.org"},
		{"büro@bücher.example", "BÜRO@Bücher.example", "bu\u0308ro@xn--bcher-kva.example"},
	} {
		for _, other := range same[1:] {
			if key(same[0]) != key(other) {
				t.Errorf("%q and %q have different keys", same[0], other)
			}
		}
	}
	for _, other := range []string{
		"vİctim@example.org", "ｖictim@example.org", "ⅴictim@example.org", "victım@example.org",
		"vic\u0442im@example.org",
	} {
		if key("victim@example.org") == key(other) {
			t.Errorf("%q has the key of another mailbox", other)
		}
	}
	if key("sam@example.org") == key("\u017fam@example.org") {
		t.Error("a letter beyond ASCII is folded into ASCII")
	}
	for _, c := range []struct{ in, key string }{ // found, though refused today
		{"Ann@localhost", "ann@localhost"},
		{"ann@my_host.example", "ann@my_host.example"},
		{"Kim@b.c", "kim@b.c"},
		{"\u212aim@b.c", "\u212aim@b.c"},
	} {
		if got, err := text.FindEmail(c.in); err != nil || got != c.key {
			t.Errorf("FindEmail(%q) = %q, %v; want %q", c.in, got, err, c.key)
		}
	}
	for _, in := range []string{"", "ann", "Ann <a@b.c>", "\xff@b.c", strings.Repeat("a", 300) + "@localhost"} {
		if got, err := text.FindEmail(in); errs.CodeOf(err) != errs.CodeInvalid || got != "" {
			t.Errorf("FindEmail(%q) = %q, %v; want it refused", in, got, err)
		}
	}
	if got := text.MailTo("Ann@Bücher.example"); got != "Ann@xn--bcher-kva.example" {
		t.Errorf("mail goes to %q", got)
	}
	if got := text.MailTo("Ann@Example.org"); got != "Ann@example.org" {
		t.Errorf("mail goes to %q", got)
	}
}

func TestEmails(t *testing.T) {
	if display, key, err := text.Email(" Ann.B@Example.COM "); err != nil || display != "Ann.B@Example.COM" ||
		key != "ann.b@example.com" {
		t.Errorf("got %q, %q, %v", display, key, err)
	}
	for _, in := range []string{
		"", "ann", "ann@", "@b.c", "Ann <a@b.c>", "a@b.c, d@e.f", "a\n@b.c", "a@b.c\u202e", "a\x00@b.c",
		strings.Repeat("a", 251) + "@b.c", "\xff@b.c", strings.Repeat("\ufdfa", 10) + "\u2028@example.org",
		"user@[127.0.0.1]", "a@127.0.0.1", "a\u2028b@b.c", "a\u00a0b@b.c", "a b@b.c", `"a b"@b.c`, "a..b@b.c", ".a@b.c",
		"a\u3164@b.c", "\u212aim@b.c", "\u1fef@b.c", "a\u2800@b.c", "a\u00ad@b.c", "a@b", "a@b.c.",
		"a@-b.c", "a@xn--a.c",
		strings.Repeat("a", 65) + "@b.c",
		strings.Repeat("\ufb2c", 60) + "@b.c", strings.Repeat("a", 60) + "@" + strings.Repeat("ü", 60) + ".example.org",
		strings.Repeat("a", 64) + "@" + strings.Repeat("ü.", 25) + "example", // too long only as DNS has it
	} {
		if _, _, err := text.Email(in); errs.CodeOf(err) != errs.CodeInvalid {
			t.Errorf("Email(%q): got %v, want it refused", in, err)
		}
	}
}

func TestMessages(t *testing.T) {
	for _, in := range []string{
		"hi", "two\nlines\tand a tab", "你好 こんにちは 안녕 👨‍👩‍👧 ❤️", strings.Repeat("字", text.MaxMessageRunes),
		strings.Repeat("😀", text.MaxMessageRunes), "שלום\u200f!", "🏴󠁧󠁢󠁷󠁬󠁳󠁿 and 🏴", "葛\U000e0100飾",
		"می\u200cخواهم", "⠀⠓⠊",
		"\u1100\u1161", "e\u0301", "a\u200bb",
	} {
		if err := text.Message(in); err != nil {
			t.Errorf("Message(%.20q…): %v", in, err)
		}
	}
	for _, in := range []string{
		"", " \n ", "a\x1b[2J", "a\x00", "a\u202eb", "a\u2067b", "a\u009bb", "\xff",
		// Blank: nothing of them shows.
		"\u200b", "\u2060", "\u2800", "\u3164", "\ufeff", "\u00ad", "\u180e", "\ufe0f", "\u200d \u2800\n\u3000",
		"\u0301",
		"\u115f\u1160", "\uffa0", "\u034f",
		// Hidden in a text that shows.
		"\U000e0041", "hi \U000e0068\U000e0069", "🏴\U000e007f\U000e0068", "a\ufff9b\ufffac\ufffb",
		"😀" + strings.Repeat("\U000e0101", 5), "a" + strings.Repeat("\u200b\u200c", 3) + "b",
		// Behind a black flag: more than a region, less, no letters of one, and no end.
		"🏴" + strings.Repeat("\U000e0061", 7) + "\U000e007f", "🏴\U000e0061\U000e0061\U000e007f",
		"🏴\U000e0061\U000e0021\U000e0062\U000e007f", "🏴\U000e0067\U000e0062\U000e0065",
		"🏴\U000e0067\U000e0062\U000e0065 hi",
	} {
		if got := errs.CodeOf(text.Message(in)); got != errs.CodeInvalid {
			t.Errorf("Message(%q): got %q, want it refused", in, got)
		}
	}
	for _, in := range []string{strings.Repeat("x", text.MaxMessageRunes+1), strings.Repeat("x", 10_000)} {
		if got := errs.CodeOf(text.Message(in)); got != errs.CodeTooLarge {
			t.Errorf("Message(%.20q…): got %q, want it refused", in, got)
		}
	}
	if text.Password("1234567") == nil || text.Password(strings.Repeat("x", 257)) == nil ||
		text.Password("12345678") != nil {
		t.Error("password limits are off")
	}
}

// A draft may be blank, and has none of the characters that a message may not have.
func TestDrafts(t *testing.T) {
	for _, in := range []string{"", " \n\t", "hi", "\u200b", "e\u0301", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", strings.Repeat("x",
		text.MaxMessageBytes)} {
		if err := text.Draft(in); err != nil {
			t.Errorf("Draft(%.20q): %v", in, err)
		}
	}
	for _, in := range []string{
		"a\x1b[2J", "\x00", "a\u202eb", "a\u009bb", "a\x7f", "\xff", "hi \U000e0068", "\ufff9",
		strings.Repeat("\u200b", 5),
	} {
		if got := errs.From(text.Draft(in)); got == nil || got.Code != errs.CodeInvalid || got.Field != "draft" {
			t.Errorf("Draft(%q): got %v, want it refused", in, got)
		}
	}
	if got := errs.CodeOf(text.Draft(strings.Repeat("x", text.MaxMessageBytes+1))); got != errs.CodeTooLarge {
		t.Errorf("too long: %q", got)
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
		if found, same, err := text.FindName(in); err != nil || found != display || same != key {
			t.Fatalf("%q: found %q with key %q, %v", in, found, same, err)
		}
		if _, again, err := text.Name(display); err != nil || again != key {
			t.Fatalf("%q shown as %q has key %q, read back %q, %v", in, display, key, again, err)
		}
		if !utf8.ValidString(display) || len(key) > 256 {
			t.Fatalf("%q gives display %q, key of %d bytes", in, display, len(key))
		}
	})
}

// A key is stable, and it and the address fit their columns.
func FuzzEmail(f *testing.F) {
	for _, s := range []string{"Ann@Example.org", "büro@bücher.example", "vİctim@example.org", "\ufdfa@example.org"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		display, key, err := text.Email(in)
		if err != nil {
			return
		}
		if _, again, err := text.Email(display); err != nil || again != key {
			t.Fatalf("%q has key %q, read back %q, %v", in, key, again, err)
		}
		if max(len(display), len(key), len(text.MailTo(display))) > text.MaxEmailBytes {
			t.Fatalf("%q: %q has key %q", in, display, key)
		}
	})
}

// What passes as a message shows something.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{"hi", "\u200b", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "a\U000e0041"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if text.Message(in) != nil {
			return
		}
		if strings.TrimSpace(in) == "" || strings.ContainsAny(in, "\x1b\x00\u009b\u202e\u2066\U000e0001") {
			t.Fatalf("%q passed", in)
		}
	})
}

// The key of a name fits its column, whatever folding makes of its letters.
func TestKeysOfNamesFitTheirColumn(t *testing.T) {
	t.Parallel()
	const column = 256 // bytes
	longest := 0
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			_, key, err := text.FindName(strings.Repeat(string(r), text.MinNameRunes))
			if err == nil {
				longest = max(longest, len(key)*text.MaxNameRunes/text.MinNameRunes)
			}
		}
	}
	if longest < 4*text.MaxNameRunes || longest > column {
		t.Errorf("the longest key has %d bytes", longest)
	}
}
