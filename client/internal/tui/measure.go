package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// measure is the one place that says how many cells a text takes. Its method is
// the one that the renderer puts cells on the screen with, so that both always
// agree: grapheme clusters where the terminal reports mode 2027, otherwise a
// sum over code points as wcwidth(3) has it.
type measure struct{ method ansi.Method }

// width is the cells that s takes; escape sequences take none.
func (m measure) width(s string) int { return m.method.StringWidth(s) }

// maxCluster bounds the bytes of one character with its marks. The longest real
// ones, flags and families with skin tones, have about 40; texts with hundreds
// of marks over one letter smear over the lines above.
const maxCluster = 64

// tab is how a tab is shown; a text keeps it as it is.
const tab = "    "

// next takes the first character off s, which must be clean: how it is shown,
// its cells, and its bytes in s. Characters without cells of their own are
// shown as nothing.
func (m measure) next(s string) (shown string, width, size int) {
	if s[0] == '\t' {
		return tab, len(tab), 1
	}
	if c := s[0]; c < utf8.RuneSelf && (len(s) == 1 || s[1] < utf8.RuneSelf) {
		return s[:1], 1, 1 // the bulk of most texts
	}
	cluster, width := ansi.FirstGraphemeCluster(s, m.method)
	size = len(cluster)
	if size > maxCluster {
		cut := maxCluster
		for !utf8.RuneStart(cluster[cut]) {
			cut--
		}
		cluster = cluster[:cut]
		width = m.method.StringWidth(cluster)
	}
	if m.method == ansi.WcWidth {
		if plain := plainEmoji(cluster); plain != cluster {
			cluster, width = plain, m.method.StringWidth(plain)
		}
	}
	if width == 0 {
		return "", 0, size
	}
	return cluster, width, size
}

// plainEmoji takes from an emoji what terminals without mode 2027 disagree
// about: variation selectors (1 cell or 2), skin tones (2 more or none) and
// joiners (a family in 2 cells or in 6). The pictures that were joined remain,
// side by side. Other scripts keep their joiners.
func plainEmoji(cluster string) string {
	joined := false
	for i, r := range cluster {
		switch {
		case r == '\uFE0F', r == '\uFE0E', skinTone(r) && i > 0:
			joined = true
		case r == '\u200D':
			joined = joined || ansi.GraphemeWidth.StringWidth(cluster) != ansi.WcWidth.StringWidth(cluster)
		}
	}
	if !joined {
		return cluster
	}
	return strings.Map(func(r rune) rune {
		if r == '\uFE0F' || r == '\uFE0E' || r == '\u200D' || r == '\u20E3' || skinTone(r) {
			return -1
		}
		return r
	}, cluster)
}

func skinTone(r rune) bool { return r >= 0x1F3FB && r <= 0x1F3FF }

// show is a clean text as the screen gets it.
func (m measure) show(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\n' {
			b.WriteByte('\n')
			s = s[1:]
			continue
		}
		shown, _, size := m.next(s)
		b.WriteString(shown)
		s = s[size:]
	}
	return b.String()
}

// fit makes a line, styled or not, exactly width cells wide.
func (m measure) fit(s string, width int) string {
	if width <= 0 {
		return ""
	}
	w := m.width(s)
	if w > width {
		s = m.method.Truncate(s, width, "…")
		w = m.width(s)
	}
	return s + spaces(width-w)
}

// cut shortens a plain text to at most width cells.
func (m measure) cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if m.width(s) <= width {
		return s
	}
	return m.method.Truncate(s, width, "…")
}

// spread puts left and right at the ends of a line; left gives way.
func (m measure) spread(left, right string, width int) string {
	rw := m.width(right)
	if rw == 0 || rw+2 > width {
		return m.fit(left, width)
	}
	return m.fit(left, width-rw-1) + " " + right
}

const blank = "                                                                                "

func spaces(n int) string {
	if n <= 0 {
		return ""
	}
	if n <= len(blank) {
		return blank[:n]
	}
	return strings.Repeat(" ", n)
}

// clean makes a text from outside harmless for a terminal. Control characters
// become visible signs, direction overrides and broken bytes U+FFFD; lines are
// separated by \n, and a tab stays one, which rows and show turn into spaces.
// Every text that was not written in this package passes through here or
// cleanLine before it is shown.
func clean(s string) string {
	if !unsafe(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s { // broken bytes come as U+FFFD
		switch {
		case r == '\r':
			if !strings.HasPrefix(s[i+1:], "\n") {
				b.WriteByte('\n')
			}
		case r == '\n', r == '\u0085', r == '\u2028', r == '\u2029':
			b.WriteByte('\n')
		case r == '\t':
			b.WriteByte('\t')
		case r < 0x20:
			b.WriteRune(0x2400 + r) // the picture of the control character
		case r == 0x7F:
			b.WriteRune('\u2421')
		case r >= 0x80 && r < 0xA0, override(r):
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cleanLine is clean for what has one line: names, reasons.
func cleanLine(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(clean(s))
}

func unsafe(s string) bool {
	for _, r := range s {
		switch {
		case r == '\n', r == '\t':
		case unicode.IsControl(r), override(r), r == utf8.RuneError, r == '\u2028', r == '\u2029':
			return true
		}
	}
	return false
}

// override says that a rune changes the direction of the text after it.
func override(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}
