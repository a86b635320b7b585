package msglog

import (
	"context"
	"database/sql"
	"slices"
	"time"
)

// maxHeads bounds the cached heads (about 10 MB). Beyond it all are dropped. All
// heads that a batch lacks are read by one query.
const maxHeads = 200_000

// contention is how long after a conflict a conversation goes straight to the
// locked path: longer than a change of owner takes, and short enough that a single
// conflict costs little.
const contention = 500 * time.Millisecond

// Head is the end of a conversation's log: the number and the ordinal of its last
// event.
type Head struct{ Seq, Ordinal uint64 }

// head is a cached end of a conversation. It may be too low, never too high.
type head struct {
	Head
	contendedUntil time.Time
}

// heads are the cached ends by conversation. Owned by the writer's goroutine.
type heads map[uint64]head

// split separates the rows of conversations that had a conflict lately from the others.
func (h heads) split(rows []*row) (calm, contended []*row) {
	now := time.Now()
	for i, r := range rows {
		until := h[r.req.conversation].contendedUntil
		switch {
		case !until.IsZero() && now.Before(until):
			if contended == nil { // rare: until then calm is a part of rows
				calm = slices.Clone(rows[:i])
			}
			contended = append(contended, r)
		case contended != nil:
			calm = append(calm, r)
		}
	}
	if contended == nil {
		return rows, nil
	}
	return calm, contended
}

// learn forgets the heads of conversations in which others appended.
func (h heads) learn(learned map[uint64]uint64) {
	for id, seq := range learned {
		have := h[id]
		if seq > have.Seq && time.Now().After(have.contendedUntil) { // else it is read under locks
			delete(h, id)
		}
	}
}

// number gives rows (sorted by conversation) the numbers after the heads.
func (h heads) number(rows []*row) {
	var end Head
	for i, r := range rows {
		if i == 0 || rows[i-1].req.conversation != r.req.conversation {
			end = h[r.req.conversation].Head
		}
		end.Seq++
		if !r.event().Uncounted {
			end.Ordinal++
		}
		r.seq, r.ordinal = end.Seq, end.Ordinal
	}
}

// advance moves the heads over rows that were committed.
func (h heads) advance(rows []*row) {
	if len(h) > maxHeads {
		clear(h)
	}
	for i, r := range rows {
		if i == len(rows)-1 || rows[i+1].req.conversation != r.req.conversation {
			end := h[r.req.conversation]
			end.Head = Head{r.seq, r.ordinal}
			h[r.req.conversation] = end
		}
	}
}

// forget drops the rows' heads.
func (h heads) forget(rows []*row) {
	for _, r := range rows {
		delete(h, r.req.conversation)
	}
}

// conversations lists the rows' conversations once each. The rows are sorted.
func conversations(rows []*row) []uint64 {
	var ids []uint64
	for i, r := range rows {
		if i == 0 || rows[i-1].req.conversation != r.req.conversation {
			ids = append(ids, r.req.conversation)
		}
	}
	return ids
}

// loadHeads reads the heads that are not cached.
func (w *writer) loadHeads(ctx context.Context, rows []*row) error {
	var cold []uint64
	for _, id := range conversations(rows) {
		if _, ok := w.heads[id]; !ok {
			cold = append(cold, id)
		}
	}
	if len(cold) == 0 {
		return nil
	}
	read, err := readHeads(ctx, w.conn, appendEnds(nil, cold))
	if err != nil {
		return err
	}
	for _, id := range cold {
		w.heads[id] = head{Head: read[id]}
	}
	return nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readHeads runs a query that gives (conversation, seq, ordinal) rows. A
// conversation without events is missing from the result, so its head is zero.
func readHeads(ctx context.Context, q querier, query []byte) (map[uint64]Head, error) {
	rows, err := q.QueryContext(ctx, string(query))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[uint64]Head)
	for rows.Next() {
		var id uint64
		var h Head
		if err := rows.Scan(&id, &h.Seq, &h.Ordinal); err != nil {
			return nil, err
		}
		out[id] = h
	}
	return out, rows.Err()
}
