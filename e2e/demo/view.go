package demo

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// The looks: the terminal's own colours, which its owner chose to be readable on
// the background. They only repeat what words say.
var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = lipgloss.NewStyle().Foreground(lipgloss.Green).Bold(true)
	bad   = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	warn  = lipgloss.NewStyle().Foreground(lipgloss.Yellow).Bold(true)
)

// wide is the width from which the faults stand beside the counters.
const wide = 104

// view is the director's pane: at most height lines, none wider than width.
// focused says that keys go there.
func view(s State, width, height int, focused bool) []string {
	if width <= 0 || height <= 0 {
		return nil
	}
	head := []string{title(s), keys(s, focused), ""}
	left := append(present(s), counters(s)...)
	var body []string
	if s.Verdict != nil {
		left = conclusion(*s.Verdict, s.Checked, width)
	}
	if width >= wide && s.Verdict == nil {
		body = beside(left, faultLines(s, max(height-len(head), 0)))
	} else {
		body = append(left, "")
		body = append(body, faultLines(s, max(height-len(head)-len(body), 0))...)
	}
	lines := append(head, body...)
	lines = lines[:min(len(lines), height)]
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, width, "…")
	}
	return lines
}

func clock(d time.Duration) string {
	seconds := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

func title(s State) string {
	return fmt.Sprintf("%s  seed %s  %s", bold.Render("msrChat chaos demo"), bold.Render(fmt.Sprint(s.Seed)),
		faint.Render(clock(s.Since)+" of "+clock(s.Of)))
}

func keys(s State, focused bool) string {
	move := "F2 type as ann · F3 type as ben · F4 back here"
	switch {
	case s.Verdict != nil && focused:
		return bold.Render("any key leaves") + faint.Render(" · F2 ann · F3 ben")
	case s.Verdict != nil:
		return bold.Render("F4, then any key, leaves")
	case focused:
		return faint.Render(move + " · q verdict now · Ctrl+C leave")
	}
	return faint.Render(move)
}

// present is what goes on.
func present(s State) []string {
	now := func(text string) []string { return []string{text, ""} }
	if n := len(s.Faults); n > 0 {
		f := s.Faults[n-1]
		switch {
		case f.Err != "":
			return now(bad.Render("NOT HEALED") + " " + f.What + ": " + f.Err)
		case !f.Whole:
			return now(bad.Render("NOW") + " " + bold.Render(f.What) + fmt.Sprintf(" · %d unacknowledged · %s", f.Unacknowledged, seconds(f.For)))
		}
	}
	if s.Phase == Settling {
		return now(warn.Render("SETTLING") + " nobody types any more; the last messages arrive")
	}
	return now(good.Render("ALL IS WELL") + " the next fault comes")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func counters(s State) []string {
	row := func(name string, c Counts) string {
		return fmt.Sprintf("%-12s %7s  %12s  %6s", name, thousands(c.Typed), thousands(c.Acknowledged), thousands(c.Shown))
	}
	return []string{
		faint.Render(fmt.Sprintf("%-12s %7s  %12s  %6s", "", "typed", "acknowledged", "shown")),
		row(fmt.Sprintf("%d devices", s.Devices), s.Crowd),
		row("ann and ben", s.People),
		"",
		tallies(s.Checked),
	}
}

// tallies are what the checker found so far.
func tallies(c Checked) string {
	one := func(name string, n int) string {
		style := good
		if n > 0 {
			style = bad
		}
		return name + " " + style.Render(fmt.Sprint(n))
	}
	when := "checked at the end"
	switch {
	case c.Final:
	case c.Ago < 0:
		when = "not checked yet"
	default:
		when = fmt.Sprintf("checked %d s ago", int(c.Ago.Seconds()))
	}
	return strings.Join([]string{one("lost", c.Lost), one("doubled", c.Doubled), one("reordered", c.Reordered), faint.Render(when)}, "  ")
}

// faultLines are the newest faults that fit into some lines.
func faultLines(s State, room int) []string {
	if room < 2 || len(s.Faults) == 0 {
		return nil
	}
	lines := []string{faint.Render(fmt.Sprintf("%-34s %14s  %s", "fault", "unacknowledged", "whole after"))}
	from := max(0, len(s.Faults)-(room-1))
	for _, f := range s.Faults[from:] {
		result := "…"
		switch {
		case f.Err != "":
			result = bad.Render("never")
		case f.Whole:
			result = seconds(f.For)
		}
		lines = append(lines, fmt.Sprintf("%s %14d  %s", pad(f.What, 34), f.Unacknowledged, result))
	}
	return lines
}

// conclusion is the verdict.
func conclusion(v Verdict, c Checked, width int) []string {
	style := good
	if !v.Kept {
		style = bad
	}
	lines := []string{style.Render(v.Headline), tallies(c)}
	for _, l := range v.Lines {
		lines = append(lines, strings.Split(ansi.Wrap(l, width, ""), "\n")...)
	}
	return append(lines, faint.Render("the same faults again: "+v.Replay))
}

// beside puts columns next to each other.
func beside(left, right []string) []string {
	const gap = 4
	width := 0
	for _, l := range left {
		width = max(width, ansi.StringWidth(l))
	}
	width = max(width, 52) // so that the right one does not jump with the left one's text
	lines := make([]string, max(len(left), len(right)))
	for i := range lines {
		if i < len(left) {
			lines[i] = left[i]
		}
		if i < len(right) {
			lines[i] = pad(lines[i], width+gap) + right[i]
		}
	}
	return lines
}

// pad makes a text at least so wide, and cuts what is more.
func pad(text string, width int) string {
	text = ansi.Truncate(text, width, "…")
	return text + strings.Repeat(" ", width-ansi.StringWidth(text))
}
