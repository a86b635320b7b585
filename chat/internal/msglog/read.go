package msglog

import (
	"context"
	"fmt"
	"slices"
)

// Event is an entry of a log.
type Event struct {
	ConversationID uint64
	Seq            uint64
	CreatedAt      int64 // Unix milliseconds
	Entry
}

const selectEvents = "SELECT seq, sender_id, client_msg_id, kind, body, created_at FROM events FORCE INDEX (PRIMARY) WHERE conversation_id = ? AND "

// After reads the first limit events above a number, ascending.
func (l *Log) After(ctx context.Context, conversationID, after uint64, limit int) ([]Event, error) {
	return l.page(ctx, conversationID, selectEvents+"seq > ? ORDER BY seq LIMIT ?", after, limit)
}

// Before reads the last limit events below a number, ascending.
func (l *Log) Before(ctx context.Context, conversationID, before uint64, limit int) ([]Event, error) {
	events, err := l.page(ctx, conversationID, selectEvents+"seq < ? ORDER BY seq DESC LIMIT ?", before, limit)
	slices.Reverse(events)
	return events, err
}

func (l *Log) page(ctx context.Context, conversationID uint64, query string, bound uint64, limit int) ([]Event, error) {
	rows, err := l.db.QueryContext(ctx, query, conversationID, bound, limit)
	if err != nil {
		return nil, fmt.Errorf("read conversation %d: %w", conversationID, err)
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		e := Event{ConversationID: conversationID}
		var id []byte
		if err := rows.Scan(&e.Seq, &e.SenderID, &id, &e.Kind, &e.Body, &e.CreatedAt); err != nil {
			return nil, fmt.Errorf("read conversation %d: %w", conversationID, err)
		}
		copy(e.ClientMsgID[:], id)
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read conversation %d: %w", conversationID, err)
	}
	return events, nil
}

// Heads reads the last numbers of conversations; an empty one is missing from
// the result.
func (l *Log) Heads(ctx context.Context, ids []uint64) (map[uint64]uint64, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	out, err := readHeads(ctx, l.db, appendEnds(nil, ids))
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return out, nil
}
