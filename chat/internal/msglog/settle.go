package msglog

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/planted"
)

// settle is the slow path to a result: there is, or lately was, another writer, a
// message is in the log already, a connection broke, or the database refuses a
// value. Each round looks up which rows are in the log; the first round does so only
// if suspect says that some may be. Then it appends the rest under locks that keep
// other writers of the same conversations out until the commit.
//
// Without locks the loser of a conflict would starve: the winner knows the next
// number before the loser has read the head again.
func (w *writer) settle(ctx context.Context, rows []*row, suspect bool) {
	for attempt := 0; len(rows) > 0; attempt++ {
		if !retries.Wait(ctx, attempt) {
			break
		}
		if err := w.connect(ctx); err != nil {
			w.failed(rows, err)
			continue
		}
		if suspect {
			missing, err := w.lookUp(ctx, rows)
			if err != nil {
				w.failed(rows, err)
				continue
			}
			if rows = missing; len(rows) == 0 {
				return
			}
		}
		err := w.appendLocked(ctx, rows, attempt == 0 && !suspect)
		suspect = true
		switch {
		case err == nil:
			return
		case isData(err):
			w.bisect(ctx, rows)
			return
		}
		w.failed(rows, err)
		if database.IsDuplicate(err) || database.IsContention(err) {
			attempt = min(attempt, 2) // another writer made progress: keep the waits short
		}
	}
	for _, r := range rows {
		r.req.err = errs.New(errs.CodeUnavailable, "the message was not confirmed")
	}
}

// bisect finds the rows that the database refuses, so that one bad entry fails
// alone.
func (w *writer) bisect(ctx context.Context, rows []*row) {
	if len(rows) == 1 {
		rows[0].result().Err = errRefused
		return
	}
	half := len(rows) / 2
	w.settle(ctx, rows[:half], true)
	w.settle(ctx, rows[half:], true)
}

// isData says that the server refused a value and can store others.
func isData(err error) bool {
	var e *mysql.MySQLError
	return errors.As(err, &e) && slices.Contains([]uint16{1048, 1153, 1264, 1292, 1366, 1406, 3140}, e.Number)
}

// compare takes over heads that were just read under locks. Where this server believed in
// another one, somebody else appended.
func (w *writer) compare(ids []uint64, ends map[uint64]Head) {
	for _, id := range ids {
		have, known := w.heads[id]
		if known && have.Head != ends[id] {
			have.contendedUntil = time.Now().Add(contention)
			w.log.others.conflict(id)
		}
		have.Head = ends[id]
		w.heads[id] = have
	}
}

// lookUp sets the results of the rows that are in the log and returns the others in
// order.
func (w *writer) lookUp(ctx context.Context, rows []*row) (missing []*row, err error) {
	if planted.Has(planted.DedupeOff) {
		return renamed(rows), nil
	}
	w.text = appendLookUp(w.text[:0], rows)
	found, err := w.conn.QueryContext(ctx, string(w.text))
	if err != nil {
		return nil, err
	}
	defer found.Close()
	byKey := make(map[key]*row, len(rows))
	for _, r := range rows {
		byKey[r.key()] = r
	}
	for found.Next() {
		var k key
		var id, body []byte
		var kind uint8
		var result Result
		err := found.Scan(
			&k.conversation, &k.sender, &id, &result.Seq, &result.Ordinal, &kind, &body, &result.CreatedAt)
		if err != nil {
			return nil, err
		}
		copy(k.id[:], id)
		r := byKey[k]
		delete(byKey, k)
		result.Existing = true
		if !r.same(kind, body) {
			result = Result{Err: errOtherBody}
		}
		*r.result() = result
		w.log.metrics.existing.Inc()
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	for _, r := range rows {
		if _, absent := byKey[r.key()]; absent {
			missing = append(missing, r)
		}
	}
	return missing, nil
}

// appendLocked appends rows in a transaction that locks the conversations and the
// ends of their logs. The locks on the conversations' rows serialise the writers on
// the slow path without deadlocks. The locks on the ends keep out writers on the
// fast path; they are gap locks, which need REPEATABLE READ. The light form does
// without them, because in a contended conversation nearly all writers are on the
// slow path.
func (w *writer) appendLocked(ctx context.Context, rows []*row, light bool) (err error) {
	w.log.metrics.locked.Inc()
	isolation, endsOf := sql.LevelRepeatableRead, appendLockEnds
	if light {
		isolation, endsOf = sql.LevelDefault, appendEnds
	}
	tx, err := w.conn.BeginTx(ctx, &sql.TxOptions{Isolation: isolation})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Error 1205 undoes only the statement. If the rollback fails, the connection
			// is broken, and its locks end with it.
			if rollback := tx.Rollback(); rollback != nil && database.Answered(err) {
				w.lose(rollback)
			}
		}
	}()
	ids := conversations(rows)
	if _, err := tx.ExecContext(ctx, string(appendLockConversations(nil, ids))); err != nil {
		return err
	}
	ends, err := readHeads(ctx, tx, endsOf(nil, ids))
	if err != nil {
		return err
	}
	w.compare(ids, ends)
	now := time.Now().UnixMilli()
	w.heads.number(rows)
	if _, err := tx.ExecContext(ctx, string(appendInsert(w.text[:0], rows, now))); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	w.record(rows, now)
	return nil
}
