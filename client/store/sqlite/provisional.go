package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/msrchat/msrchat/client/store"
)

// with finds the conversation with a person, a provisional one or one that a
// server named; nil where there is none.
func with(ctx context.Context, q querier, peerKey string, provisional bool) (*store.Conversation, error) {
	if peerKey == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	found, err := conversations(ctx, q, `WHERE c.peer_key = ? AND (c.id > ?) = ? LIMIT 1`,
		peerKey, int64(store.MaxID), provisional)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// contactID returns the conversation with a person, and makes a provisional one
// where there is none.
func contactID(ctx context.Context, tx *sql.Tx, peerKey, name string) (uint64, error) {
	for _, provisional := range []bool{false, true} {
		if c, err := with(ctx, tx, peerKey, provisional); err != nil || c != nil {
			return idOf(c), err
		}
	}
	id, err := next(ctx, tx, "provisional", store.MaxID)
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO conversations (id, peer_id, peer, peer_key) VALUES (?, 0, ?, ?)`,
		int64(id), name, peerKey)
	return id, err
}

func idOf(c *store.Conversation) uint64 {
	if c == nil {
		return 0
	}
	return c.ID
}

// Contact implements store.Log.
func (s *Store) Contact(ctx context.Context, name string) (store.Conversation, error) {
	key := store.PeerKey(name)
	c, err := with(ctx, s.db, key, false)
	if err == nil && c != nil {
		return *c, nil // without the write lock
	}
	if err == nil {
		err = change(ctx, s.db, func(tx *sql.Tx) error {
			id, err := contactID(ctx, tx, key, name)
			if err != nil {
				return err
			}
			c, err = one(ctx, tx, id)
			return err
		})
	}
	if err != nil {
		return store.Conversation{}, fmt.Errorf("look up contact: %w", err)
	}
	return *c, nil
}

// one reads a conversation, nil where there is none.
func one(ctx context.Context, q querier, id uint64) (*store.Conversation, error) {
	found, err := conversations(ctx, q, `WHERE c.id = ?`, int64(id))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// Conversation implements store.Log.
func (s *Store) Conversation(ctx context.Context, id uint64) (store.Conversation, bool, error) {
	// Another process may move it between the two reads: then the second try finds
	// where it went.
	for range 2 {
		at, err := moved(ctx, s.db, id)
		if err != nil {
			return store.Conversation{}, false, err
		}
		c, err := one(ctx, s.db, at)
		if err != nil || c != nil {
			return orZero(c), c != nil, err
		}
	}
	return store.Conversation{}, false, nil
}

func orZero(c *store.Conversation) store.Conversation {
	if c == nil {
		return store.Conversation{}
	}
	return *c
}

// moved is where a conversation is now.
func moved(ctx context.Context, q querier, id uint64) (uint64, error) {
	if !store.Provisional(id) {
		return id, nil
	}
	at := id
	err := q.QueryRowContext(ctx, `SELECT conversation FROM moves WHERE provisional = ?`, int64(id)).Scan(&at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read moves: %w", err)
	}
	return at, nil
}

// present is moved for what must be there.
func present(ctx context.Context, q querier, id uint64) (uint64, error) {
	at, err := moved(ctx, q, id)
	if err != nil || !store.Provisional(at) {
		return at, err
	}
	c, err := one(ctx, q, at)
	if err == nil && c == nil {
		err = store.ErrNoConversation
	}
	return at, err
}

// move moves what is in the provisional conversation with a person, if there is
// one.
func move(ctx context.Context, tx *sql.Tx, peerKey string, to uint64) error {
	from, err := with(ctx, tx, peerKey, true)
	if err != nil || from == nil {
		return err
	}
	if err := moveOutbox(ctx, tx, from.ID, to); err != nil {
		return err
	}
	if from.Own.Draft != "" {
		if err := changeOwn(ctx, tx, to, func(own *store.OwnState) { own.Join(from.Own) }); err != nil {
			return err
		}
	}
	ord, err := next(ctx, tx, "change", 0)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO moves (ord, provisional, conversation) VALUES (?, ?, ?)`,
		int64(ord), int64(from.ID), int64(to)); err != nil {
		return err
	}
	for _, statement := range []string{
		`DELETE FROM conversations WHERE id = ?`, `DELETE FROM own_states WHERE conversation = ?`,
	} {
		if _, err := tx.ExecContext(ctx, statement, int64(from.ID)); err != nil {
			return err
		}
	}
	return nil
}

// moveOutbox moves the messages of a conversation that are not acknowledged.
func moveOutbox(ctx context.Context, tx *sql.Tx, from, to uint64) error {
	_, err := tx.ExecContext(ctx, `UPDATE outbox SET conversation = ? WHERE conversation = ? AND state <> ?`,
		int64(to), int64(from), store.Acknowledged)
	return err
}

// Resolve implements store.Log.
func (s *Store) Resolve(ctx context.Context, epoch uint64, peerKey string, conv store.Conversation) error {
	err := s.changeLog(ctx, epoch, func(tx *sql.Tx) error {
		if err := putConversation(ctx, tx, conv); err != nil {
			return err
		}
		return move(ctx, tx, peerKey, conv.ID)
	})
	if err != nil {
		return fmt.Errorf("resolve peer: %w", err)
	}
	return nil
}

// Moved implements store.Log.
func (s *Store) Moved(ctx context.Context, after int64) ([]store.Move, error) {
	var out []store.Move
	err := each(ctx, s.db, func(rows *sql.Rows) error {
		var m store.Move
		err := rows.Scan(&m.Order, &m.From, &m.To)
		out = append(out, m)
		return err
	}, `SELECT ord, provisional, conversation FROM moves WHERE ord > ? ORDER BY ord`, after)
	if err != nil {
		return nil, fmt.Errorf("read moves: %w", err)
	}
	return out, nil
}

// dropEmpty drops the oldest provisional conversations in which nothing waits, and
// the oldest moves.
func dropEmpty(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM moves WHERE ord <=
		(SELECT ord FROM moves ORDER BY ord DESC LIMIT 1 OFFSET ?)`, store.MaxEmpty)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM conversations WHERE id IN (SELECT c.id FROM conversations c
		LEFT JOIN own_states o ON o.conversation = c.id
		WHERE c.id > ? AND COALESCE(o.draft, '') = '' AND NOT EXISTS
			(SELECT 1 FROM outbox w WHERE w.conversation = c.id AND w.state <> ?)
		ORDER BY c.id DESC LIMIT -1 OFFSET ?)`, int64(store.MaxID), store.Acknowledged, store.MaxEmpty)
	return err
}
