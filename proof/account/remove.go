package account

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// Removed counts what Remove deleted.
type Removed struct {
	Users, Sessions, Conversations, Events int64
}

// Remove deletes the accounts of a run with their sessions, the
// conversations that they take part in, and all that was written there. It may
// be called again after it failed part-way.
//
// Chat servers remember who is logged in for up to a heartbeat and Redis for
// half a minute, so end the clients first.
func Remove(ctx context.Context, db *sql.DB, run string) (Removed, error) {
	if !runName.MatchString(run) {
		return Removed{}, fmt.Errorf("the run %q must be 1 to 16 lower-case letters and digits", run)
	}
	return remove(ctx, db, namePrefix+run+"-")
}

// RemoveAll deletes the accounts of all runs.
func RemoveAll(ctx context.Context, db *sql.DB) (Removed, error) { return remove(ctx, db, namePrefix) }

func remove(ctx context.Context, db *sql.DB, prefix string) (Removed, error) {
	var total Removed
	for {
		users, err := marked(ctx, db, prefix)
		if err != nil {
			return total, fmt.Errorf("list the accounts %s…: %w", prefix, err)
		}
		if len(users) == 0 {
			return total, nil
		}
		if err := total.deleteUsers(ctx, db, users); err != nil {
			return total, fmt.Errorf("remove the accounts %s…: %w", prefix, err)
		}
	}
}

// marked returns some accounts with a prefix. All three marks must match: a
// person may call themselves bench-1-1, but has a password and an address.
func marked(ctx context.Context, db *sql.DB, prefix string) ([]uint64, error) {
	return column(ctx, db, "SELECT id FROM users WHERE name_key >= ? AND name_key < ? AND password_hash = ?"+
		" AND email_key LIKE ? ORDER BY name_key LIMIT "+strconv.Itoa(batch),
		[]byte(prefix), []byte(prefix+"\xff"), []byte(noPassword), []byte("%"+domain))
}

// deleteUsers deletes what refers to the users first, so that a failure leaves
// nothing that cannot be found again.
func (r *Removed) deleteUsers(ctx context.Context, db *sql.DB, users []uint64) error {
	in := list(users)
	conversations, err := column(ctx, db, "SELECT DISTINCT conversation_id FROM members WHERE user_id IN "+in)
	if err != nil {
		return err
	}
	for len(conversations) > 0 {
		n := min(len(conversations), batch)
		if err := r.deleteConversations(ctx, db, list(conversations[:n])); err != nil {
			return err
		}
		conversations = conversations[n:]
	}
	if err := drop(ctx, db, &r.Sessions, "DELETE FROM sessions WHERE user_id IN "+in); err != nil {
		return err
	}
	return drop(ctx, db, &r.Users, "DELETE FROM users WHERE id IN "+in)
}

func (r *Removed) deleteConversations(ctx context.Context, db *sql.DB, in string) error {
	// In parts: one statement over a long run's logs would take longer than a
	// statement may.
	for {
		before := r.Events
		statement := "DELETE FROM events WHERE conversation_id IN " + in + " LIMIT 20000"
		if err := drop(ctx, db, &r.Events, statement); err != nil {
			return err
		}
		if r.Events == before {
			break
		}
	}
	if err := drop(ctx, db, &r.Conversations, "DELETE FROM conversations WHERE id IN "+in); err != nil {
		return err
	}
	if err := drop(ctx, db, new(int64), "DELETE d FROM drafts d JOIN members m USING (user_id, conversation_id)"+
		" WHERE m.conversation_id IN "+in); err != nil { // by the members, whose index has the conversation first
		return err
	}
	return drop(ctx, db, new(int64), "DELETE FROM members WHERE conversation_id IN "+in)
}

// drop runs a DELETE and adds to the count.
func drop(ctx context.Context, db *sql.DB, count *int64, statement string) error {
	done, err := db.ExecContext(ctx, statement)
	if err != nil {
		return err
	}
	n, err := done.RowsAffected()
	*count += n
	return err
}

func column(ctx context.Context, db *sql.DB, query string, args ...any) (ids []uint64, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// list is "(1,2,3)".
func list(ids []uint64) string {
	var b strings.Builder
	for i, id := range ids {
		b.WriteByte("(,"[min(i, 1)])
		b.WriteString(strconv.FormatUint(id, 10))
	}
	b.WriteByte(')')
	return b.String()
}
