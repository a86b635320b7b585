// Package tui is the screen of msrchat: a list of conversations, the messages
// of the open one, and a place to write.
//
// One Model owns everything that is shown; Bubble Tea calls it from one
// goroutine. The parts (roster, timeline, scroll, editor) are plain structs with
// methods; what takes the input is a stack of layers. Nothing here waits: disk
// and network are reached by commands, whose answers come back as messages, and
// the client's events come through pump.
package tui

import (
	"context"
	"log/slog"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/msrchat/msrchat/client"
)

// Model is the whole screen.
type Model struct {
	ctx context.Context // of all commands; ends after the last write
	b   Backend
	log *slog.Logger
	now func() time.Time // in the location that times are shown in
	// after returns a command that gives a message once the time has passed.
	after func(time.Duration, tea.Msg) tea.Cmd

	me    client.User
	epoch uint64    // in which the chats' ids are valid
	clock time.Time // now, as of this update
	link  client.Link

	width, height int
	focused       bool // the terminal has the focus, as far as it tells
	measure       measure
	styles        styles
	theme         int // counts the changes of measure and styles

	chats    *roster
	open     *view // nil: the list has the keys
	selected *chat // in the list, while no chat is open
	layers   stack

	notice notice
	leave  time.Time // until then, Ctrl+C leaves
	ended  error     // why the program ends by itself
	timer  timer
	writes writes
	loads  loads
}

// notice is a line for a few seconds.
type notice struct {
	text  string
	bad   bool
	until time.Time
}

const (
	// noticeTime is how long a notice stays: long enough to read two lines.
	noticeTime = 6 * time.Second
	// leaveTime is how long the first Ctrl+C counts.
	leaveTime = 3 * time.Second
)

// newModel returns the screen with what is kept on this machine.
func newModel(ctx context.Context, b Backend, log *slog.Logger, now func() time.Time, s snapshot) *Model {
	m := &Model{
		ctx: ctx, b: b, log: log, now: now, me: b.User(), epoch: s.epoch, clock: now(), link: b.Link(),
		focused: true, measure: measure{ansi.WcWidth}, styles: newStyles(unknown),
		chats: newRoster(), layers: stack{base{}},
		after: func(d time.Duration, msg tea.Msg) tea.Cmd {
			return tea.Tick(d, func(time.Time) tea.Msg { return msg })
		},
	}
	m.writes.drafts, m.writes.reads = map[*chat]bool{}, map[*chat]bool{}
	m.merge(s, 0)
	m.chats.sort()
	return m
}

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd {
	return tea.Batch(tea.RequestBackgroundColor, m.settle())
}

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.clock = m.now()
	cmd := m.handle(msg)
	return m, tea.Batch(cmd, m.settle())
}

func (m *Model) handle(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m.onKey(msg)
	case tea.PasteMsg, tea.MouseMsg:
		return m.layers.top().update(m, msg)
	case answer:
		return m.onAnswer(msg)
	case tea.FocusMsg:
		m.focused = true
	case tea.BlurMsg:
		m.focused = false
	case tea.BackgroundColorMsg:
		m.styles = newStyles(light)
		if msg.IsDark() {
			m.styles = newStyles(dark)
		}
		m.theme++
	case tea.ModeReportMsg:
		m.onMode(msg)
	case eventsMsg:
		return m.onEvents(msg)
	case endedMsg:
		m.ended = errEnded
		return tea.Quit
	case wroteMsg:
		return m.onWrote(msg)
	case pageMsg:
		m.onPage(msg)
	case snapshotMsg:
		return m.onSnapshot(msg)
	case unsentMsg:
		return m.onUnsent(msg)
	case timerMsg:
		m.timer.fired(msg)
	case keepMsg:
		m.writes.waiting = false
		return m.keep()
	}
	return nil
}

// settle is called after every change: it does what follows from the state, however
// it came about.
func (m *Model) settle() tea.Cmd {
	m.chats.sort()
	if m.notice.text != "" && !m.clock.Before(m.notice.until) {
		m.notice = notice{}
	}
	if m.selected == nil || m.chats.index(m.selected) < 0 {
		m.selected = nil
		if len(m.chats.sorted) > 0 {
			m.selected = m.chats.sorted[0]
		}
	}
	m.jump()
	load := m.loadMore()
	m.read()
	return tea.Batch(load, m.keepSoon(), m.timer.set(m.interval(), m.after))
}

// onMode learns that the terminal draws grapheme clusters: from then on the
// renderer measures by them, and so do we.
func (m *Model) onMode(msg tea.ModeReportMsg) {
	if msg.Mode != ansi.ModeUnicodeCore {
		return
	}
	switch msg.Value {
	case ansi.ModeReset, ansi.ModeSet, ansi.ModePermanentlySet: // as the renderer has it
		m.measure = measure{ansi.GraphemeWidth}
		m.theme++
	}
}

// say shows a notice.
func (m *Model) say(text string) {
	m.notice = notice{text: cleanLine(text), until: m.clock.Add(noticeTime)}
}

// complain shows an error.
func (m *Model) complain(what string, err error) {
	m.log.Warn("screen action failed", "what", what, "err", err)
	m.say(what + ": " + client.Describe(err))
	m.notice.bad = true
}

// interval is how soon the passing of time changes the screen.
func (m *Model) interval() time.Duration {
	if m.notice.text != "" || m.link.State == client.Offline {
		return time.Second
	}
	return 30 * time.Second // the day may end
}

// timer is a tick that can be brought forward.
type timer struct {
	every time.Duration // 0: none is running
	gen   int
}

type timerMsg int

func (t *timer) set(every time.Duration, after func(time.Duration, tea.Msg) tea.Cmd) tea.Cmd {
	if t.every != 0 && t.every <= every {
		return nil
	}
	t.every = every
	t.gen++
	return after(every, timerMsg(t.gen))
}

func (t *timer) fired(msg timerMsg) {
	if int(msg) == t.gen {
		t.every = 0
	}
}
