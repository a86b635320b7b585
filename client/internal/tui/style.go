package tui

import (
	"charm.land/lipgloss/v2"
)

// styles are all looks of the program. They only repeat in colour what signs
// and words say already; the renderer leaves the colours out under NO_COLOR.
type styles struct {
	title    lipgloss.Style // names of people and panes
	own      lipgloss.Style // one's own name
	faint    lipgloss.Style // times, rules, hints
	good     lipgloss.Style // online, sent
	bad      lipgloss.Style // failed, logged out
	warn     lipgloss.Style // offline
	unread   lipgloss.Style
	selected lipgloss.Style
	key      lipgloss.Style // names of keys
}

// background is the terminal's, as it reports it.
type background int

const (
	unknown background = iota // not reported, as under tmux
	dark
	light
)

// newStyles picks colours that can be read on a background. Where that is
// unknown they are the terminal's own, which its owner chose for it.
func newStyles(on background) styles {
	fg := func(own, onDark, onLight string) lipgloss.Style {
		return lipgloss.NewStyle().Foreground(lipgloss.Color([]string{own, onDark, onLight}[on]))
	}
	faint := fg("", "#8A8A8A", "#6C6C6C")
	if on == unknown {
		faint = lipgloss.NewStyle().Faint(true)
	}
	return styles{
		title:    fg("6", "#87CEEB", "#005F87").Bold(true),
		own:      fg("3", "#D7AF5F", "#5F5F00").Bold(true),
		faint:    faint,
		good:     fg("2", "#87D787", "#00703C"),
		bad:      fg("1", "#FF8787", "#B00020").Bold(true),
		warn:     fg("3", "#FFD75F", "#8A4B00").Bold(true),
		unread:   fg("5", "#FFAF5F", "#8700AF").Bold(true),
		selected: lipgloss.NewStyle().Reverse(true),
		key:      lipgloss.NewStyle().Bold(true),
	}
}
