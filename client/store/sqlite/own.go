package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/msrchat/msrchat/client/store"
)

const ownColumns = `o.conversation, o.ord, o.number, o.read, o.read_ordinal, o.read_told,
	o.draft, o.draft_edited, o.draft_unsent, o.base, o.edits`

// ownRow scans the columns above; all are NULL where a join found nothing.
type ownRow struct {
	conversation, ord, number, read, readOrdinal, readTold, edited, base, edits sql.NullInt64
	draft                                                                       sql.NullString
	unsent                                                                      sql.NullBool
}

func (r *ownRow) dest() []any {
	return []any{
		&r.conversation, &r.ord, &r.number, &r.read, &r.readOrdinal, &r.readTold,
		&r.draft, &r.edited, &r.unsent, &r.base, &r.edits,
	}
}

func (r *ownRow) state() store.OwnState {
	own := store.OwnState{
		Number: uint64(r.number.Int64), Read: uint64(r.read.Int64), ReadOrdinal: uint64(r.readOrdinal.Int64),
		ServerRead: uint64(r.readTold.Int64), Draft: r.draft.String, DraftUnsent: r.unsent.Bool,
		Base: uint64(r.base.Int64), Edits: uint64(r.edits.Int64),
	}
	if r.edited.Int64 != 0 {
		own.DraftEdited = time.UnixMilli(r.edited.Int64)
	}
	return own
}

func ownStates(ctx context.Context, q querier, where string, args ...any) ([]store.Owned, error) {
	var out []store.Owned
	err := each(ctx, q, func(rows *sql.Rows) error {
		var r ownRow
		if err := rows.Scan(r.dest()...); err != nil {
			return err
		}
		out = append(out, store.Owned{
			Conversation: uint64(r.conversation.Int64), Order: r.ord.Int64, OwnState: r.state(),
		})
		return nil
	}, `SELECT `+ownColumns+` FROM own_states o `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read own states: %w", err)
	}
	return out, nil
}

// ownOf returns one own state, empty where there is none.
func ownOf(ctx context.Context, q querier, conversation uint64) (store.OwnState, error) {
	found, err := ownStates(ctx, q, `WHERE o.conversation = ?`, int64(conversation))
	if err != nil || len(found) == 0 {
		return store.OwnState{}, err
	}
	return found[0].OwnState, nil
}

// changeOwn changes one own state and keeps it under the next order.
func changeOwn(ctx context.Context, tx *sql.Tx, conversation uint64, change func(own *store.OwnState)) error {
	own, err := ownOf(ctx, tx, conversation)
	if err != nil {
		return err
	}
	before := own
	if change(&own); own == before {
		return nil
	}
	ord, err := next(ctx, tx, "change", 0)
	if err != nil {
		return err
	}
	edited := int64(0)
	if !own.DraftEdited.IsZero() {
		edited = own.DraftEdited.UnixMilli()
	}
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO own_states (conversation, ord, number, read, read_ordinal,
		read_told, draft, draft_edited, draft_unsent, base, edits) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		int64(conversation), int64(ord), int64(own.Number), int64(own.Read), int64(own.ReadOrdinal),
		int64(own.ServerRead), own.Draft, edited, own.DraftUnsent, int64(own.Base), int64(own.Edits))
	return err
}

// ChangeOwn implements store.Own.
func (s *Store) ChangeOwn(
	ctx context.Context, epoch uint64, ids []uint64, fn func(conversation uint64, own *store.OwnState),
) error {
	err := change(ctx, s.db, func(tx *sql.Tx) error {
		if err := freshIDs(ctx, tx, epoch, ids...); err != nil {
			return err
		}
		for _, id := range ids {
			at, err := present(ctx, tx, id)
			if err != nil {
				return err
			}
			if err := changeOwn(ctx, tx, at, func(own *store.OwnState) { fn(id, own) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep own states: %w", err)
	}
	return nil
}

// OwnStates implements store.Own.
func (s *Store) OwnStates(ctx context.Context, after int64) ([]store.Owned, error) {
	return ownStates(ctx, s.db, `WHERE o.ord > ? ORDER BY o.ord`, after)
}

// UnsentOwn implements store.Own.
func (s *Store) UnsentOwn(ctx context.Context, after uint64, limit int) ([]store.Owned, error) {
	return ownStates(ctx, s.db, `WHERE o.conversation > ? AND o.conversation <= ?
		AND (o.draft_unsent OR o.read > o.read_told) ORDER BY o.conversation LIMIT ?`,
		int64(after), int64(store.MaxID), limit)
}
