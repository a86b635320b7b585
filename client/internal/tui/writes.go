package tui

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/text"
)

// writes is what is to be kept on this machine. Writes are done one after another, so
// messages are sent in the order typed.
type writes struct {
	queue   []write
	running *step // the one under way, nil if none is
	paused  bool  // until a Reset that is on its way

	// Drafts and read marks change often and are gathered for a moment.
	drafts  map[*chat]bool
	reads   map[*chat]bool
	waiting bool
}

// write is one step for a chat. Its message is handled by Update.
type write struct {
	c    *chat
	kind writeKind
	send doWrite // of kind sending
}

type writeKind int

const (
	sending  writeKind = iota
	drafting           // the chat's draft as it is when the write begins
	reading            // the chat's read mark, likewise
)

type doWrite func(ctx context.Context, to Target) tea.Msg

// step is a write under way. msg may be read when done is closed.
type step struct {
	done chan struct{}
	msg  wroteMsg
}

type (
	// wroteMsg says that a write is done.
	wroteMsg struct {
		w     write
		epoch uint64
		msg   tea.Msg
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
		own client.OwnState
		err error
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

// write queues a write for a chat.
func (m *Model) write(c *chat, do doWrite) tea.Cmd {
	m.writes.queue = append(m.writes.queue, write{c: c, send: do})
	return m.nextWrite()
}

// nextWrite begins the next write. One for a chat without an id waits, and so do
// those behind it: the snapshot after a Reset brings the id.
func (m *Model) nextWrite() tea.Cmd {
	if m.writes.running != nil || m.writes.paused || len(m.writes.queue) == 0 || m.writes.queue[0].c.id == 0 {
		return nil
	}
	w, r := m.writes.queue[0], &step{done: make(chan struct{})}
	m.writes.queue = m.writes.queue[1:]
	m.writes.running = r
	ctx, do := m.ctx, m.begin(w)
	return func() tea.Msg {
		defer close(r.done)
		ctx, cancel := context.WithTimeout(ctx, diskTime)
		defer cancel()
		r.msg = do(ctx)
		return r.msg
	}
}

// begin returns a write of the present draft, read mark or text.
func (m *Model) begin(w write) func(ctx context.Context) wroteMsg {
	c := w.c
	if live := m.chats.live(c); live != nil {
		c = live
	}
	b, do := m.b, w.send
	switch w.kind {
	case drafting:
		known, body := c.draft.set()
		do = func(ctx context.Context, of Target) tea.Msg {
			own, err := b.SetDraft(ctx, of, known, body)
			return draftMsg{own, err}
		}
	case reading:
		seq := c.own.Read
		do = func(ctx context.Context, of Target) tea.Msg {
			own, err := b.SetRead(ctx, of, seq)
			return readMsg{own, err}
		}
	}
	to := Target{m.epoch, c.id}
	w.c = c
	return func(ctx context.Context) wroteMsg { return wroteMsg{w, to.Epoch, do(ctx, to)} }
}

func (m *Model) onWrote(msg wroteMsg) tea.Cmd {
	m.writes.running = nil
	if sent, is := msg.msg.(sentMsg); is && errors.Is(sent.err, store.ErrStale) {
		// It is repeated under the new id, before what was typed later.
		m.writes.queue = slices.Insert(m.writes.queue, 0, msg.w)
		m.writes.paused = msg.epoch == m.epoch
		return m.nextWrite()
	}
	_ = m.wrote(msg) // it is on the screen
	return m.nextWrite()
}

// wrote takes the outcome of a write, and returns its error.
func (m *Model) wrote(w wroteMsg) error {
	c := m.chats.live(w.w.c)
	switch msg := w.msg.(type) {
	case sentMsg:
		m.onSent(c, msg)
		return msg.err
	case discardedMsg:
		m.onDiscarded(c, msg)
		return msg.err
	case draftMsg:
		m.onDraftKept(c, w.epoch, msg)
		return msg.err
	case readMsg:
		switch {
		case errors.Is(msg.err, store.ErrStale): // there is nothing to read any more
			return nil
		case msg.err != nil:
			m.complain("read mark not kept", msg.err)
		case c != nil && w.epoch == m.epoch:
			c.read(msg.own.Read, msg.own.ReadOrdinal)
		}
		return msg.err
	}
	return nil
}

// onDraftKept takes the outcome for a draft; c is nil where its chat was removed.
func (m *Model) onDraftKept(c *chat, epoch uint64, msg draftMsg) {
	if msg.err != nil && !errors.Is(msg.err, store.ErrStale) {
		m.complain("draft not kept", msg.err)
	}
	switch {
	case c == nil:
	case epoch != m.epoch:
		m.writes.drafts[c] = true // once more under the new id
	case msg.err != nil:
		c.draft.failed()
		if errors.Is(msg.err, store.ErrStale) {
			m.writes.drafts[c] = true // the Reset is on its way
		}
	case c.draft.written():
		m.takeOwn(c, msg.own)
	}
}

// finish does the writes that are left; the program has ended. A text that cannot be
// sent is kept as a draft.
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
	m.catchUp()
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
			err := m.wrote(m.begin(w)(ctx))
			if errors.Is(err, store.ErrStale) && m.awaitReset(ctx) {
				continue // it is a draft now
			}
			if errs = errors.Join(errs, err); errors.Is(err, store.ErrStale) {
				return errs
			}
		}
	}
	return errs
}

// resetTime is how long finish waits for a Reset that another window met first. A
// client without a connection looks every quarter of a second.
const resetTime = time.Second

// awaitReset is catchUp for a Reset that the client has not noticed yet.
func (m *Model) awaitReset(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, resetTime)
	defer cancel()
	poll := time.NewTicker(resetTime / 50)
	defer poll.Stop()
	for !m.catchUp() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// catchUp handles a Reset that is still on its way, and says whether there was one.
func (m *Model) catchUp() bool {
	now := m.b.Epoch()
	if now == m.epoch {
		return false
	}
	m.onReset(now)
	return true
}

// keepDraft notes the composer's text as the open chat's draft.
func (m *Model) keepDraft() {
	if v := m.open; v != nil && v.draft.text != v.composer.value {
		v.draft.text, v.typed = v.composer.value, m.clock
		m.writes.drafts[v.chat] = true
	}
}

// keepSoon schedules the writes of drafts and read marks.
func (m *Model) keepSoon() tea.Cmd {
	if m.writes.waiting || len(m.writes.drafts)+len(m.writes.reads) == 0 {
		return nil
	}
	m.writes.waiting = true
	return m.after(keepTime, keepMsg{})
}

// keep writes drafts and read marks now.
func (m *Model) keep() tea.Cmd {
	m.gather()
	return m.nextWrite()
}

func (m *Model) gather() {
	for c := range m.writes.drafts {
		m.writes.queue = append(m.writes.queue, write{c: c, kind: drafting})
	}
	for c := range m.writes.reads {
		m.writes.queue = append(m.writes.queue, write{c: c, kind: reading})
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
	return m.write(v.chat, func(ctx context.Context, to Target) tea.Msg {
		out, err := b.Send(ctx, to, body)
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
	return m.write(v.chat, func(ctx context.Context, to Target) tea.Msg {
		msg := discardedMsg{id: id}
		if again {
			if msg.again, msg.err = b.Send(ctx, to, body); msg.err != nil {
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
