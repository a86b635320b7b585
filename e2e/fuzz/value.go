package fuzz

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode/utf8"
)

// canary is in some of the values. No refusal may repeat it.
const canary = "Zq7cAnArY"

// atoms are what odd texts are made of: what trials of this product and bug reports of
// others found, each for a kind.
var atoms = []string{
	"ann", "Bob", " ", "", "a b", "\t", "\n", "\r\n", "王小明", "한국어", "日本", "שלום", "مرحبا", "नीतीश", "สมชาย",
	// Terminals.
	"\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\u009b31m", "\x00", "\x07", "\x08", "\x7f", "\u0085",
	// Direction, and what nothing shows of.
	"\u202e", "\u202c", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c", "\u200b", "\u200d", "\u2060", "\u2800",
	"\u3164", "\uffa0", "\u115f", "\ufeff", "\u00ad", "\u180e", "\u034f", "\ufe0f", "\U000e0101", "\U000e0041",
	"\U0001f3f4\U000e0067\U000e0062\U000e007f", "\U0001f3f4\U000e0068\U000e0069", "\ufff9", "\ufffb", "\u2028",
	"\u2029",
	"\u17b4", "\u00a0", "\u3000", "\u206a", "\ufff0", "\ufffe", "\U0010ffff", "\ue000", "\U000f0000",
	// Towers, and what grows or folds.
	"z\u0336\u0336\u0336\u0336\u0336\u0336", "e\u0301", "\u0301", "\ufdfa", "ﬃ", "İ", "ı", "\u1e9e", "ſ", "\u212a",
	"ｆｕｌｌ", "аnn", "①", "\u0345", "\u1d173", "Ⅷ", "\u0958",
	// Emoji.
	"👨‍👩‍👧", "❤️", "👍🏽", "🇨🇳", "🇨",
	// Other languages of programs.
	"' OR 1=1 --",
	`"`, `\`, "%s%n%00", "{{.}}", "${jndi:x}", "<script>", "../../etc/passwd", "a;b", "|", "$(id)", "NaN",
	"null", "-0", "1e999", "0x1f",
	// Not UTF-8.
	"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80",
	canary, "\ufffd",
}

// addresses are odd e-mail addresses; %s is a fresh name.
var addresses = []string{
	"%s@example.org", "%s@EXAMPLE.org", "%s+tag@example.org", "%s@bücher.example", "%s@xn--bcher-kva.example",
	"%s@xn--a.example", "%s@[127.0.0.1]", "%s@127.0.0.1", "%s@localhost", "%s@example.org.", "%s@-a.example",
	`"%s"@example.org`, `"a\"%s"@example.org`, "Ann <%s@example.org>", "%s@example.org, x@example.org",
	"%s@example.org\r\nBcc: x@example.org", "%s@exam\u2028ple.org", "%s..a@example.org", ".%s@example.org",
	"%s@ｅxample.org", "v\u0130%s@example.org", "\u212a%s@example.org", "\ufdfa\ufdfa\ufdfa%s@example.org",
	"%s\u202e@example.org", "%s\u3164@example.org", "%s@ex\u00adample.org", "%s@example.org\x00", "%s@\u0301.example",
	"%s@a.b.c.d.e.f.g.example", "%s", "@", "%s@", "@%s.example", "%s@@example.org", "%s@例え.テスト", "%s@xn--",
	"%s@faß.example",
	"büro%s@example.org", "%s@example.com:25", "<%s@example.org>", "%s@example.org>", "%s@\xff.example",
	"\xc3%s@example.org",
}

// lengths are around limits that this or any program may have.
var lengths = []int{
	0, 1, 2, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 253, 254, 255, 256, 257, 1023, 1024, 4095, 4096, 4097, 8192,
	16383, 16384, 16385, 65535, 65536,
}

// values makes values from one source of random numbers, of which every choice of a
// case is drawn: the seed alone decides them.
type values struct{ *rand.Rand }

func newValues(seed, worker, n uint64) values {
	return values{rand.New(rand.NewPCG(seed, worker<<40|n))} //nolint:gosec // to be repeated, not to be secret
}

// chance is true in a part of the cases.
func (v values) chance(part float64) bool { return v.Float64() < part }

func pick[T any](v values, from []T) T { return from[v.IntN(len(from))] }

// text is an odd text, which need not be UTF-8.
func (v values) text() string {
	switch v.IntN(8) {
	case 0:
		return pick(v, atoms)
	case 1:
		return "ann" + pick(v, atoms)
	case 2:
		return "a" + pick(v, atoms) + "nn"
	case 3: // a long one
		unit := pick(v, atoms)
		if unit == "" {
			unit = "x"
		}
		return strings.Repeat(unit, pick(v, lengths)/len(unit)+v.IntN(2))
	case 4: // any characters
		var b strings.Builder
		for range v.IntN(40) {
			b.WriteRune(v.char())
		}
		return b.String()
	case 5:
		return strings.Repeat("x", pick(v, lengths))
	}
	var b strings.Builder
	for range 1 + v.IntN(6) {
		b.WriteString(pick(v, atoms))
	}
	return b.String()
}

// char is any character, of the blocks with the odd ones more often.
func (v values) char() rune {
	for {
		r := rune(v.IntN(utf8.MaxRune + 1))
		switch v.IntN(4) {
		case 0:
			r = rune(v.IntN(0x250))
		case 1:
			r = 0x2000 + rune(v.IntN(0x400))
		case 2:
			r = pick(v, []rune{0xe0000, 0xfe00, 0x300, 0x1f3f0, 0x1d170, 0x3130, 0xfff0}) + rune(v.IntN(0x80))
		}
		if utf8.ValidRune(r) {
			return r
		}
	}
}

// good is a text that anybody could have typed.
func (v values) good() string {
	return pick(v, []string{
		"hello", "你好，北京", "こんにちは", "안녕하세요", "two\nlines", "naïve café", "👨‍👩‍👧 ❤️ 👍🏽",
		"🏴󠁧󠁢󠁷󠁬󠁳󠁿", "שלום\u200f!", "می\u200cخواهم",
	}) + " " + strconv.Itoa(v.IntN(1000))
}

// word is a short text of letters that was not there before.
func (v values) word() string { return strconv.FormatUint(v.Uint64N(1<<40), 36) }

// email is an address, odd or not.
func (v values) email() string { return strings.ReplaceAll(pick(v, addresses), "%s", v.word()) }

// number is a whole number around what a width or a table ends at.
func (v values) number() uint64 {
	if v.chance(0.5) {
		return v.Uint64N(20)
	}
	return pick(v, []uint64{
		0, 1, 255, 256, 257, math.MaxInt16, math.MaxUint16, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32,
		math.MaxUint32 + 1, 1 << 53, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64, math.MaxUint64 - 1,
	}) - v.Uint64N(2)
}

// bytes are random, of a length around a limit or a small one.
func (v values) bytes() []byte {
	b := make([]byte, v.IntN(40))
	if v.chance(0.2) {
		b = make([]byte, pick(v, lengths))
	}
	for i := range b {
		b[i] = byte(v.Uint32())
	}
	return b
}

// quote is a text as a JSON string: as it is, bytes that are not UTF-8 included, or
// with escapes, halves of surrogates among them.
func (v values) quote(s string) string {
	switch v.IntN(5) {
	case 0: // every character as an escape
		var b strings.Builder
		b.WriteByte('"')
		for _, r := range s {
			if r > math.MaxUint16 {
				b.WriteString(fmt.Sprintf(`\u%04x\u%04X`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff))
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		}
		return b.String() + `"`
	case 1: // as it is, though control characters have to be escaped
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	case 2:
		if v.chance(0.2) {
			return `"` + pick(v, []string{`\ud800`, `\udfff\ud800`, `\uD83D`, `\u0000`, `\x41`, `\u12`, `\`}) + `"`
		}
	}
	if !utf8.ValidString(s) {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\x1b", `\u001b`, "\x00", `\u0000`).Replace(s) + `"`
	}
	quoted, _ := json.Marshal(s)
	return string(quoted)
}

// junk is any JSON, or almost.
func (v values) junk() string {
	switch v.IntN(12) {
	case 0:
		n := 1 + v.IntN(9000)
		return strings.Repeat("[", n) + strings.Repeat("]", n)
	case 1:
		n := 1 + v.IntN(4000)
		return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
	case 2:
		return v.quote(v.text())
	case 3:
		return "[" + v.quote(v.text()) + "," + strconv.FormatUint(v.number(), 10) + "]"
	case 4:
		return `{"` + canary + `":1}`
	}
	return pick(v, []string{
		"null", "true", "false", "0", "-0", "-1", "1.5", "1e400", "1E-400", "18446744073709551616", "[]", "{}", `""`,
		"NaN", "nul", "{", "]", ",", "'a'", "/* */", "[1,]", `{"a"}`, `{"a":1,}`, "01", "+1", ".5", "\x00",
		"\ufeff{}", "",
	})
}
