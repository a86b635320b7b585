package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/msrchat/msrchat/shared/errs"
)

// Memory is a Store for a process that keeps nothing: load generators, tests.
// What Enqueue accepted dies with the process.
type Memory struct {
	*memory
	seen   uint64 // the version at the last Changed of this handle; under mu
	locked bool   // this handle holds the sender's lock; under mu
}

// memory is what all handles share; mu guards all of it.
type memory struct {
	mu      sync.Mutex
	keep    int
	handles int
	version uint64
	locked  bool

	state  State
	meta   map[string]string
	drafts map[string]string
	order  int64
	queued []Outgoing             // by Order; short unless there is no network
	failed []Outgoing             // by Order
	acked  map[MessageID]Outgoing // the newest maxAcked
	oldest []MessageID            // of acked, oldest first
	convs  map[uint64]*memoryConversation
}

// maxAcked is how many acknowledged messages Memory remembers for whoever asks
// through another handle; the sender itself is told directly.
const maxAcked = 1024

type memoryConversation struct {
	Conversation
	run []Message // ends at Stored.Hi
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store that keeps the newest keep messages of each
// conversation.
func NewMemory(keep int) *Memory {
	return &Memory{memory: &memory{
		keep: keep, handles: 1, meta: map[string]string{}, drafts: map[string]string{},
		acked: map[MessageID]Outgoing{}, convs: map[uint64]*memoryConversation{},
	}}
}

// Another returns one more handle on the same data, as another process has it.
func (m *Memory) Another() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handles++
	return &Memory{memory: m.memory}
}

// Shared implements Store.
func (m *Memory) Shared() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handles > 1
}

// Changed implements Store.
func (m *Memory) Changed(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.seen != m.version
	m.seen = m.version
	return changed, nil
}

// Meta implements Store.
func (m *Memory) Meta(_ context.Context, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.meta[name], nil
}

// SetMeta implements Store.
func (m *Memory) SetMeta(_ context.Context, name, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meta[name] = value
	return nil
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	m.handles--
	m.mu.Unlock()
	return m.Unlock()
}

// TryLock implements Outbox.
func (m *Memory) TryLock() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.memory.locked && !m.locked {
		return false, nil
	}
	m.memory.locked, m.locked = true, true
	return true, nil
}

// Unlock implements Outbox.
func (m *Memory) Unlock() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		m.memory.locked, m.locked = false, false
	}
	return nil
}

// Enqueue implements Outbox.
func (m *Memory) Enqueue(_ context.Context, out Outgoing) (Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queued) >= MaxQueued {
		return Outgoing{}, ErrFull()
	}
	m.order++
	m.version++
	out.Order, out.State = m.order, Queued
	m.queued = append(m.queued, out)
	return out, nil
}

// ErrFull is what Enqueue answers beyond MaxQueued.
func ErrFull() error {
	return errs.New(errs.CodeExhausted,
		"%d messages are waiting to be sent already; connect first", MaxQueued)
}

// Queued implements Outbox.
func (m *Memory) Queued(_ context.Context, after int64, limit int) ([]Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, _ := slices.BinarySearchFunc(m.queued, after+1, func(o Outgoing, at int64) int {
		return cmp.Compare(o.Order, at)
	})
	return slices.Clone(m.queued[from:min(from+limit, len(m.queued))]), nil
}

// Resolve implements Outbox.
func (m *Memory) Resolve(_ context.Context, epoch uint64, peerKey string, conv Conversation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.state.Epoch {
		return ErrStale
	}
	m.version++
	m.put(conv)
	for i := range m.queued {
		if o := &m.queued[i]; o.Conversation == 0 && o.PeerKey == peerKey {
			o.Conversation = conv.ID
		}
	}
	return nil
}

// Settle implements Outbox.
func (m *Memory) Settle(_ context.Context, all []Settlement) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version++
	for _, s := range all {
		i := slices.IndexFunc(m.queued, func(o Outgoing) bool { return o.ID == s.ID })
		if i < 0 {
			continue
		}
		o := m.queued[i]
		m.queued = slices.Delete(m.queued, i, i+1)
		o.State, o.Seq, o.LoggedAt, o.Existing = s.State, s.Seq, s.LoggedAt, s.Existing
		o.Code, o.Reason = s.Code, s.Reason
		if s.State == Failed {
			if len(m.failed) >= MaxFailed {
				m.failed = slices.Delete(m.failed, 0, 1)
			}
			m.failed = append(m.failed, o)
			continue
		}
		o.Text = ""
		if len(m.oldest) >= maxAcked {
			delete(m.acked, m.oldest[0])
			m.oldest = m.oldest[1:]
		}
		m.acked[o.ID] = o
		m.oldest = append(m.oldest, o.ID)
	}
	return nil
}

// Outgoing implements Outbox.
func (m *Memory) Outgoing(_ context.Context, id MessageID) (Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.acked[id]; ok {
		return o, nil
	}
	for _, list := range [][]Outgoing{m.queued, m.failed} {
		if i := slices.IndexFunc(list, func(o Outgoing) bool { return o.ID == id }); i >= 0 {
			return list[i], nil
		}
	}
	return Outgoing{}, ErrNotFound
}

// Unsent implements Outbox.
func (m *Memory) Unsent(context.Context) ([]Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Concat(m.queued, m.failed)
	slices.SortFunc(out, func(a, b Outgoing) int { return cmp.Compare(a.Order, b.Order) })
	return out, nil
}

// Discard implements Outbox.
func (m *Memory) Discard(_ context.Context, id MessageID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.failed, func(o Outgoing) bool { return o.ID == id })
	if i < 0 {
		return ErrNotFound
	}
	m.version++
	m.failed = slices.Delete(m.failed, i, i+1)
	return nil
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
	for i := range m.queued {
		o := &m.queued[i]
		if c := m.convs[o.Conversation]; c != nil && o.Peer == "" {
			o.Peer, o.PeerKey = c.Peer.Name, PeerKey(c.Peer.Name)
		}
		if o.Peer != "" {
			o.Conversation = 0
		}
	}
	m.convs = map[uint64]*memoryConversation{}
	m.state = State{Epoch: epoch}
	m.version++
	return m.state, nil
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

func (m *memory) put(c Conversation) *memoryConversation {
	have := m.convs[c.ID]
	if have == nil {
		have = &memoryConversation{Conversation: Conversation{ID: c.ID}}
		m.convs[c.ID] = have
	}
	if c.Peer.ID != 0 {
		have.Peer = c.Peer
	}
	if have.Stored == nil && c.Stored != nil {
		r := *c.Stored
		have.Stored = &r
	}
	return have
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
	c := m.put(Conversation{ID: run[0].Conversation})
	first, last := run[0].Seq, run[len(run)-1].Seq
	if c.Stored == nil {
		c.Stored = &Range{Lo: first, Hi: first - 1}
	}
	if first > c.Stored.Hi+1 || last+1 < c.Stored.Lo {
		return false, nil
	}
	m.version++
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
		out = append(out, m.convs[id].snapshot())
	}
	return out, nil
}

func (c *memoryConversation) snapshot() Conversation {
	out := c.Conversation
	if c.Stored != nil {
		r := *c.Stored
		out.Stored = &r
	}
	if n := len(c.run); n > 0 {
		last := c.run[n-1]
		out.Last = &last
	}
	return out
}

// ConversationWith implements Log.
func (m *Memory) ConversationWith(_ context.Context, peerKey string) (Conversation, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.convs {
		if c.Peer.ID != 0 && PeerKey(c.Peer.Name) == peerKey {
			return c.snapshot(), true, nil
		}
	}
	return Conversation{}, false, nil
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

// SetDraft implements Drafts.
func (m *Memory) SetDraft(_ context.Context, key, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text == "" {
		delete(m.drafts, key)
	} else {
		m.drafts[key] = text
	}
	return nil
}

// Drafts implements Drafts.
func (m *Memory) Drafts(context.Context) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.drafts), nil
}
