// Package member caches the members of conversations. The cache is bounded and may
// be stale: each delivery carries the number of the last change of the members, and
// a server whose members are older reads them anew.
package member

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/planted"

	"github.com/msrchat/msrchat/chat/internal/batch"
)

const (
	// maxCached conversations are cached, some 10 MB. Beyond it the cache is emptied.
	// All that a batch lacks are read again by one statement.
	maxCached = 100_000
	// maxTogether conversations are read by one statement, which may take loadLimit.
	maxTogether = 500
	loadLimit   = 5 * time.Second
)

// directNumber is the Number of all direct conversations, whose members never
// change.
const directNumber = 1

// Members are the people of a conversation.
type Members struct {
	// Number rises with each change of the members. 0 means that there are none.
	Number uint64
	// Users must not be changed.
	Users []uint64
}

// Has says whether a user is a member.
func (m Members) Has(user uint64) bool { return slices.Contains(m.Users, user) }

// Index is the cache. Its methods may be called from any goroutine. Those with a
// context may wait for the database.
type Index struct {
	db    *sql.DB
	loads *batch.Batcher[uint64, Members]

	mu     sync.RWMutex // owns cached
	cached map[uint64]Members
}

// New returns an empty index on a database.
func New(db *sql.DB) *Index {
	x := &Index{db: db, cached: make(map[uint64]Members)}
	x.loads = batch.New(maxTogether, loadLimit, func(ctx context.Context, ids []uint64) ([]Members, error) {
		found, err := x.read(ctx, ids)
		answers := make([]Members, len(ids))
		for i, id := range ids {
			answers[i] = found[id]
		}
		return answers, err
	})
	return x
}

// Cached returns the cached members. It never waits.
func (x *Index) Cached(id uint64) (Members, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	m, ok := x.cached[id]
	return m, ok
}

// AtLeast returns the cached members if they have at least this number. It never
// waits.
func (x *Index) AtLeast(id, number uint64) (Members, bool) {
	m, ok := x.Cached(id)
	if planted.Has(planted.StaleMembers) {
		m.Users = m.Users[:min(1, len(m.Users))] // as before the last member joined
		return m, ok
	}
	return m, ok && m.Number >= number
}

// Put caches the members of a conversation, unless newer ones are cached. That a
// conversation does not exist is not cached, because it may be created at any moment.
func (x *Index) Put(id uint64, m Members) {
	if m.Number == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cached[id].Number > m.Number {
		return
	}
	if len(x.cached) >= maxCached {
		clear(x.cached)
	}
	x.cached[id] = m
}

// PutDirect caches the two members of a direct conversation.
func (x *Index) PutDirect(id, a, b uint64) {
	x.Put(id, Members{Number: directNumber, Users: []uint64{min(a, b), max(a, b)}})
}

// Load reads the members of a conversation anew, by one query for all that are asked
// for at the same time. If the conversation does not exist, their Number is 0.
func (x *Index) Load(ctx context.Context, id uint64) (Members, error) {
	m, err := x.loads.Ask(ctx, id)
	if err != nil {
		return Members{}, errs.Wrap(errs.CodeUnavailable, err, "the database does not answer").Retry(time.Second)
	}
	return m, nil
}

// LoadAll reads the members of several conversations anew. The result has none for a
// conversation that does not exist.
func (x *Index) LoadAll(ctx context.Context, ids []uint64) (map[uint64]Members, error) {
	out := make(map[uint64]Members, len(ids))
	for part := range slices.Chunk(ids, maxTogether) {
		found, err := x.read(ctx, part)
		if err != nil {
			return out, err
		}
		maps.Copy(out, found)
	}
	return out, nil
}

// read queries the database and caches the result.
func (x *Index) read(ctx context.Context, ids []uint64) (map[uint64]Members, error) {
	query := []byte("SELECT id, low_user, high_user FROM conversations WHERE kind = ? AND id IN (")
	for i, id := range ids {
		if i > 0 {
			query = append(query, ',')
		}
		query = strconv.AppendUint(query, id, 10)
	}
	rows, err := x.db.QueryContext(ctx, string(append(query, ')')), conversation.KindDirect)
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	defer rows.Close()
	out := make(map[uint64]Members, len(ids))
	for rows.Next() {
		var id, low, high uint64
		if err := rows.Scan(&id, &low, &high); err != nil {
			return nil, fmt.Errorf("read members: %w", err)
		}
		out[id] = Members{Number: directNumber, Users: []uint64{low, high}}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	for id, m := range out {
		x.Put(id, m)
	}
	return out, nil
}
