package tui

import (
	"context"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/errs"
)

const (
	// pageSize is how many messages are fetched at once: a few screens.
	pageSize = 100
	// diskTime and netTime bound the wait for an answer. After netTime the screen
	// says so, and offers to try again.
	diskTime = 10 * time.Second
	netTime  = 10 * time.Second
)

// loads is what is being read. At most one snapshot and one reading of the
// outbox are under way; another one that is asked for meanwhile follows.
type loads struct {
	snapshot, snapshotAgain bool
	unsent, unsentAgain     bool
	// order is the greatest place in the outbox that was seen.
	order int64
}

type (
	// pageMsg is a page of a chat's log.
	pageMsg struct {
		c        *chat
		gen      int
		before   uint64
		messages []client.Message
		err      error
	}
	snapshotMsg struct {
		snapshot
		upTo int64
		err  error
	}
	unsentMsg struct {
		all  []client.Outgoing
		upTo int64
		err  error
	}
)

// loadMore fetches older messages of the open chat when what is loaded above
// the screen runs out.
func (m *Model) loadMore() tea.Cmd {
	v := m.open
	if v == nil || m.width == 0 {
		return nil
	}
	h := &v.hist
	if v.provisional() || h.loading || h.complete || h.problem != "" {
		return nil
	}
	height := max(m.chatLayout().body, 1)
	if !v.sought() && h.log.Lo() != 0 && m.column().above(&v.scroll, height, 2*height) == 2*height {
		return nil
	}
	h.loading = true
	msg := pageMsg{c: v.chat, gen: h.gen, before: h.log.Lo()}
	ctx, b, id, online := m.ctx, m.b, v.id, m.link.State == client.Online
	return func() tea.Msg {
		msg.messages, msg.err = page(ctx, b, id, msg.before, online)
		return msg
	}
}

// errOffline: only a server has the page.
var errOffline = errs.New(errs.CodeUnavailable, "they need a connection")

// page reads from the disk what is there, and from the server otherwise.
func page(ctx context.Context, b Backend, conv, before uint64, online bool) ([]client.Message, error) {
	disk, cancel := context.WithTimeout(ctx, diskTime)
	defer cancel()
	got, err := b.Stored(disk, conv, before, pageSize)
	if err != nil {
		return nil, err
	}
	if n := len(got); n > 0 && (before == 0 || got[n-1].Seq+1 == before) {
		return got, nil
	}
	if !online {
		return nil, errOffline
	}
	net, cancel := context.WithTimeout(ctx, netTime)
	defer cancel()
	got, err = b.Messages(net, conv, before, pageSize)
	if len(got) > 0 {
		return got, nil // what is missing is asked for by the next page
	}
	return nil, err
}

func (m *Model) onPage(msg pageMsg) {
	h := &msg.c.hist
	if h.gen != msg.gen {
		return
	}
	h.loading = false
	switch {
	case msg.err != nil:
		h.problem = cleanLine(client.Describe(msg.err))
	case len(msg.messages) > 0:
		lo := h.log.Lo()
		h.page(msg.messages, m.me.ID)
		m.markAnswered(msg.c, msg.messages)
		if h.log.Lo() == lo {
			h.problem = "the server sent others"
		}
	case msg.before == 0:
		h.complete = true // the conversation is empty
	default:
		h.problem = "the server has none"
	}
}

// snapshot reads what is kept of all chats.
func (m *Model) snapshot(wanted bool) tea.Cmd {
	if !wanted {
		return nil
	}
	if m.loads.snapshot {
		m.loads.snapshotAgain = true
		return nil
	}
	m.loads.snapshot = true
	ctx, b, msg := m.ctx, m.b, snapshotMsg{upTo: m.loads.order}
	seen, people := m.searched(), m.withoutID()
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, diskTime)
		defer cancel()
		msg.snapshot, msg.err = takeSnapshot(ctx, b, seen, people)
		return msg
	}
}

// searched is the conversations in which a snapshot has searched for answers.
func (m *Model) searched() map[uint64]bool {
	seen := map[uint64]bool{}
	for _, c := range m.chats.sorted {
		if c.searched {
			seen[c.id] = true
		}
	}
	return seen
}

// withoutID is the people whose chats have no id since a Reset, and something in
// them that was typed here.
func (m *Model) withoutID() (people []string) {
	for _, c := range m.chats.sorted {
		queued := slices.ContainsFunc(m.writes.queue, func(w write) bool { return w.c == c })
		if c.id == 0 && (queued || m.open.shows(c) || c.draft.text != "" || len(c.hist.pending) > 0) {
			people = append(people, c.peer.Name)
		}
	}
	return people
}

func (m *Model) onSnapshot(msg snapshotMsg) tea.Cmd {
	again := m.loads.snapshotAgain
	m.loads.snapshot, m.loads.snapshotAgain = false, false
	if msg.err != nil {
		m.complain("chats not read", msg.err)
	} else if !again {
		m.merge(msg.snapshot, msg.upTo)
		m.drop()
	}
	return tea.Batch(m.snapshot(again), m.nextWrite())
}

// unsent reads the outbox.
func (m *Model) unsent(wanted bool) tea.Cmd {
	if !wanted {
		return nil
	}
	if m.loads.unsent {
		m.loads.unsentAgain = true
		return nil
	}
	m.loads.unsent = true
	ctx, b, msg := m.ctx, m.b, unsentMsg{upTo: m.loads.order}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, diskTime)
		defer cancel()
		msg.all, msg.err = b.Unsent(ctx)
		return msg
	}
}

func (m *Model) onUnsent(msg unsentMsg) tea.Cmd {
	again := m.loads.unsentAgain
	m.loads.unsent, m.loads.unsentAgain = false, false
	if msg.err != nil {
		m.complain("outbox not read", msg.err)
	} else if !m.mergeUnsent(msg.all, msg.upTo) {
		return m.snapshot(true) // with the chats that are missing
	}
	return m.unsent(again)
}
