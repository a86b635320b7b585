package tui

import (
	"context"
	"errors"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/text"
)

// writes is what is to be kept on this machine. One write is done after another,
// so that messages are sent in the order typed.
type writes struct {
	queue   []write
	running *step // the one under way, nil if none is

	// Drafts and read marks change often and are gathered for a moment.
	drafts  map[*chat]bool
	reads   map[*chat]bool
	waiting bool
}

// write is one step for a chat. Its message is handled by Update.
type write struct {
	c    *chat
	read bool // it is a read mark
	do   func(ctx context.Context, conversation uint64) tea.Msg
}

// step is a write under way. msg may be read when done is closed.
type step struct {
	done chan struct{}
	msg  wroteMsg
}

type (
	// wroteMsg says that a write is done.
	wroteMsg struct {
		c   *chat
		msg tea.Msg
	}
	keepMsg struct{}
	// sentMsg is the outcome of a text that was sent.
	sentMsg struct {
		text string
		out  client.Outgoing
		err  error
	}
	// discardedMsg is the outcome for a failed message, and for the new one if it
	// was sent again.
	discardedMsg struct {
		id    client.MessageID
		again client.Outgoing
		err   error
	}
	// draftMsg and readMsg say that a draft or a read mark was kept, and the own state
	// afterwards, or why it was not kept.
	draftMsg struct {
		text string
		own  client.OwnState
		err  error
	}
	readMsg struct {
		own client.OwnState
		err error
	}
)

const (
	// keepTime is how long drafts and read marks are gathered. It is what a crash
	// can cost.
	keepTime = 300 * time.Millisecond
	// maxWrites bounds the queue; only a disk that hangs fills it.
	maxWrites = 256
)

// write does something for a chat after what was asked for before.
func (m *Model) write(c *chat, do func(ctx context.Context, conversation uint64) tea.Msg) tea.Cmd {
	m.writes.queue = append(m.writes.queue, write{c: c, do: do})
	return m.nextWrite()
}

// nextWrite begins the next write. One for a chat without an id waits, and those
// behind it: the snapshot after a Reset tells the id.
func (m *Model) nextWrite() tea.Cmd {
	if m.writes.running != nil || len(m.writes.queue) == 0 || m.writes.queue[0].c.id == 0 {
		return nil
	}
	w, r := m.writes.queue[0], &step{done: make(chan struct{})}
	m.writes.queue = m.writes.queue[1:]
	m.writes.running = r
	ctx, conversation := m.ctx, w.c.id
	return func() tea.Msg {
		defer close(r.done)
		ctx, cancel := context.WithTimeout(ctx, diskTime)
		defer cancel()
		r.msg = wroteMsg{w.c, w.do(ctx, conversation)}
		return r.msg
	}
}

func (m *Model) onWrote(msg wroteMsg) tea.Cmd {
	m.writes.running = nil
	_ = m.wrote(msg) // it is on the screen
	return m.nextWrite()
}

// wrote takes the outcome of a write, and returns its error.
func (m *Model) wrote(w wroteMsg) error {
	c := m.chats.live(w.c)
	switch msg := w.msg.(type) {
	case sentMsg:
		m.onSent(c, msg)
		return msg.err
	case discardedMsg:
		m.onDiscarded(c, msg)
		return msg.err
	case draftMsg:
		if c != nil && msg.err == nil {
			c.draft.kept = msg.text
		}
		m.onKept(c, msg.own, msg.err)
		return msg.err
	case readMsg:
		m.onKept(c, msg.own, msg.err)
		return msg.err
	}
	return nil
}

func (m *Model) onKept(c *chat, own client.OwnState, err error) {
	switch {
	case err != nil:
		m.complain("draft not kept", err)
	case c != nil:
		m.takeOwn(c, own)
	}
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
			if w.c.id == 0 { // it ended before the snapshot after a Reset
				known, err := m.b.Contact(ctx, w.c.peer.Name)
				if err != nil {
					return errors.Join(errs, err)
				}
				m.chats.identify(w.c, known.ID)
			}
			errs = errors.Join(errs, m.wrote(wroteMsg{w.c, w.do(ctx, w.c.id)}))
		}
	}
	return errs
}

// keepDraft notes the composer's text as the open chat's draft.
func (m *Model) keepDraft() {
	if v := m.open; v != nil && v.draft.text != v.composer.value {
		v.draft.text, v.typed = v.composer.value, m.clock
		m.writes.drafts[v.chat] = true
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
	b := m.b
	for c := range m.writes.drafts {
		known, body := c.draft.kept, c.draft.text
		m.writes.queue = append(m.writes.queue, write{c: c, do: func(ctx context.Context, to uint64) tea.Msg {
			own, err := b.SetDraft(ctx, to, known, body)
			return draftMsg{body, own, err}
		}})
	}
	for c := range m.writes.reads {
		seq := c.own.Read
		m.writes.queue = append(m.writes.queue, write{c: c, read: true, do: func(ctx context.Context, of uint64) tea.Msg {
			own, err := b.SetRead(ctx, of, seq)
			return readMsg{own, err}
		}})
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
	v.divider, v.jump = 0, false
	b := m.b
	return m.write(v.chat, func(ctx context.Context, conversation uint64) tea.Msg {
		out, err := b.Send(ctx, conversation, body)
		return sentMsg{body, out, err}
	})
}

func (m *Model) clearComposer() {
	m.open.composer.set("")
	m.keepDraft()
}

// onSent takes the outcome for a text that was sent; c is nil where its chat was
// removed.
func (m *Model) onSent(c *chat, msg sentMsg) {
	if msg.err == nil {
		m.outgoing(c, msg.out)
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
	m.writes.drafts[c] = true
	if m.open.shows(c) {
		m.open.composer.set(c.draft.text)
	}
}

// discard forgets the oldest failed message of the open chat; again sends it once
// more.
func (m *Model) discard(again bool) tea.Cmd {
	v := m.open
	e := v.hist.failed()
	if e == nil {
		return nil
	}
	b, id, body := m.b, e.id, e.raw
	if again {
		v.scroll.follow()
	}
	return m.write(v.chat, func(ctx context.Context, conversation uint64) tea.Msg {
		msg := discardedMsg{id: id}
		if again {
			if msg.again, msg.err = b.Send(ctx, conversation, body); msg.err != nil {
				return msg // the failed one stays
			}
		}
		if err := b.Discard(ctx, id); !errors.Is(err, store.ErrNotFound) {
			msg.err = err
		}
		return msg
	})
}

func (m *Model) onDiscarded(c *chat, msg discardedMsg) {
	if msg.again.ID != (client.MessageID{}) {
		m.outgoing(c, msg.again)
	}
	if msg.err != nil {
		m.complain("not done", msg.err)
		return
	}
	if c != nil {
		c.hist.forget(msg.id)
	}
}
