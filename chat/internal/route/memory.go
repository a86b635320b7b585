package route

import (
	"context"
	"sync"
	"time"
)

// Routes are remembered for a moment: people who talk send several messages a second, and
// asking Redis for each was a ninth of what a message cost under load.
//
// What is remembered stays true because a server tells all others of each new connection
// after it wrote its route and before it reads the heads for its client (see conn). The
// others then forget the user's routes. One that has used them just before answers so, and
// the user is compared with the log within a tenth of a heartbeat: a message may have gone
// without the new connection.
// A connection that ended and is still remembered costs a push to nobody.
const (
	rememberTime = time.Second
	// maxRemembered users are remembered. Beyond it Redis is asked.
	maxRemembered = 20_000
)

// memory has the routes of users. Its mutex owns everything.
type memory struct {
	mu sync.Mutex
	// places are used until rememberTime after began. used are the users whose places were
	// used since then, and before in the time before that. They stay when a user is
	// forgotten: another server's news of a connection may come right behind.
	places       map[uint64][]Place
	began        time.Time
	used, before map[uint64]struct{}
	// forgotten counts the calls of Forget and ForgetAll.
	forgotten uint64
}

// Recall is Lookup for events and own states, whose loss is made up for: routes may be as
// old as rememberTime.
func (t *Table) Recall(ctx context.Context, users []uint64, peers []string) map[uint64][]Place {
	if t.opts.Told == nil || !t.opts.Told() {
		at, _ := t.Lookup(ctx, users, peers)
		return at
	}
	at, rest, mark := t.memory.recall(users)
	if len(rest) == 0 {
		return at
	}
	sets, unknown, err := t.ask(ctx, rest, peers)
	if err != nil {
		unknown = peers
	}
	found := make(map[uint64][]Place, len(rest))
	for i, set := range sets {
		found[rest[i]], _ = t.places(set, nil)
	}
	if err == nil && len(unknown) == 0 {
		t.memory.store(rest, found, mark)
	}
	for _, user := range rest {
		if places := t.everywhere(found[user], unknown); len(places) > 0 {
			at[user] = places
		}
	}
	return at
}

// Forget drops what is remembered of a user, who has a new connection. used says that it
// was used lately.
func (t *Table) Forget(user uint64) (used bool) { return t.memory.forget(user) }

// ForgetAll drops everything, because another server may have told something that did not arrive.
func (t *Table) ForgetAll() { t.memory.forgetAll() }

// recall returns what is remembered, who is not, and a mark for store.
func (m *memory) recall(users []uint64) (at map[uint64][]Place, rest []uint64, mark uint64) {
	at = make(map[uint64][]Place, len(users))
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.began) > rememberTime {
		m.places, m.began = make(map[uint64][]Place), now
		m.used, m.before = make(map[uint64]struct{}), m.used
	}
	for _, user := range users {
		places, ok := m.places[user]
		if !ok {
			rest = append(rest, user)
			continue
		}
		m.used[user] = struct{}{}
		if len(places) > 0 {
			at[user] = places
		}
	}
	return at, rest, m.forgotten
}

// store remembers routes that were read after recall gave the mark. If something was
// forgotten meanwhile, they may be older than that.
func (m *memory) store(users []uint64, found map[uint64][]Place, mark uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, user := range users {
		if m.forgotten == mark && len(m.places) < maxRemembered && len(m.used) < maxRemembered {
			m.places[user] = found[user]
		}
	}
}

func (m *memory) forget(user uint64) (used bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgotten++
	delete(m.places, user)
	_, now := m.used[user]
	_, before := m.before[user]
	return now || before
}

func (m *memory) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgotten++
	clear(m.places)
}
