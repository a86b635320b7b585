package tui

// scroll is the part of a history that is seen. Either it follows the newest
// message, or it is held by an entry: the line at the top of the pane is that many
// lines below the first one of the entry's text (negative: in what is above it).
// So text does not move when something is added on either side, or when the pane
// changes its size.
type scroll struct {
	anchor place // zero while following
	offset int
}

func (s *scroll) follow()         { *s = scroll{} }
func (s *scroll) following() bool { return s.anchor == place{} }

// column is a history as a column of lines, rendered where it is looked at. Before
// the first entry stands the head: what is to be said of older messages.
type column struct {
	h    *history
	p    *painter
	head []string
}

// spot is a line of a column: of entry i, or of the head where i is -1.
type spot struct{ i, line int }

func (c *column) lines(i int) []string {
	if i < 0 {
		return c.head
	}
	return c.block(i).lines
}

func (c *column) block(i int) block {
	var prev *entry
	if i > 0 {
		prev = c.h.at(i - 1)
	}
	return c.p.block(prev, c.h.at(i))
}

// up moves a spot n lines up, at most to the first line; moved says how far.
func (c *column) up(s spot, n int) (spot, int) {
	moved := 0
	for moved < n {
		if s.line > 0 {
			step := min(s.line, n-moved)
			s.line -= step
			moved += step
			continue
		}
		above := s.i - 1
		for above >= 0 && len(c.lines(above)) == 0 {
			above--
		}
		if above < -1 || above == -1 && len(c.head) == 0 {
			break
		}
		s = spot{above, len(c.lines(above))}
	}
	return s, moved
}

// bottom is the top line of a pane of that height that shows the column's end.
func (c *column) bottom(height int) spot {
	s, _ := c.up(spot{i: c.h.len()}, height)
	return s
}

// before says that a comes before b.
func before(a, b spot) bool { return a.i < b.i || a.i == b.i && a.line < b.line }

// top is the line at the top of the pane.
func (c *column) top(s *scroll, height int) spot {
	end := c.bottom(height)
	i := c.h.find(s.anchor)
	if i < 0 {
		s.follow()
		return end
	}
	b := c.block(i)
	at := spot{i: i, line: b.decor + s.offset}
	if at.line < 0 {
		at, _ = c.up(spot{i: i}, -at.line)
	}
	at.line = min(at.line, max(0, len(c.lines(at.i))-1))
	if !before(at, end) {
		s.follow()
		return end
	}
	return at
}

// hold makes a line the top one; the end is followed.
func (c *column) hold(s *scroll, at spot, height int) {
	if end := c.bottom(height); !before(at, end) || c.h.len() == 0 {
		s.follow()
		return
	}
	if at.i < 0 {
		*s = scroll{anchor: c.h.at(0).place(), offset: at.line - len(c.head) - c.block(0).decor}
		return
	}
	*s = scroll{anchor: c.h.at(at.i).place(), offset: at.line - c.block(at.i).decor}
}

// move scrolls by n lines, up if negative.
func (c *column) move(s *scroll, n, height int) {
	at := c.top(s, height)
	if n < 0 {
		at, _ = c.up(at, -n)
	}
	for ; n > 0 && at.i < c.h.len(); n-- {
		if at.line++; at.line >= len(c.lines(at.i)) {
			at = spot{i: at.i + 1}
		}
	}
	c.hold(s, at, height)
}

// view is the pane's lines, less than height where there are not so many.
func (c *column) view(s *scroll, height int) []string {
	out := make([]string, 0, height)
	for at := c.top(s, height); len(out) < height && at.i < c.h.len(); at = (spot{i: at.i + 1}) {
		lines := c.lines(at.i)
		out = append(out, lines[at.line:min(len(lines), at.line+height-len(out))]...)
	}
	return out
}

// above says how many lines are above the pane, looking no further than most.
func (c *column) above(s *scroll, height, most int) int {
	_, moved := c.up(c.top(s, height), most)
	return moved
}
