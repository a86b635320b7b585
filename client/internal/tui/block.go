package tui

import (
	"strings"
	"time"

	"github.com/msrchat/msrchat/client"
)

// block is a rendered entry: lines of exactly the pane's width. The first ones
// are its decoration, which depends on what is above.
type block struct {
	lines []string
	decor int
}

// look is all that a block depends on besides its entry; an entry that changes
// clears its own.
type look struct {
	width int
	theme int // counts the changes of styles and measure
	day   string
	fresh bool // see painter.fresh
	group bool // the first of its sender
	hint  bool // the one that the keys for failed messages act on
	top   bool // nothing is above
}

// groupTime is how long messages of one sender stay under one heading.
const groupTime = 5 * time.Minute

// painter renders the entries of one chat for one frame.
type painter struct {
	m     measure
	st    *styles
	theme int
	width int
	now   time.Time

	name      func(*entry) string // of who wrote it, as it is shown
	fresh     *entry              // the first new one, nil if none
	hintEntry *entry              // see look.hint
}

// lookOf is how an entry looks under the one before it, nil at the top.
func (p *painter) lookOf(prev, e *entry) look {
	l := look{width: p.width, theme: p.theme, hint: e == p.hintEntry, top: prev == nil}
	day := e.at.In(p.now.Location())
	if prev == nil || !sameDay(prev.at.In(p.now.Location()), day) {
		l.day = dayName(day, p.now)
	}
	l.fresh = e == p.fresh
	l.group = l.day != "" || l.fresh || prev.sender != e.sender || e.at.Sub(prev.at) > groupTime
	return l
}

// block returns the rendered form of an entry, from its cache where that is good.
func (p *painter) block(prev, e *entry) block {
	l := p.lookOf(prev, e)
	if e.blockFor != l {
		e.block, e.blockFor = p.paint(e, l), l
	}
	return e.block
}

func (p *painter) paint(e *entry, l look) block {
	var b block
	add := func(s string) { b.lines = append(b.lines, p.m.fit(s, p.width)) }
	if l.group && !l.top {
		add("")
	}
	if l.day != "" {
		add(p.st.faint.Render(p.centered(l.day)))
	}
	if l.fresh {
		add(p.st.unread.Render(p.centered("new")))
	}
	if l.group {
		add(p.heading(e))
	}
	b.decor = len(b.lines)

	indent, margin := 2, 3 // the margin holds the mark
	if p.width < 24 {
		indent = 0
	}
	text := p.m.lines(e.text, max(p.width-indent-margin, 8))
	for i, line := range text {
		line = spaces(indent) + line
		if e.mine && i == len(text)-1 {
			line = p.m.fit(line, p.width-2) + p.mark(e) + " "
		}
		add(line)
	}
	if e.state == client.Failed {
		for _, line := range p.m.lines("✗ not sent: "+p.m.show(e.reason)+p.hint(l), max(p.width-indent-1, 8)) {
			add(spaces(indent) + p.st.bad.Render(line))
		}
	}
	return b
}

func (p *painter) hint(l look) string {
	if !l.hint {
		return ""
	}
	return "\n" + keyRetry + " send again · " + keyDiscard + " discard"
}

func (p *painter) heading(e *entry) string {
	style := p.st.title
	if e.mine {
		style = p.st.own
	}
	at := e.at.In(p.now.Location()).Format("15:04")
	return style.Render(p.m.cut(p.name(e), p.width-8)) + p.st.faint.Render("  "+at)
}

// mark says how far a message of one's own is.
func (p *painter) mark(e *entry) string {
	switch e.state {
	case client.Queued:
		return p.st.warn.Render("◌")
	case client.Failed:
		return p.st.bad.Render("✗")
	}
	return p.st.good.Render("✓")
}

// centered is a word in the middle of a rule.
func (p *painter) centered(s string) string {
	s = " " + p.m.cut(s, p.width-4) + " "
	left := (p.width - p.m.width(s)) / 2
	return rule(left) + s + rule(p.width-left-p.m.width(s))
}

const ruleText = "────────────────────────────────────────────────────────────────────────────────"

func rule(n int) string {
	if n <= 0 {
		return ""
	}
	if n <= len(ruleText)/3 {
		return ruleText[:3*n]
	}
	return strings.Repeat("─", n)
}

func sameDay(a, b time.Time) bool {
	ay, am, ad := a.Date()
	by, bm, bd := b.Date()
	return ay == by && am == bm && ad == bd
}

// dayName is a date as people say it; both times are in the same location.
func dayName(t, now time.Time) string {
	switch {
	case sameDay(t, now):
		return "Today"
	case sameDay(t, now.AddDate(0, 0, -1)):
		return "Yesterday"
	case t.Year() == now.Year():
		return t.Format("Monday, 2 January")
	}
	return t.Format("Monday, 2 January 2006")
}

// shortTime is a time in a narrow column of at most 6 cells.
func shortTime(t, now time.Time) string {
	t = t.In(now.Location())
	switch age := now.Sub(t); {
	case t.IsZero() || t.Unix() == 0:
		return ""
	case sameDay(t, now):
		return t.Format("15:04")
	case age > 0 && age < 6*24*time.Hour:
		return t.Format("Mon")
	case t.Year() == now.Year():
		return t.Format("2 Jan")
	}
	return t.Format("2006")
}
