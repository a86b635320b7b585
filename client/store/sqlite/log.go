package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/msrchat/msrchat/client/store"
)

// Names in the meta table.
const (
	metaEpoch  = "epoch"
	metaListed = "listed"
)

func readState(ctx context.Context, q querier) (store.State, error) {
	var st store.State
	err := each(ctx, q, func(rows *sql.Rows) error {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		if name == metaListed {
			st.Listed = value == "1"
			return nil
		}
		var err error
		st.Epoch, err = strconv.ParseUint(value, 10, 64)
		return err
	}, `SELECT name, value FROM meta WHERE name IN (?, ?)`, metaEpoch, metaListed)
	return st, err
}

func writeState(ctx context.Context, tx *sql.Tx, st store.State) error {
	listed := "0"
	if st.Listed {
		listed = "1"
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES (?, ?), (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`,
		metaEpoch, strconv.FormatUint(st.Epoch, 10), metaListed, listed)
	return err
}

// changeLog is change for what holds for one epoch only.
func (s *Store) changeLog(ctx context.Context, epoch uint64, fn func(tx *sql.Tx) error) error {
	return change(ctx, s.db, func(tx *sql.Tx) error {
		if err := fresh(ctx, tx, epoch); err != nil {
			return err
		}
		return fn(tx)
	})
}

// fresh is ErrStale where the epoch is not the stored one.
func fresh(ctx context.Context, tx *sql.Tx, epoch uint64) error {
	st, err := readState(ctx, tx)
	if err == nil && st.Epoch != epoch {
		err = store.ErrStale
	}
	return err
}

// freshIDs is fresh for conversations; provisional ones are of every epoch.
func freshIDs(ctx context.Context, tx *sql.Tx, epoch uint64, ids ...uint64) error {
	if slices.ContainsFunc(ids, func(id uint64) bool { return !store.Provisional(id) }) {
		return fresh(ctx, tx, epoch)
	}
	return nil
}

// State implements store.Log.
func (s *Store) State(ctx context.Context) (store.State, error) {
	st, err := readState(ctx, s.db)
	if err != nil {
		return st, fmt.Errorf("read epoch: %w", err)
	}
	return st, nil
}

// Begin implements store.Log.
func (s *Store) Begin(ctx context.Context, epoch uint64) (store.State, error) {
	st, err := s.State(ctx)
	if err != nil || st.Epoch == epoch {
		return st, err // without the write lock: every connection comes here
	}
	err = change(ctx, s.db, func(tx *sql.Tx) error {
		if st, err = readState(ctx, tx); err != nil || st.Epoch == epoch {
			return err
		}
		if st.Epoch != 0 {
			st.Listed = false
			if err := dropLog(ctx, tx); err != nil {
				return err
			}
		}
		st.Epoch = epoch
		return writeState(ctx, tx, st)
	})
	if err != nil {
		return st, fmt.Errorf("begin epoch %d: %w", epoch, err)
	}
	return st, nil
}

// dropLog forgets everything that a restored server may tell otherwise. What
// waits for a person moves to a provisional conversation.
func dropLog(ctx context.Context, tx *sql.Tx) error {
	old, err := conversations(ctx, tx, `WHERE c.id <= ?1 AND c.peer_key <> '' AND (o.draft <> ''
		OR EXISTS (SELECT 1 FROM outbox w WHERE w.conversation = c.id AND w.state <> ?2))`,
		int64(store.MaxID), store.Acknowledged)
	if err != nil {
		return err
	}
	last := strconv.Itoa(store.MaxID)
	for _, statement := range []string{
		`DELETE FROM events`, `DELETE FROM moves`, // moves lead to what is gone
		`DELETE FROM conversations WHERE id <= ` + last, `DELETE FROM own_states WHERE conversation <= ` + last,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	for _, c := range old {
		to, err := contactID(ctx, tx, store.PeerKey(c.Peer.Name), c.Peer.Name)
		if err != nil {
			return err
		}
		if err := moveOutbox(ctx, tx, c.ID, to); err != nil {
			return err
		}
		if err := changeOwn(ctx, tx, to, func(own *store.OwnState) { *own = c.Own.Unbound() }); err != nil {
			return err
		}
	}
	return failLost(ctx, tx)
}

// failLost fails unsent messages whose conversation is gone.
func failLost(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE outbox SET conversation = 0, state = ?1,
		code = CASE state WHEN ?1 THEN code ELSE ?2 END, reason = CASE state WHEN ?1 THEN reason ELSE ?3 END
		WHERE conversation <= ?4 AND state <> ?5`, store.Failed, store.ErrStale.Code, store.ErrStale.Message,
		int64(store.MaxID), store.Acknowledged)
	if err != nil {
		return err
	}
	return trimFailed(ctx, tx)
}

// SetListed implements store.Log.
func (s *Store) SetListed(ctx context.Context, epoch uint64) error {
	err := s.changeLog(ctx, epoch, func(tx *sql.Tx) error {
		return writeState(ctx, tx, store.State{Epoch: epoch, Listed: true})
	})
	if err != nil {
		return fmt.Errorf("record listing: %w", err)
	}
	return nil
}

// PutConversations implements store.Log.
func (s *Store) PutConversations(ctx context.Context, epoch uint64, convs []store.Conversation) error {
	err := s.changeLog(ctx, epoch, func(tx *sql.Tx) error {
		for _, c := range convs {
			if err := putConversation(ctx, tx, c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep conversations: %w", err)
	}
	return nil
}

func putConversation(ctx context.Context, tx *sql.Tx, c store.Conversation) error {
	key := ""
	if c.Peer.ID != 0 {
		key = store.PeerKey(c.Peer.Name)
	}
	var lo, hi sql.NullInt64
	if c.Stored != nil {
		lo = sql.NullInt64{Int64: int64(c.Stored.Lo), Valid: true}
		hi = sql.NullInt64{Int64: int64(c.Stored.Hi), Valid: true}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO conversations (id, peer_id, peer, peer_key, lo, hi, head, head_ordinal)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET
			peer_id = CASE ?2 WHEN 0 THEN peer_id ELSE ?2 END,
			peer = CASE ?2 WHEN 0 THEN peer ELSE ?3 END,
			peer_key = CASE ?2 WHEN 0 THEN peer_key ELSE ?4 END,
			hi = CASE WHEN lo IS NULL THEN ?6 ELSE hi END,
			lo = CASE WHEN lo IS NULL THEN ?5 ELSE lo END,
			head_ordinal = CASE WHEN ?7 >= head AND ?8 <> 0 THEN ?8 ELSE head_ordinal END,
			head = MAX(head, ?7)`,
		int64(c.ID), int64(c.Peer.ID), c.Peer.Name, key, lo, hi, int64(c.Head), int64(c.HeadOrdinal))
	if err != nil || key == "" {
		return err
	}
	return move(ctx, tx, key, c.ID)
}

// Append implements store.Log.
func (s *Store) Append(ctx context.Context, epoch uint64, run []store.Message) (stored bool, err error) {
	if len(run) == 0 {
		return true, nil
	}
	err = s.changeLog(ctx, epoch, func(tx *sql.Tx) error {
		stored, err = appendRun(ctx, tx, run)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("keep messages: %w", err)
	}
	return stored, nil
}

func appendRun(ctx context.Context, tx *sql.Tx, run []store.Message) (bool, error) {
	newest := run[len(run)-1]
	conv, first, last := int64(newest.Conversation), int64(run[0].Seq), int64(newest.Seq)
	head := store.Conversation{ID: newest.Conversation, Head: newest.Seq, HeadOrdinal: newest.Ordinal}
	if err := putConversation(ctx, tx, head); err != nil {
		return false, err
	}
	result, err := tx.ExecContext(ctx, `UPDATE conversations
		SET lo = MIN(COALESCE(lo, ?2), ?2), hi = MAX(COALESCE(hi, ?3), ?3)
		WHERE id = ?1 AND (lo IS NULL OR (?2 <= hi + 1 AND ?3 >= lo - 1))`, conv, first, last)
	if err != nil {
		return false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	insert, err := tx.PrepareContext(ctx,
		`INSERT OR IGNORE INTO events (conversation, seq, ordinal, id, sender, kind, body, at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return false, err
	}
	defer insert.Close()
	for _, m := range run {
		_, err := insert.ExecContext(ctx, conv, int64(m.Seq), int64(m.Ordinal), m.ID[:], int64(m.Sender), m.Kind,
			notNil(m.Body), m.At.UnixMilli())
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

const messageColumns = `e.conversation, e.seq, COALESCE(e.ordinal, e.seq), e.id, e.sender, e.kind, e.body, e.at`

// messageRow scans the columns above; all are NULL where a join found nothing.
type messageRow struct {
	conversation, seq, ordinal, sender, kind, at sql.NullInt64
	id, body                                     []byte
}

func (r *messageRow) dest() []any {
	return []any{&r.conversation, &r.seq, &r.ordinal, &r.id, &r.sender, &r.kind, &r.body, &r.at}
}

func (r *messageRow) message() store.Message {
	m := store.Message{
		Conversation: uint64(r.conversation.Int64), Seq: uint64(r.seq.Int64), Ordinal: uint64(r.ordinal.Int64),
		Sender: uint64(r.sender.Int64), Kind: uint32(r.kind.Int64), Body: r.body, At: time.UnixMilli(r.at.Int64),
	}
	copy(m.ID[:], r.id)
	return m
}

func conversations(ctx context.Context, q querier, where string, args ...any) ([]store.Conversation, error) {
	var out []store.Conversation
	err := each(ctx, q, func(rows *sql.Rows) error {
		var (
			c      store.Conversation
			lo, hi sql.NullInt64
			last   messageRow
			own    ownRow
		)
		dest := []any{&c.ID, &c.Peer.ID, &c.Peer.Name, &lo, &hi, &c.Head, &c.HeadOrdinal}
		if err := rows.Scan(slices.Concat(dest, last.dest(), own.dest())...); err != nil {
			return err
		}
		if lo.Valid {
			c.Stored = &store.Range{Lo: uint64(lo.Int64), Hi: uint64(hi.Int64)}
		}
		if last.seq.Valid {
			m := last.message()
			c.Last = &m
		}
		c.Own = own.state()
		out = append(out, c)
		return nil
	}, `SELECT c.id, c.peer_id, c.peer, c.lo, c.hi, c.head, c.head_ordinal, `+messageColumns+`, `+ownColumns+`
		FROM conversations c LEFT JOIN events e ON e.conversation = c.id AND e.seq = c.hi
		LEFT JOIN own_states o ON o.conversation = c.id `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read conversations: %w", err)
	}
	return out, nil
}

// Conversations implements store.Log.
func (s *Store) Conversations(ctx context.Context) ([]store.Conversation, error) {
	return conversations(ctx, s.db, `WHERE c.id <= ?1 OR o.draft <> ''
		OR EXISTS (SELECT 1 FROM outbox w WHERE w.conversation = c.id AND w.state <> ?2) ORDER BY c.id`,
		int64(store.MaxID), store.Acknowledged)
}

// Messages implements store.Log.
func (s *Store) Messages(ctx context.Context, conversation, before uint64, limit int) ([]store.Message, error) {
	end := int64(1<<63 - 1)
	if before != 0 && before < uint64(end) {
		end = int64(before)
	}
	var out []store.Message
	err := each(ctx, s.db, func(rows *sql.Rows) error {
		var row messageRow
		if err := rows.Scan(row.dest()...); err != nil {
			return err
		}
		out = append(out, row.message())
		return nil
	}, `SELECT * FROM (SELECT `+messageColumns+` FROM events e
			WHERE e.conversation = ? AND e.seq < ? ORDER BY e.seq DESC LIMIT ?) ORDER BY seq`,
		int64(conversation), end, limit)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return out, nil
}
