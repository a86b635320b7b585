package store

import (
	"context"
	"maps"
	"slices"
)

// memoryConversation is a conversation in a Memory; its Own is unused.
type memoryConversation struct {
	Conversation
	run []Message // ends at Stored.Hi
}

// State implements Log.
func (m *Memory) State(context.Context) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, nil
}

// Begin implements Log.
func (m *Memory) Begin(_ context.Context, epoch uint64) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.state.Epoch {
	case epoch:
		return m.state, nil
	case 0:
		m.state.Epoch = epoch
		return m.state, nil
	}
	for id, c := range m.convs {
		if Provisional(id) {
			continue
		}
		delete(m.convs, id)
		own := m.ownOf(id)
		if c.Peer.Name != "" && (m.waits(id) || own.Draft != "") {
			to := m.contact(c.Peer.Name)
			m.moveOutbox(id, to.ID)
			m.setOwn(to.ID, own.Unbound())
		}
	}
	m.failLost()
	m.own = slices.DeleteFunc(m.own, func(o Owned) bool { return !Provisional(o.Conversation) })
	m.moves = nil // they lead to what is gone
	m.state = State{Epoch: epoch}
	m.version++
	return m.state, nil
}

// failLost fails unsent messages whose conversation is gone.
func (m *memory) failLost() {
	for i := range m.failed {
		if !Provisional(m.failed[i].Conversation) {
			m.failed[i].Conversation = 0
		}
	}
	m.queued = slices.DeleteFunc(m.queued, func(o Outgoing) bool {
		if Provisional(o.Conversation) {
			return false
		}
		o.Conversation, o.State, o.Code, o.Reason = 0, Failed, ErrStale.Code, ErrStale.Message
		m.fail(o)
		return true
	})
}

// SetListed implements Log.
func (m *Memory) SetListed(_ context.Context, epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.state.Epoch {
		return ErrStale
	}
	m.state.Listed = true
	return nil
}

// PutConversations implements Log.
func (m *Memory) PutConversations(_ context.Context, epoch uint64, convs []Conversation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.state.Epoch {
		return ErrStale
	}
	for _, c := range convs {
		m.put(c)
	}
	m.version++
	return nil
}

// Resolve implements Log.
func (m *Memory) Resolve(_ context.Context, epoch uint64, peerKey string, conv Conversation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.state.Epoch {
		return ErrStale
	}
	m.put(conv)
	m.move(peerKey, conv.ID)
	m.version++
	return nil
}

func (m *memory) put(c Conversation) *memoryConversation {
	have := m.convs[c.ID]
	if have == nil {
		have = &memoryConversation{Conversation: Conversation{ID: c.ID}}
		m.convs[c.ID] = have
	}
	if c.Peer.ID != 0 {
		have.Peer = c.Peer
		m.move(PeerKey(c.Peer.Name), c.ID)
	}
	if have.Stored == nil && c.Stored != nil {
		r := *c.Stored
		have.Stored = &r
	}
	if c.Head > have.Head || c.Head == have.Head && c.HeadOrdinal != 0 {
		have.Head = c.Head
		if c.HeadOrdinal != 0 {
			have.HeadOrdinal = c.HeadOrdinal
		}
	}
	return have
}

// move moves what is in the provisional conversation with a person, if there is
// one.
func (m *memory) move(peerKey string, to uint64) {
	from := m.with(peerKey, Provisional)
	if from == nil {
		return
	}
	delete(m.convs, from.ID)
	m.changes++
	m.moves = append(m.moves, Move{Order: m.changes, From: from.ID, To: to})
	if over := len(m.moves) - MaxEmpty; over > 0 {
		m.moves = slices.Delete(m.moves, 0, over)
	}
	m.moveOutbox(from.ID, to)
	moved := m.ownOf(from.ID)
	m.own = slices.DeleteFunc(m.own, func(o Owned) bool { return o.Conversation == from.ID })
	if moved.Draft != "" {
		own := m.ownOf(to)
		own.Join(moved)
		m.setOwn(to, own)
	}
}

func (m *memory) moveOutbox(from, to uint64) {
	for _, list := range [][]Outgoing{m.queued, m.failed} {
		for i := range list {
			if list[i].Conversation == from {
				list[i].Conversation = to
			}
		}
	}
}

// stale says whether one of the ids is a server's, and of another epoch.
func (m *memory) stale(epoch uint64, ids ...uint64) bool {
	return epoch != m.state.Epoch && slices.ContainsFunc(ids, func(id uint64) bool { return !Provisional(id) })
}

// settled is where a conversation is now.
func (m *memory) settled(id uint64) uint64 {
	for _, move := range m.moves {
		if move.From == id {
			return move.To
		}
	}
	return id
}

// waits says whether the outbox has something unsent of a conversation.
func (m *memory) waits(id uint64) bool {
	of := func(o Outgoing) bool { return o.Conversation == id }
	return slices.ContainsFunc(m.queued, of) || slices.ContainsFunc(m.failed, of)
}

// with finds the conversation with a person among those of a sort.
func (m *memory) with(peerKey string, sort func(id uint64) bool) *memoryConversation {
	for id, c := range m.convs {
		if sort(id) && c.Peer.Name != "" && PeerKey(c.Peer.Name) == peerKey {
			return c
		}
	}
	return nil
}

// Moved implements Log.
func (m *Memory) Moved(_ context.Context, after int64) ([]Move, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slices.IndexFunc(m.moves, func(move Move) bool { return move.Order > after })
	if at < 0 {
		return nil, nil
	}
	return slices.Clone(m.moves[at:]), nil
}

// Append implements Log.
func (m *Memory) Append(_ context.Context, epoch uint64, run []Message) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.state.Epoch {
		return false, ErrStale
	}
	if len(run) == 0 {
		return true, nil
	}
	newest := run[len(run)-1]
	c := m.put(Conversation{ID: newest.Conversation, Head: newest.Seq, HeadOrdinal: newest.Ordinal})
	first, last := run[0].Seq, newest.Seq
	if c.Stored == nil {
		c.Stored = &Range{Lo: first, Hi: first - 1}
	}
	m.version++
	if first > c.Stored.Hi+1 || last+1 < c.Stored.Lo {
		return false, nil
	}
	if first < c.Stored.Lo {
		c.run = append(slices.Clone(run[:c.Stored.Lo-first]), c.run...)
		c.Stored.Lo = first
	}
	if last > c.Stored.Hi {
		c.run = append(c.run, run[uint64(len(run))-(last-c.Stored.Hi):]...)
		c.Stored.Hi = last
	}
	if over := len(c.run) - m.keep; over > 0 {
		c.run = append(c.run[:0], c.run[over:]...)
		c.Stored.Lo += uint64(over)
	}
	return true, nil
}

// Conversations implements Log.
func (m *Memory) Conversations(context.Context) ([]Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Conversation
	for _, id := range slices.Sorted(maps.Keys(m.convs)) {
		c := m.snapshot(m.convs[id])
		if !Provisional(id) || c.Own.Draft != "" || m.waits(id) {
			out = append(out, c)
		}
	}
	return out, nil
}

// Conversation implements Log.
func (m *Memory) Conversation(_ context.Context, id uint64) (Conversation, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.convs[m.settled(id)]
	if c == nil {
		return Conversation{}, false, nil
	}
	return m.snapshot(c), true, nil
}

func (m *memory) snapshot(c *memoryConversation) Conversation {
	out := c.Conversation
	if c.Stored != nil {
		r := *c.Stored
		out.Stored = &r
	}
	if n := len(c.run); n > 0 {
		last := c.run[n-1]
		out.Last = &last
	}
	out.Own = m.ownOf(c.ID)
	return out
}

// Contact implements Log.
func (m *Memory) Contact(_ context.Context, name string) (Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot(m.contact(name)), nil
}

func (m *memory) contact(name string) *memoryConversation {
	key := PeerKey(name)
	for _, sort := range []func(uint64) bool{func(id uint64) bool { return !Provisional(id) }, Provisional} {
		if c := m.with(key, sort); c != nil {
			return c
		}
	}
	m.provisional++
	c := &memoryConversation{Conversation: Conversation{ID: m.provisional, Peer: Peer{Name: name}}}
	m.convs[c.ID] = c
	m.version++
	return c
}

// Messages implements Log.
func (m *Memory) Messages(_ context.Context, conversation, before uint64, limit int) ([]Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.convs[conversation]
	if c == nil || len(c.run) == 0 {
		return nil, nil
	}
	end := len(c.run)
	if first := c.run[0].Seq; before != 0 && before <= c.Stored.Hi {
		end = int(max(before, first) - first)
	}
	return slices.Clone(c.run[max(0, end-limit):end]), nil
}

func (m *memory) ownOf(id uint64) OwnState {
	if i := slices.IndexFunc(m.own, func(o Owned) bool { return o.Conversation == id }); i >= 0 {
		return m.own[i].OwnState
	}
	return OwnState{}
}

// setOwn keeps a state under the next order.
func (m *memory) setOwn(id uint64, own OwnState) {
	m.own = slices.DeleteFunc(m.own, func(o Owned) bool { return o.Conversation == id })
	m.changes++
	m.own = append(m.own, Owned{Conversation: id, Order: m.changes, OwnState: own})
	m.version++
}

// ChangeOwn implements Own.
func (m *Memory) ChangeOwn(
	_ context.Context, epoch uint64, ids []uint64, change func(conversation uint64, own *OwnState),
) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stale(epoch, ids...) {
		return ErrStale
	}
	for _, id := range ids {
		at := m.settled(id)
		if Provisional(at) && m.convs[at] == nil {
			return ErrNoConversation
		}
		own := m.ownOf(at)
		before := own
		if change(id, &own); own != before {
			m.setOwn(at, own)
		}
	}
	return nil
}

// OwnStates implements Own.
func (m *Memory) OwnStates(_ context.Context, after int64) ([]Owned, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slices.IndexFunc(m.own, func(o Owned) bool { return o.Order > after })
	if at < 0 {
		return nil, nil
	}
	return slices.Clone(m.own[at:]), nil
}

// UnsentOwn implements Own.
func (m *Memory) UnsentOwn(_ context.Context, after uint64, limit int) ([]Owned, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Owned
	for _, o := range m.own {
		if o.Conversation > after && !Provisional(o.Conversation) && o.Unsent() {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b Owned) int { return int(int64(a.Conversation) - int64(b.Conversation)) })
	return out[:min(limit, len(out))], nil
}
