package tui

// area is the size of a part of the screen, in cells.
type area struct{ w, h int }

// layout says where everything is, for the present size of the screen: from left
// to right the list and the top layer, each with a title, and below both the
// status.
type layout struct {
	side   area // the list, below its title; no width where there is no room
	main   area // the top layer, below its title
	head   int  // rows of a title: 0, 1 or, with a rule, 2
	status bool // there is a status row
}

// content is the rows above the status.
func (l layout) content() int { return l.head + l.main.h }

// mainX is the top layer's first column; the one before is the border.
func (l layout) mainX() int {
	if l.side.w == 0 {
		return 0
	}
	return l.side.w + 1
}

const (
	// bothFrom is the width from which list and chat fit beside one another.
	bothFrom = 60
	// maxInput is how many rows the composer grows to.
	maxInput = 8
)

func (m *Model) layout() layout {
	var l layout
	rows := m.height
	if l.status = rows >= 2; l.status {
		rows--
	}
	switch {
	case rows >= 9:
		l.head = 2
	case rows >= 4:
		l.head = 1
	}
	l.main = area{m.width, max(rows-l.head, 0)}
	if m.width >= bothFrom {
		l.side = area{min(max(m.width*3/10, 20), 32), l.main.h}
		l.main.w -= l.side.w + 1
	}
	return l
}

// chatLayout divides the open chat's part of the screen: messages, a rule,
// composer.
type chatLayout struct {
	w      int
	body   int // rows of the messages
	rule   bool
	input  int // rows of the composer
	prompt int // columns before what is typed
	inputW int // columns of what is typed
}

func (m *Model) chatLayout() chatLayout {
	l := m.layout()
	c := chatLayout{w: l.main.w, rule: l.main.h >= 3}
	c.prompt, c.inputW = prompt(c.w)
	c.input = m.open.composer.height(m.measure, c.inputW, min(maxInput, max(1, l.content()/3)))
	c.body = l.main.h - c.input
	if c.rule {
		c.body--
	}
	c.body = max(c.body, 0)
	return c
}

// prompt divides a row of a text field: the sign before it, and what is typed.
func prompt(width int) (sign, text int) {
	if sign = 3; width < 12 {
		sign = 0
	}
	return sign, max(width-sign-1, 1)
}
