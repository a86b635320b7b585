package tui

import (
	"context"
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
// outbox are under way; a wish that comes meanwhile is met afterwards.
type loads struct {
	snapshot, snapshotAgain bool
	unsent, unsentAgain     bool
	// order is the greatest place in the outbox that was heard of.
	order int64
}

type (
	// pageMsg is a page of a chat's log.
	pageMsg struct {
		key      string
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
	c := m.open
	if c == nil || c.conv == 0 || c.t.loading || c.t.complete || c.t.problem != "" || m.width == 0 {
		return nil
	}
	height := max(m.chatLayout().body, 1)
	if c.t.lo() != 0 && m.column().above(&c.scroll, height, 2*height) == 2*height {
		return nil
	}
	c.t.loading = true
	msg := pageMsg{key: c.key, gen: c.t.gen, before: c.t.lo()}
	ctx, b, conv, online := m.ctx, m.b, c.conv, m.link.State == client.Online
	return func() tea.Msg {
		msg.messages, msg.err = page(ctx, b, conv, msg.before, online)
		return msg
	}
}

// errOffline stands for a page that only a server has.
var errOffline = errs.New(errs.CodeUnavailable, "they come with the connection")

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
	c := m.chats.byKey[msg.key]
	if c == nil || c.t.gen != msg.gen {
		return
	}
	c.t.loading = false
	switch {
	case msg.err != nil:
		c.t.problem = cleanLine(client.Describe(msg.err))
	case len(msg.messages) > 0:
		lo := c.t.lo()
		c.t.page(msg.messages, m.me.ID)
		if c.t.lo() == lo {
			c.t.problem = "the server sent others"
		}
	case msg.before == 0:
		c.t.complete = true // nothing was written yet
	default:
		c.t.problem = "the server has none"
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
	counted := map[uint64]bool{}
	for _, c := range m.chats.sorted {
		if c.known != 0 {
			counted[c.conv] = true
		}
	}
	ctx, b, msg := m.ctx, m.b, snapshotMsg{upTo: m.loads.order}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, diskTime)
		defer cancel()
		msg.snapshot, msg.err = takeSnapshot(ctx, b, counted)
		return msg
	}
}

func (m *Model) onSnapshot(msg snapshotMsg) tea.Cmd {
	again := m.loads.snapshotAgain
	m.loads.snapshot, m.loads.snapshotAgain = false, false
	if msg.err != nil {
		m.complain("chats not read", msg.err)
	} else if !again {
		m.merge(msg.snapshot, msg.upTo, false)
		m.drop()
	}
	return m.snapshot(again)
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
	} else {
		m.mergeUnsent(msg.all, msg.upTo)
	}
	return m.unsent(again)
}
