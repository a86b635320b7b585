// Package conversation creates conversations.
package conversation

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// KindDirect is a conversation of two people (conversations.kind).
const KindDirect = 1

// Pair is two people; the order does not matter.
type Pair struct{ A, B uint64 }

func (p Pair) low() uint64  { return min(p.A, p.B) }
func (p Pair) high() uint64 { return max(p.A, p.B) }

// ordered is the pair as the table stores it.
func (p Pair) ordered() Pair { return Pair{p.low(), p.high()} }

// MaxPairs bounds the pairs of one call, so that its statements stay below
// 64 KiB.
const MaxPairs = 500

// Direct returns the direct conversations of pairs of users, in their order, and
// creates those that do not exist, all in one transaction. Of two callers at once
// the unique key lets one create a conversation, and both return it. The users
// must exist and the two of a pair differ.
func Direct(ctx context.Context, db *sql.DB, pairs ...Pair) ([]uint64, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	if len(pairs) > MaxPairs {
		return nil, fmt.Errorf("open %d conversations at once: at most %d", len(pairs), MaxPairs)
	}
	wanted := make([]Pair, 0, len(pairs))
	for _, p := range pairs {
		if p.A == p.B || p.A == 0 || p.B == 0 {
			return nil, fmt.Errorf("open a conversation of users %d and %d: want two people", p.A, p.B)
		}
		wanted = append(wanted, p.ordered())
	}
	// Sorted, so that two callers with common pairs wait for each other and do
	// not deadlock.
	slices.SortFunc(wanted, func(a, b Pair) int { return cmp.Or(cmp.Compare(a.A, b.A), cmp.Compare(a.B, b.B)) })
	ids, err := direct(ctx, db, slices.Compact(wanted))
	if err != nil {
		return nil, fmt.Errorf("open %d conversations: %w", len(pairs), err)
	}
	out := make([]uint64, len(pairs))
	for i, p := range pairs {
		out[i] = ids[p.ordered()]
	}
	return out, nil
}

// direct works on ordered, sorted, distinct pairs.
func direct(ctx context.Context, db *sql.DB, pairs []Pair) (map[Pair]uint64, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	now := time.Now().UnixMilli()
	// A pair that exists is left as it is. IGNORE would also hide other errors.
	insert := []byte("INSERT INTO conversations (kind, low_user, high_user, created_at) VALUES ")
	for i, p := range pairs {
		insert = appendRow(insert, i, KindDirect, p.A, p.B, uint64(now))
	}
	insert = append(insert, " ON DUPLICATE KEY UPDATE id = id"...)
	if _, err := tx.ExecContext(ctx, string(insert)); err != nil {
		return nil, err
	}
	ids, err := find(ctx, tx, pairs)
	if err != nil {
		return nil, err
	}
	members := []byte("INSERT INTO members (user_id, conversation_id, joined_at) VALUES ")
	for i, p := range pairs {
		members = appendRow(members, i, p.A, ids[p], uint64(now))
		members = appendRow(members, 1, p.B, ids[p], uint64(now))
	}
	members = append(members, " ON DUPLICATE KEY UPDATE joined_at = joined_at"...)
	if _, err := tx.ExecContext(ctx, string(members)); err != nil {
		return nil, err
	}
	return ids, tx.Commit()
}

// find reads the pairs' conversations. All exist: the insert waited for other
// transactions that inserted one, and they have committed or rolled back.
func find(ctx context.Context, tx *sql.Tx, pairs []Pair) (_ map[Pair]uint64, err error) {
	query := []byte("SELECT id, low_user, high_user FROM conversations WHERE (low_user, high_user) IN (")
	for i, p := range pairs {
		query = appendRow(query, i, p.A, p.B)
	}
	rows, err := tx.QueryContext(ctx, string(append(query, ')')))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := make(map[Pair]uint64, len(pairs))
	for rows.Next() {
		var id uint64
		var p Pair
		if err := rows.Scan(&id, &p.A, &p.B); err != nil {
			return nil, err
		}
		ids[p] = id
	}
	if len(ids) != len(pairs) && rows.Err() == nil {
		return nil, fmt.Errorf("%d of %d conversations exist after the insert", len(ids), len(pairs))
	}
	return ids, rows.Err()
}

// appendRow appends "(1,2,3)", after a comma unless it is the first row. The
// values are numbers, so there is nothing to escape.
func appendRow(b []byte, i int, values ...uint64) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = append(b, '(')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, v, 10)
	}
	return append(b, ')')
}
