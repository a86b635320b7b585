package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// editor is a text field of one or more lines: the composer, and the switcher's
// query. It moves and deletes by the characters of measure. The textarea of
// bubbles does not: it deletes half of an emoji, and shows the caret beside its
// cell after one.
type editor struct {
	value string // clean
	caret int    // bytes, between two characters
	goal  int    // the column that moving up and down keeps, -1 if none
	top   int    // the first row shown

	laid      []row // the layout of value, nil if stale
	laidWidth int
	laidBy    measure
}

// maxDraft bounds a text that is being written, in bytes. It is four times what
// can be sent, so that a text that is too long can be cut down.
const maxDraft = 64 << 10

func (e *editor) set(value string) {
	if len(value) > maxDraft {
		value = strings.ToValidUTF8(value[:maxDraft], "")
	}
	e.value = clean(value)
	e.caret, e.top, e.goal, e.laid = len(e.value), 0, -1, nil
}

// update replaces the value by one that was not typed here. The caret stays before
// the text that it is before, as far as that is still there.
func (e *editor) update(value string) {
	after := e.value[e.caret:]
	e.set(value)
	if strings.HasSuffix(e.value, after) {
		e.caret = len(e.value) - len(after)
	}
}

// insert puts s at the caret; where that would be too much it changes nothing.
func (e *editor) insert(s string) bool {
	s = clean(s)
	if len(e.value)+len(s) > maxDraft {
		return false
	}
	e.replace(e.caret, e.caret, s)
	return true
}

func (e *editor) replace(from, to int, s string) {
	e.value = e.value[:from] + s + e.value[to:]
	e.caret, e.goal, e.laid = from+len(s), -1, nil
}

// layout is the value in rows. Where a line ends with a full row, the caret after
// it has a row of its own.
func (e *editor) layout(m measure, width int) []row {
	if e.laid != nil && e.laidWidth == width && e.laidBy == m {
		return e.laid
	}
	rows := m.rows(e.value, width)
	var out []row
	for _, r := range rows {
		out = append(out, r)
		if !r.soft && r.width() >= max(width, 2) {
			out[len(out)-1].soft = true
			out = append(out, row{from: r.to, to: r.to})
		}
	}
	e.laid, e.laidWidth, e.laidBy = out, width, m
	return out
}

// place is the caret's row and column.
func (e *editor) place(m measure, width int) (line, column int) {
	rows := e.layout(m, width)
	for i, r := range rows {
		if e.caret > r.to || e.caret == r.to && r.soft && i+1 < len(rows) {
			continue
		}
		for _, c := range r.cells {
			if c.to > e.caret {
				break
			}
			column += c.width
		}
		return i, min(column, max(width, 2)-1)
	}
	return len(rows) - 1, 0
}

// height is the rows that the value takes, up to most.
func (e *editor) height(m measure, width, most int) int {
	return min(len(e.layout(m, width)), most)
}

// view is the rows to show, as many as height says, and the caret among them.
func (e *editor) view(m measure, width, height int) (lines []string, x, y int) {
	rows := e.layout(m, width)
	line, column := e.place(m, width)
	e.top = min(e.top, line, max(0, len(rows)-height))
	e.top = max(e.top, line-height+1)
	for _, r := range rows[e.top:min(len(rows), e.top+height)] {
		lines = append(lines, m.fit(r.text(), width))
	}
	return lines, column, line - e.top
}

// line is a value without line breaks on one row, and the caret's column. Of a
// longer value it is the part around the caret.
func (e *editor) line(m measure, width int) (shown string, x int) {
	cells := m.cells(e.value, 0, len(e.value), width)
	from := 0
	for _, c := range cells {
		if c.to > e.caret {
			break
		}
		for x += c.width; x >= width; from++ {
			x -= cells[from].width
		}
	}
	return m.fit(row{cells: cells[from:]}.text(), width), x
}

// key handles a key press; false: it is no key of an editor.
func (e *editor) key(k tea.KeyPressMsg, m measure, width int) bool {
	if k.Text != "" && k.Mod&(tea.ModCtrl|tea.ModAlt|tea.ModMeta|tea.ModSuper) == 0 {
		e.insert(k.Text)
		return true
	}
	if do, ok := editorKeys[k.Keystroke()]; ok {
		return do(e, m, width)
	}
	return false
}

type editorKey func(e *editor, m measure, width int) bool

// editorKeys are the keys of a text field: those of readline that the program has
// not bound.
var editorKeys = map[string]editorKey{
	"left": move((*editor).left), "ctrl+b": move((*editor).left),
	"right": move((*editor).right), "ctrl+f": move((*editor).right),
	"alt+left": move((*editor).wordLeft), "ctrl+left": move((*editor).wordLeft), "alt+b": move((*editor).wordLeft),
	"alt+right": move((*editor).wordRight), "ctrl+right": move((*editor).wordRight), "alt+f": move((*editor).wordRight),
	"home": move((*editor).lineStart), "ctrl+a": move((*editor).lineStart),
	"end": move((*editor).lineEnd), "ctrl+e": move((*editor).lineEnd),
	"backspace": erase((*editor).left), "ctrl+h": erase((*editor).left), "shift+backspace": erase((*editor).left),
	"delete": erase((*editor).right), "ctrl+d": erase((*editor).right),
	"ctrl+w": erase((*editor).wordLeft), "alt+backspace": erase((*editor).wordLeft),
	"ctrl+backspace": erase((*editor).wordLeft),
	"alt+d":          erase((*editor).wordRight), "alt+delete": erase((*editor).wordRight),
	"ctrl+delete": erase((*editor).wordRight),
	"ctrl+u":      erase((*editor).lineStart),
	"up":          func(e *editor, m measure, width int) bool { return e.vertical(m, width, -1) },
	"down":        func(e *editor, m measure, width int) bool { return e.vertical(m, width, 1) },
}

func move(to func(*editor, measure) int) editorKey {
	return func(e *editor, m measure, _ int) bool {
		e.caret, e.goal = to(e, m), -1
		return true
	}
}

func erase(to func(*editor, measure) int) editorKey {
	return func(e *editor, m measure, _ int) bool {
		at := to(e, m)
		e.replace(min(at, e.caret), max(at, e.caret), "")
		return true
	}
}

func (e *editor) left(m measure) int {
	if e.caret == 0 {
		return 0
	}
	start := e.lineStart(m)
	if start == e.caret {
		return start - 1 // over the line break
	}
	at := start
	for at < e.caret {
		_, _, size := m.next(e.value[at:])
		if at+size >= e.caret {
			break
		}
		at += size
	}
	return at
}

func (e *editor) right(m measure) int {
	if e.caret == len(e.value) {
		return e.caret
	}
	if e.value[e.caret] == '\n' {
		return e.caret + 1
	}
	_, _, size := m.next(e.value[e.caret:])
	return e.caret + size
}

func (e *editor) lineStart(measure) int { return strings.LastIndexByte(e.value[:e.caret], '\n') + 1 }

func (e *editor) lineEnd(measure) int {
	if i := strings.IndexByte(e.value[e.caret:], '\n'); i >= 0 {
		return e.caret + i
	}
	return len(e.value)
}

func (e *editor) wordLeft(measure) int {
	rest := strings.TrimRightFunc(e.value[:e.caret], unicode.IsSpace)
	last, _ := utf8.DecodeLastRuneInString(rest)
	return len(strings.TrimRightFunc(rest, sameKind(last)))
}

func (e *editor) wordRight(measure) int {
	rest := strings.TrimLeftFunc(e.value[e.caret:], unicode.IsSpace)
	next, _ := utf8.DecodeRuneInString(rest)
	return len(e.value) - len(strings.TrimLeftFunc(rest, sameKind(next)))
}

// sameKind says which runes belong to a word with r: letters and digits,
// characters of Chinese and Japanese, or signs.
func sameKind(r rune) func(rune) bool {
	kind := func(r rune) int {
		switch {
		case unicode.IsSpace(r):
			return 0
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana):
			return 1
		case unicode.IsLetter(r), unicode.IsDigit(r), unicode.IsMark(r), r == '_':
			return 2
		}
		return 3
	}
	want := kind(r)
	return func(r rune) bool { return kind(r) == want }
}

// vertical moves the caret by rows; false at the first and last one.
func (e *editor) vertical(m measure, width, by int) bool {
	rows := e.layout(m, width)
	line, column := e.place(m, width)
	if e.goal < 0 {
		e.goal = column
	}
	if line+by < 0 || line+by >= len(rows) {
		return false
	}
	r := rows[line+by]
	e.caret = r.from
	for x, i := 0, 0; i < len(r.cells) && x+r.cells[i].width <= e.goal; i++ {
		x += r.cells[i].width
		if i+1 == len(r.cells) && r.soft {
			break // its end is the next row's beginning
		}
		e.caret = r.cells[i].to
	}
	return true
}
