package ownstate

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// The statements are built as text: every value is a decimal number or a
// hexadecimal literal, so there is nothing to escape.

// lock reads and locks the members' rows of changes. All servers lock in the order
// of the primary key, which avoids deadlocks; the optimiser would choose the order of
// the conversations.
func lock(ctx context.Context, tx *sql.Tx, changes []change) (map[key]*row, error) {
	query := []byte("SELECT user_id, conversation_id, joined_at, own_state, read_seq, read_ordinal" +
		" FROM members FORCE INDEX (PRIMARY) WHERE (user_id, conversation_id) IN (")
	for i, c := range changes {
		query = appendTuple(query, i, c.user, c.conversation)
	}
	query = append(query, ") ORDER BY user_id, conversation_id FOR UPDATE"...)
	found, err := tx.QueryContext(ctx, string(query))
	if err != nil {
		return nil, fail("lock", err)
	}
	defer found.Close()
	rows := make(map[key]*row, len(changes))
	for found.Next() {
		r := &row{}
		s := &r.state
		if err := found.Scan(&r.user, &r.conversation, &r.joined, &s.Number, &s.ReadSeq, &s.ReadOrdinal); err != nil {
			return nil, fail("lock", err)
		}
		s.ConversationId = r.conversation
		rows[r.key] = r
	}
	return rows, found.Err()
}

// readDrafts adds the drafts, which the locks on the members' rows protect.
func readDrafts(ctx context.Context, tx *sql.Tx, rows map[key]*row) error {
	if len(rows) == 0 {
		return nil
	}
	query := []byte("SELECT user_id, conversation_id, body, edited_at, number FROM drafts" +
		" WHERE (user_id, conversation_id) IN (")
	i := 0
	for k := range rows {
		query = appendTuple(query, i, k.user, k.conversation)
		i++
	}
	found, err := tx.QueryContext(ctx, string(append(query, ')')))
	if err != nil {
		return fail("read drafts of", err)
	}
	defer found.Close()
	for found.Next() {
		var k key
		d := &chatv1.Draft{}
		if err := found.Scan(&k.user, &k.conversation, &d.Text, &d.EditedAtMs, &d.Number); err != nil {
			return fail("read drafts of", err)
		}
		rows[k].state.Draft = d
	}
	return found.Err()
}

// readOrdinals reads the ordinals of the events that changes say were read.
func readOrdinals(ctx context.Context, tx *sql.Tx, changes []change) (map[place]uint64, error) {
	query := []byte("SELECT conversation_id, seq, COALESCE(ordinal, seq) FROM events FORCE INDEX (PRIMARY)" +
		" WHERE (conversation_id, seq) IN (")
	n := 0
	for _, c := range changes {
		if seq := c.set.GetReadSeq(); seq > 0 {
			query = appendTuple(query, n, c.conversation, seq)
			n++
		}
	}
	out := make(map[place]uint64, n)
	if n == 0 {
		return out, nil
	}
	found, err := tx.QueryContext(ctx, string(append(query, ')')))
	if err != nil {
		return nil, fail("read ordinals for", err)
	}
	defer found.Close()
	for found.Next() {
		var at place
		var ordinal uint64
		if err := found.Scan(&at.conversation, &at.seq, &ordinal); err != nil {
			return nil, fail("read ordinals for", err)
		}
		out[at] = ordinal
	}
	return out, found.Err()
}

// write stores the changed rows, by one statement for each table.
func write(ctx context.Context, tx *sql.Tx, rows map[key]*row) error {
	changed := make([]*row, 0, len(rows))
	for _, r := range rows {
		if r.changed {
			changed = append(changed, r)
		}
	}
	slices.SortFunc(changed, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.conversation, b.conversation))
	})
	if len(changed) == 0 {
		return nil
	}
	members := []byte("INSERT INTO members" +
		" (user_id, conversation_id, joined_at, own_state, read_seq, read_ordinal) VALUES ")
	drafts := []byte("INSERT INTO drafts (user_id, conversation_id, edited_at, number, body) VALUES ")
	n := 0
	for i, r := range changed {
		s := &r.state
		members = appendTuple(members, i,
			r.user, r.conversation, uint64(r.joined), s.GetNumber(), s.GetReadSeq(), s.GetReadOrdinal())
		if !r.newDraft {
			continue
		}
		d := s.GetDraft()
		drafts = appendTuple(drafts, n, r.user, r.conversation, uint64(max(d.GetEditedAtMs(), 0)), d.GetNumber())
		drafts = append(drafts[:len(drafts)-1], ",x'"...)
		drafts = append(hex.AppendEncode(drafts, []byte(d.GetText())), "')"...)
		n++
	}
	members = append(members, " ON DUPLICATE KEY UPDATE own_state = VALUES(own_state), read_seq = VALUES(read_seq),"+
		" read_ordinal = VALUES(read_ordinal)"...)
	if _, err := tx.ExecContext(ctx, string(members)); err != nil {
		return fail("write", err)
	}
	if n == 0 {
		return nil
	}
	drafts = append(drafts, " ON DUPLICATE KEY UPDATE body = VALUES(body), edited_at = VALUES(edited_at),"+
		" number = VALUES(number)"...)
	if _, err := tx.ExecContext(ctx, string(drafts)); err != nil {
		return fail("write drafts of", err)
	}
	return nil
}

// readAll reads the own states of one user.
func readAll(
	ctx context.Context, db *sql.DB, user uint64, conversations []uint64,
) (map[uint64]*chatv1.OwnState, error) {
	out := make(map[uint64]*chatv1.OwnState, len(conversations))
	if len(conversations) == 0 {
		return out, nil
	}
	query := []byte("SELECT m.conversation_id, m.own_state, m.read_seq, m.read_ordinal," +
		" COALESCE(d.body, ''), COALESCE(d.edited_at, 0), COALESCE(d.number, 0) FROM members m FORCE INDEX (PRIMARY)" +
		" LEFT JOIN drafts d ON d.user_id = m.user_id AND d.conversation_id = m.conversation_id" +
		" WHERE (m.user_id, m.conversation_id) IN (")
	for i, id := range conversations {
		query = appendTuple(query, i, user, id)
	}
	found, err := db.QueryContext(ctx, string(append(query, ')')))
	if err != nil {
		return nil, fail("read", err)
	}
	defer found.Close()
	for found.Next() {
		s := &chatv1.OwnState{Draft: &chatv1.Draft{}}
		d := s.GetDraft()
		err := found.Scan(&s.ConversationId, &s.Number, &s.ReadSeq, &s.ReadOrdinal, &d.Text, &d.EditedAtMs, &d.Number)
		if err != nil {
			return nil, fail("read", err)
		}
		if d.GetNumber() == 0 {
			s.Draft = nil
		}
		out[s.GetConversationId()] = s
	}
	return out, found.Err()
}

// snapshot is a copy that later changes do not affect.
func snapshot(s *chatv1.OwnState) *chatv1.OwnState { return proto.Clone(s).(*chatv1.OwnState) }

// appendTuple appends "(1,2,3)", preceded by a comma unless it is the first.
func appendTuple(b []byte, i int, values ...uint64) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = append(b, '(')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, v, 10)
	}
	return append(b, ')')
}
