package store

import (
	"cmp"
	"context"
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
	order  int64                  // of the outbox
	queued []Outgoing             // by Order; short unless there is no network
	failed []Outgoing             // by Order
	acked  map[MessageID]Outgoing // the newest maxAcked
	oldest []MessageID            // of acked, oldest first

	convs       map[uint64]*memoryConversation
	provisional uint64  // the last provisional id
	moves       []Move  // by Order; the newest MaxEmpty
	own         []Owned // by Order
	changes     int64   // the last Order of moves and own
}

// maxAcked is how many acknowledged messages Memory remembers for a process that asks
// through another handle; the sender itself learns it directly.
const maxAcked = 1024

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store that keeps the newest keep messages of each
// conversation.
func NewMemory(keep int) *Memory {
	return &Memory{memory: &memory{
		keep: keep, handles: 1, meta: map[string]string{}, acked: map[MessageID]Outgoing{},
		convs: map[uint64]*memoryConversation{}, provisional: MaxID,
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
func (m *Memory) Enqueue(_ context.Context, epoch uint64, out Outgoing) (Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stale(epoch, out.Conversation) {
		return Outgoing{}, ErrStale
	}
	if len(m.queued) >= MaxQueued {
		return Outgoing{}, ErrFull()
	}
	if out.Conversation = m.settled(out.Conversation); Provisional(out.Conversation) &&
		m.convs[out.Conversation] == nil {
		return Outgoing{}, ErrNoConversation
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

// Settle implements Outbox.
func (m *Memory) Settle(_ context.Context, all []Outgoing) error {
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
			m.fail(o)
			continue
		}
		o.Body = nil
		if len(m.oldest) >= maxAcked {
			delete(m.acked, m.oldest[0])
			m.oldest = m.oldest[1:]
		}
		m.acked[o.ID] = o
		m.oldest = append(m.oldest, o.ID)
	}
	return nil
}

func (m *memory) fail(o Outgoing) {
	if len(m.failed) >= MaxFailed {
		m.failed = slices.Delete(m.failed, 0, 1)
	}
	m.failed = append(m.failed, o)
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
