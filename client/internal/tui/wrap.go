package tui

import (
	"strings"
	"unicode/utf8"
)

// cell is one character of a text that is laid out.
type cell struct {
	shown    string // what the screen gets
	width    int
	from, to int // bytes in the text
}

// row is one line of a text that is laid out. Its bytes are from..to; spaces
// that did not fit at its end are in that range but not among its cells.
type row struct {
	cells    []cell
	from, to int
	soft     bool // the next row belongs to the same line of the text
}

func (r row) text() string {
	var b strings.Builder
	for _, c := range r.cells {
		b.WriteString(c.shown)
	}
	return b.String()
}

func (r row) width() int {
	w := 0
	for _, c := range r.cells {
		w += c.width
	}
	return w
}

// rows lays a clean text out in a width of at least 2 cells. Lines break after
// spaces and between wide characters, and inside a word that alone is too long;
// nothing but the spaces at a break is lost.
func (m measure) rows(text string, width int) []row {
	width = max(width, 2)
	var out []row
	for at := 0; ; {
		end := strings.IndexByte(text[at:], '\n')
		last := end < 0
		if last {
			end = len(text)
		} else {
			end += at
		}
		out = breakLine(m.cells(text, at, end, width), at, end, width, out)
		if last {
			return out
		}
		at = end + 1
	}
}

func (m measure) cells(text string, from, to, width int) []cell {
	out := make([]cell, 0, to-from)
	for from < to {
		shown, w, size := m.next(text[from:to])
		if w > width {
			shown, w = "?", 1 // in a width of two cells there is no better
		}
		out = append(out, cell{shown, w, from, from + size})
		from += size
	}
	return out
}

// breakLine appends the rows of one line of text.
func breakLine(cells []cell, from, to, width int, out []row) []row {
	start, used := 0, 0 // the row being filled: its first cell and its width
	space, spaceW := 0, 0
	for i := 0; i < len(cells); i++ {
		c := cells[i]
		if c.shown == " " && used+1 > width {
			// Spaces hang over the end, unseen, and the row ends after them.
			end := i
			for i < len(cells) && cells[i].shown == " " {
				i++
			}
			if i == len(cells) {
				return append(out, row{cells: cells[start:end], from: cells[start].from, to: to})
			}
			out = append(out, row{cells: cells[start:end], from: cells[start].from, to: cells[i].from, soft: true})
			start, used, space = i, 0, i
			i--
			continue
		}
		if i > start && mayBreak(cells[i-1], c) {
			space, spaceW = i, used
		}
		for used+c.width > width { // twice where the word before c is long
			if space <= start {
				space, spaceW = i, used // inside a word
			}
			out = append(out, row{
				cells: cells[start:space], from: cells[start].from, to: cells[space].from, soft: true,
			})
			start, used = space, used-spaceW
		}
		used += c.width
	}
	if start < len(cells) {
		from = cells[start].from
	}
	return append(out, row{cells: cells[start:], from: from, to: to})
}

// mayBreak says that a line may end between two characters.
func mayBreak(a, b cell) bool {
	switch {
	case a.shown == " ", a.shown == tab:
		return b.shown != " "
	case b.shown == "":
		return false
	case a.width == 2 || b.width == 2:
		return b.shown != " " && !strings.Contains(noStart, first(b.shown)) && !strings.Contains(noEnd, first(a.shown))
	}
	return false
}

// noStart and noEnd are what should not begin and end a line of Chinese or
// Japanese.
const (
	noStart = "、。，．：；？！）］｝〉》」』】〕’”…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ%.,:;?!)]}"
	noEnd   = "（［｛〈《「『【〔‘“([{"
)

func first(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return "\x00"
	}
	return s[:n]
}

// lines is a text laid out for reading.
func (m measure) lines(text string, width int) []string {
	rows := m.rows(text, width)
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = strings.TrimRight(r.text(), " ")
	}
	return out
}
