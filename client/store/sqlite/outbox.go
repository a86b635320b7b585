package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/msrchat/msrchat/client/store"
)

const outgoingColumns = `ord, id, conversation, kind, body, at, state, seq, logged_at, existing, code, reason`

type scanner interface{ Scan(dest ...any) error }

func scanOutgoing(row scanner) (store.Outgoing, error) {
	var (
		o            store.Outgoing
		id           []byte
		at, loggedAt int64
	)
	err := row.Scan(&o.Order, &id, &o.Conversation, &o.Kind, &o.Body, &at, &o.State,
		&o.Seq, &loggedAt, &o.Existing, &o.Code, &o.Reason)
	if err != nil {
		return o, err
	}
	if copy(o.ID[:], id) != len(o.ID) {
		return o, fmt.Errorf("outbox row %d: id of %d bytes", o.Order, len(id))
	}
	o.At = time.UnixMilli(at)
	if o.State == store.Acknowledged {
		o.LoggedAt = time.UnixMilli(loggedAt)
	}
	return o, nil
}

func outgoings(ctx context.Context, q querier, where string, args ...any) ([]store.Outgoing, error) {
	var out []store.Outgoing
	err := each(ctx, q, func(rows *sql.Rows) error {
		o, err := scanOutgoing(rows)
		out = append(out, o)
		return err
	}, `SELECT `+outgoingColumns+` FROM outbox `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return out, nil
}

// Enqueue implements store.Outbox.
func (s *Store) Enqueue(ctx context.Context, epoch uint64, o store.Outgoing) (store.Outgoing, error) {
	err := change(ctx, s.accept, func(tx *sql.Tx) error {
		if err := freshIDs(ctx, tx, epoch, o.Conversation); err != nil {
			return err
		}
		var queued int
		err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM outbox WHERE state = ?`, store.Queued).Scan(&queued)
		if err != nil {
			return err
		}
		if queued >= store.MaxQueued {
			return store.ErrFull()
		}
		if o.Conversation, err = present(ctx, tx, o.Conversation); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO outbox (id, conversation, kind, body, at, state)
			VALUES (?, ?, ?, ?, ?, ?)`,
			o.ID[:], int64(o.Conversation), o.Kind, notNil(o.Body), o.At.UnixMilli(), store.Queued)
		if err != nil {
			return err
		}
		o.Order, err = result.LastInsertId()
		return err
	})
	if err != nil {
		return store.Outgoing{}, fmt.Errorf("keep message: %w", err)
	}
	o.State = store.Queued
	return o, nil
}

// notNil is a body for a column that is not NULL.
func notNil(body []byte) []byte {
	if body == nil {
		return []byte{}
	}
	return body
}

// Queued implements store.Outbox.
func (s *Store) Queued(ctx context.Context, after int64, limit int) ([]store.Outgoing, error) {
	return outgoings(ctx, s.db, `WHERE state = ? AND ord > ? ORDER BY ord LIMIT ?`, store.Queued, after, limit)
}

// Unsent implements store.Outbox.
func (s *Store) Unsent(ctx context.Context) ([]store.Outgoing, error) {
	return outgoings(ctx, s.db, `WHERE state IN (?, ?) ORDER BY ord`, store.Queued, store.Failed)
}

// Outgoing implements store.Outbox.
func (s *Store) Outgoing(ctx context.Context, id store.MessageID) (store.Outgoing, error) {
	o, err := scanOutgoing(s.db.QueryRowContext(ctx, `SELECT `+outgoingColumns+` FROM outbox WHERE id = ?`, id[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return o, store.ErrNotFound
	}
	if err != nil {
		return o, fmt.Errorf("read outbox: %w", err)
	}
	return o, nil
}

// Settle implements store.Outbox.
func (s *Store) Settle(ctx context.Context, all []store.Outgoing) error {
	err := change(ctx, s.db, func(tx *sql.Tx) error {
		failed := false
		for _, o := range all {
			// The body of an acknowledged message is in the log.
			_, err := tx.ExecContext(ctx, `UPDATE outbox SET state = ?1, seq = ?2, logged_at = ?3, existing = ?4,
				code = ?5, reason = ?6, body = CASE ?1 WHEN ?7 THEN x'' ELSE body END
				WHERE id = ?8 AND state = ?9`,
				o.State, int64(o.Seq), o.LoggedAt.UnixMilli(), o.Existing, o.Code, o.Reason,
				store.Acknowledged, o.ID[:], store.Queued)
			if err != nil {
				return err
			}
			failed = failed || o.State == store.Failed
		}
		if !failed {
			return nil
		}
		return trimFailed(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("settle messages: %w", err)
	}
	return nil
}

// trimFailed drops the oldest failed messages beyond MaxFailed.
func trimFailed(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE state = ?1 AND ord NOT IN
		(SELECT ord FROM outbox WHERE state = ?1 ORDER BY ord DESC LIMIT ?2)`, store.Failed, store.MaxFailed)
	return err
}

// Discard implements store.Outbox.
func (s *Store) Discard(ctx context.Context, id store.MessageID) error {
	result, err := s.db.ExecContext(ctx, `DELETE FROM outbox WHERE id = ? AND state = ?`, id[:], store.Failed)
	if err != nil {
		return fmt.Errorf("discard message: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("discard message: %w", err)
	}
	if n == 0 {
		return store.ErrNotFound
	}
	return nil
}

// TryLock implements store.Outbox.
func (s *Store) TryLock() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok, err := s.sender.TryLock()
	if err != nil {
		return false, fmt.Errorf("lock outbox: %w", err)
	}
	return ok, nil
}

// Unlock implements store.Outbox.
func (s *Store) Unlock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sender.Unlock(); err != nil {
		return fmt.Errorf("unlock outbox: %w", err)
	}
	return nil
}
