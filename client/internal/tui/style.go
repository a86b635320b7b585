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

func newStyles(dark bool) styles {
	pick := lipgloss.LightDark(dark)
	fg := func(light, darkColor string) lipgloss.Style {
		return lipgloss.NewStyle().Foreground(pick(lipgloss.Color(light), lipgloss.Color(darkColor)))
	}
	return styles{
		title:    fg("#005F87", "#87CEEB").Bold(true),
		own:      fg("#5F5F00", "#D7AF5F").Bold(true),
		faint:    fg("#6C6C6C", "#8A8A8A"),
		good:     fg("#00703C", "#87D787"),
		bad:      fg("#B00020", "#FF8787").Bold(true),
		warn:     fg("#8A4B00", "#FFD75F").Bold(true),
		unread:   fg("#8700AF", "#FFAF5F").Bold(true),
		selected: lipgloss.NewStyle().Reverse(true),
		key:      lipgloss.NewStyle().Bold(true),
	}
}
