package tui

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/text"
)

// writes is what is to be kept on this machine. One write after another is
// done, so that messages are sent in the order typed.
type writes struct {
	queue   []write
	running *step // the one under way, nil if none is

	// Drafts and read marks change often and are gathered for a moment.
	drafts  map[string]*chat
	reads   map[string]*chat
	waiting bool
}

// step is a write under way. msg may be read when done is closed.
type step struct {
	done chan struct{}
	msg  tea.Msg
}

// write is one step; its message is handled by Update.
type write func(ctx context.Context) tea.Msg

type (
	wroteMsg struct{ msg tea.Msg }
	keepMsg  struct{}
	// sentMsg says what became of a text that was sent.
	sentMsg struct {
		key, text string
		out       client.Outgoing
		err       error
	}
	// discardedMsg says what became of a failed message, and of the new one if it
	// was sent again.
	discardedMsg struct {
		key   string
		id    client.MessageID
		again client.Outgoing
		err   error
	}
	// keptMsg says that a draft or a read mark was written, or not.
	keptMsg struct{ err error }
)

const (
	// keepTime is how long drafts and read marks are gathered. It is what a
	// crash can cost.
	keepTime = 300 * time.Millisecond
	// maxWrites bounds the queue; only a disk that hangs fills it.
	maxWrites = 256
)

// write does something after what was asked for before.
func (m *Model) write(w write) tea.Cmd {
	m.writes.queue = append(m.writes.queue, w)
	return m.nextWrite()
}

func (m *Model) nextWrite() tea.Cmd {
	if m.writes.running != nil || len(m.writes.queue) == 0 {
		return nil
	}
	w, r, ctx := m.writes.queue[0], &step{done: make(chan struct{})}, m.ctx
	m.writes.queue = m.writes.queue[1:]
	m.writes.running = r
	return func() tea.Msg {
		defer close(r.done)
		ctx, cancel := context.WithTimeout(ctx, diskTime)
		defer cancel()
		r.msg = w(ctx)
		return wroteMsg{r.msg}
	}
}

func (m *Model) onWrote(msg wroteMsg) tea.Cmd {
	m.writes.running = nil
	_ = m.wrote(msg.msg) // it is on the screen
	return m.nextWrite()
}

// wrote takes the outcome of a write, and returns its error.
func (m *Model) wrote(msg tea.Msg) error {
	switch msg := msg.(type) {
	case sentMsg:
		m.onSent(msg)
		return msg.err
	case discardedMsg:
		m.onDiscarded(msg)
		return msg.err
	case keptMsg:
		if msg.err != nil {
			m.complain("draft not kept", msg.err)
		}
		return msg.err
	}
	return nil
}

// finish does what is still to be written; the program has ended. A text that
// cannot be sent is kept as a draft.
func (m *Model) finish(ctx context.Context) error {
	var errs error
	if r := m.writes.running; r != nil {
		select {
		case <-r.done:
			errs = errors.Join(errs, m.wrote(r.msg))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.writes.running = nil
	m.keepDraft()
	for m.gather(); len(m.writes.queue) > 0; m.gather() {
		queue := m.writes.queue
		m.writes.queue = nil
		for _, w := range queue {
			errs = errors.Join(errs, m.wrote(w(ctx)))
		}
	}
	return errs
}

// keepDraft notes the composer's text as the open chat's draft.
func (m *Model) keepDraft() {
	if v := m.open; v != nil && v.draft.text != v.composer.value {
		v.draft.text = v.composer.value
		m.writes.drafts[v.key] = v.chat
	}
}

// keepSoon has drafts and read marks written in a moment.
func (m *Model) keepSoon() tea.Cmd {
	if m.writes.waiting || len(m.writes.drafts)+len(m.writes.reads) == 0 {
		return nil
	}
	m.writes.waiting = true
	return m.after(keepTime, keepMsg{})
}

// keep has drafts and read marks written now.
func (m *Model) keep() tea.Cmd {
	m.gather()
	return m.nextWrite()
}

func (m *Model) gather() {
	for key, c := range m.writes.drafts {
		draft, key := c.draft.text, draftPrefix+key
		m.writes.queue = append(m.writes.queue, func(ctx context.Context) tea.Msg {
			return keptMsg{m.b.SetDraft(ctx, key, draft)}
		})
	}
	for key, c := range m.writes.reads {
		read, key := strconv.FormatUint(c.read, 10), readPrefix+key
		m.writes.queue = append(m.writes.queue, func(ctx context.Context) tea.Msg {
			return keptMsg{m.b.SetMeta(ctx, key, read)}
		})
	}
	clear(m.writes.drafts)
	clear(m.writes.reads)
}

// submit sends what is in the composer. What cannot be sent stays there.
func (m *Model) submit() tea.Cmd {
	v := m.open
	body := strings.TrimRight(strings.TrimLeft(v.composer.value, "\n"), " \t\n")
	if body == "" {
		return nil
	}
	if cmd, done := m.command(body); done {
		return cmd
	}
	if strings.HasPrefix(body, "//") {
		body = body[1:]
	}
	if err := text.Message(body); err != nil {
		m.complain("not sent", err)
		return nil
	}
	if len(m.writes.queue) >= maxWrites {
		m.say("not sent: this machine's disk does not answer")
		return nil
	}
	m.clearComposer()
	v.scroll.follow()
	v.divider = 0
	to, key := v.target(), v.key
	return m.write(func(ctx context.Context) tea.Msg {
		out, err := m.b.Send(ctx, to, body)
		return sentMsg{key, body, out, err}
	})
}

func (m *Model) clearComposer() {
	m.open.composer.set("")
	m.keepDraft()
}

func (m *Model) onSent(msg sentMsg) {
	c := m.chats.byKey[msg.key]
	if msg.err == nil {
		m.onOutgoing(msg.out)
		if c != nil {
			c.draft.restored = ""
		}
		return
	}
	m.complain("not sent", msg.err)
	if c == nil {
		return
	}
	m.keepDraft()
	c.draft.giveBack(msg.text)
	m.writes.drafts[c.key] = c
	if m.open.shows(c) {
		m.open.composer.set(c.draft.text)
	}
}

// discard forgets the oldest failed message of the open chat; again sends it
// once more.
func (m *Model) discard(again bool) tea.Cmd {
	c := m.open
	e := c.t.failed()
	if e == nil {
		return nil
	}
	key, id, body, to := c.key, e.id, e.raw, c.target()
	if again {
		c.scroll.follow()
	}
	return m.write(func(ctx context.Context) tea.Msg {
		msg := discardedMsg{key: key, id: id}
		if again {
			if msg.again, msg.err = m.b.Send(ctx, to, body); msg.err != nil {
				return msg // the failed one stays
			}
		}
		if err := m.b.Discard(ctx, id); !errors.Is(err, store.ErrNotFound) {
			msg.err = err
		}
		return msg
	})
}

func (m *Model) onDiscarded(msg discardedMsg) {
	if msg.again.ID != (client.MessageID{}) {
		m.onOutgoing(msg.again)
	}
	if msg.err != nil {
		m.complain("not done", msg.err)
		return
	}
	if c := m.chats.byKey[msg.key]; c != nil {
		c.t.forget(msg.id)
	}
}
