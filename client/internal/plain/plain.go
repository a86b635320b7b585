// Package plain makes text from other people harmless for a terminal: no byte
// of it can move the cursor, write the clipboard, change colours or turn the
// direction of what follows.
package plain

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// NewLine stands for a line break in Line.
const NewLine = " ↵ "

// Line returns s as one line.
func Line(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s { // bytes that are no UTF-8 come as U+FFFD
		switch {
		case r == '\n', r == '\u0085', r == '\u2028', r == '\u2029':
			b.WriteString(NewLine)
		case r == '\r':
			if !strings.HasPrefix(s[i+1:], "\n") {
				b.WriteString(NewLine)
			}
		case r == '\t':
			b.WriteByte(' ')
		case harmful(r):
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func clean(s string) bool {
	for _, r := range s {
		if harmful(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// harmful names the characters that do something to a terminal or to their
// neighbours. The joiners U+200C and U+200D and the marks U+200E and U+200F are
// not among them: emoji, Persian and Hebrew need them.
func harmful(r rune) bool {
	return unicode.IsControl(r) || // C0, DEL and C1
		r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 || // embeddings, overrides, isolates
		r >= 0xFFF9 && r <= 0xFFFB || // interlinear annotation
		r == 0xFEFF || r == '\u2028' || r == '\u2029'
}

// JSON escapes in encoded JSON what harms a terminal and encoding/json leaves
// as it is. The value that it decodes to stays the same.
func JSON(encoded []byte) []byte {
	if clean(string(encoded)) {
		return encoded
	}
	const hex = "0123456789abcdef"
	out := make([]byte, 0, len(encoded)+16)
	for _, r := range string(encoded) {
		if harmful(r) && r != '\n' && r <= 0xFFFF {
			out = append(out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}
