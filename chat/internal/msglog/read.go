package msglog

import (
	"context"
	"fmt"
	"slices"
)

const selectEvents = "SELECT seq, COALESCE(ordinal, seq), sender_id, client_msg_id, kind, body, created_at" +
	" FROM events FORCE INDEX (PRIMARY) WHERE conversation_id = ? AND "

// After reads the first limit events above a number, ascending.
func (l *Log) After(ctx context.Context, conversation, after uint64, limit int) ([]Event, error) {
	return l.page(ctx, conversation, selectEvents+"seq > ? ORDER BY seq LIMIT ?", after, limit)
}

// Before reads the last limit events below a number, ascending.
func (l *Log) Before(ctx context.Context, conversation, before uint64, limit int) ([]Event, error) {
	events, err := l.page(ctx, conversation, selectEvents+"seq < ? ORDER BY seq DESC LIMIT ?", before, limit)
	slices.Reverse(events)
	return events, err
}

func (l *Log) page(ctx context.Context, conversation uint64, query string, bound uint64, limit int) ([]Event, error) {
	rows, err := l.db.QueryContext(ctx, query, conversation, bound, limit)
	if err != nil {
		return nil, fmt.Errorf("read conversation %d: %w", conversation, err)
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		e := Event{Conversation: conversation}
		var id []byte
		if err := rows.Scan(&e.Seq, &e.Ordinal, &e.Sender, &id, &e.Kind, &e.Body, &e.CreatedAt); err != nil {
			return nil, fmt.Errorf("read conversation %d: %w", conversation, err)
		}
		copy(e.ID[:], id)
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read conversation %d: %w", conversation, err)
	}
	return events, nil
}

// Heads reads the ends of conversations. The result has none for an empty one.
func (l *Log) Heads(ctx context.Context, ids []uint64) (map[uint64]Head, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	out, err := readHeads(ctx, l.db, appendEnds(nil, ids))
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return out, nil
}
