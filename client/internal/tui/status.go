package tui

import (
	"fmt"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/msrchat/msrchat/client"
)

// status is the last row: the connection, and what there is to say.
func (m *Model) status(width int) string {
	if m.notice.text != "" {
		style := m.styles.key
		if m.notice.bad {
			style = m.styles.bad
		}
		return style.Render(m.measure.fit(" "+m.shown(m.notice.text), width))
	}
	text, style, loud := m.connection()
	if loud {
		return style.Reverse(true).Render(m.measure.fit(" "+text, width))
	}
	hints := m.styles.faint.Render(keySwitch + " find · " + keyHelp + " help ")
	return m.measure.spread(style.Render(m.measure.cut(" "+text, width)), hints, width)
}

// connection says how the connection is. What matters most comes first: a
// narrow screen cuts the end off. loud: something is wrong.
func (m *Model) connection() (text string, style lipgloss.Style, loud bool) {
	l := m.link
	cause := ""
	if l.Cause != nil {
		cause = " · " + m.shown(cleanLine(client.Describe(l.Cause)))
	}
	switch l.State {
	case client.Online:
		return "● online · server " + m.shown(cleanLine(shortInstance(l.Instance))), m.styles.good, false
	case client.Offline:
		text = "○ offline · "
		if in := l.RetryAt.Sub(m.clock); in > 0 {
			text += fmt.Sprintf("trying again in %s · ", countdown(in))
		} else {
			text += "trying again · "
		}
		text += keyNow + " now"
		if n := m.waiting(); n > 0 {
			text += fmt.Sprintf(" · %d to send", n)
		}
		return text + cause, m.styles.warn, true
	case client.LoggedOut:
		return "✗ logged out · leave (Ctrl+C twice) and run: msrchat login" + cause, m.styles.bad, true
	case client.Stopped:
		return "✗ not connected" + cause, m.styles.bad, true
	}
	return "◌ connecting…" + cause, m.styles.warn, cause != ""
}

// waiting counts what is to be sent.
func (m *Model) waiting() (n int) {
	for _, c := range m.chats.sorted {
		n += c.hist.waiting()
	}
	return n
}

func countdown(d time.Duration) string {
	d = (d + time.Second - 1).Truncate(time.Second)
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return fmt.Sprintf("%d:%02d min", int(d.Minutes()), int(d.Seconds())%60)
}

// shortInstance is enough of an instance's id to tell it from others.
func shortInstance(id string) string {
	const uuid = 36
	if len(id) == uuid && id[8] == '-' {
		return id[:8]
	}
	return id
}
