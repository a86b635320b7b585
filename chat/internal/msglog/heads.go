package msglog

import (
	"context"
	"database/sql"
	"time"
)

// maxHeads bounds the remembered heads (about 10 MB). Beyond it
// all are dropped; reading a cold one costs part of one query per batch.
const maxHeads = 200_000

// contention is how long after a conflict a conversation goes straight to the
// locked path. Longer than a change of owner takes, short enough that a single
// conflict costs little.
const contention = 500 * time.Millisecond

// head is the last committed number of a conversation as far as the writer
// knows; it may be too low, never too high.
type head struct {
	seq            uint64
	contendedUntil time.Time
}

// heads are what the writer remembers. Owned by the writer's goroutine.
type heads map[uint64]head

// contended says whether any of the rows' conversations had a conflict lately.
func (h heads) contended(rows []*row) bool {
	var now time.Time
	for i, r := range rows {
		if i > 0 && rows[i-1].req.conversationID == r.req.conversationID {
			continue
		}
		until := h[r.req.conversationID].contendedUntil
		if until.IsZero() {
			continue
		}
		if now.IsZero() {
			now = time.Now()
		}
		if now.Before(until) {
			return true
		}
	}
	return false
}

// number gives rows (sorted by conversation) the numbers after the heads.
func (h heads) number(rows []*row) {
	var next uint64
	for i, r := range rows {
		if i == 0 || rows[i-1].req.conversationID != r.req.conversationID {
			next = h[r.req.conversationID].seq + 1
		}
		r.seq = next
		next++
	}
}

// advance moves the heads over rows that were committed.
func (h heads) advance(rows []*row) {
	if len(h) > maxHeads {
		clear(h)
	}
	for i, r := range rows {
		if i == len(rows)-1 || rows[i+1].req.conversationID != r.req.conversationID {
			known := h[r.req.conversationID]
			known.seq = r.seq
			h[r.req.conversationID] = known
		}
	}
}

// forget drops the rows' heads.
func (h heads) forget(rows []*row) {
	for _, r := range rows {
		delete(h, r.req.conversationID)
	}
}

// conversations lists the rows' conversations once each; rows are sorted.
func conversations(rows []*row) []uint64 {
	var ids []uint64
	for i, r := range rows {
		if i == 0 || rows[i-1].req.conversationID != r.req.conversationID {
			ids = append(ids, r.req.conversationID)
		}
	}
	return ids
}

// loadHeads reads the heads that are not remembered.
func (w *writer) loadHeads(ctx context.Context, rows []*row) error {
	var cold []uint64
	for _, id := range conversations(rows) {
		if _, known := w.heads[id]; !known {
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
		w.heads[id] = head{seq: read[id]}
	}
	return nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readHeads runs a query that gives (conversation, seq) rows. A conversation
// without events is missing from the result, so that its head reads as 0.
func readHeads(ctx context.Context, q querier, query []byte) (map[uint64]uint64, error) {
	rows, err := q.QueryContext(ctx, string(query))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[uint64]uint64)
	for rows.Next() {
		var id, seq uint64
		if err := rows.Scan(&id, &seq); err != nil {
			return nil, err
		}
		out[id] = seq
	}
	return out, rows.Err()
}
