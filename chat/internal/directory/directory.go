// Package directory opens and lists users' conversations, and reads the heads of
// their logs and the numbers of their own states.
package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/allowance"
	"github.com/msrchat/msrchat/chat/internal/batch"
	"github.com/msrchat/msrchat/chat/internal/member"
)

// maxTogether users who connect at the same time share one query for their heads,
// which may take headsLimit.
const (
	maxTogether = 200
	headsLimit  = 5 * time.Second
)

// A person opens conversations with people they know. Somebody who tries names to learn
// which exist, or writes to everybody, is slowed down: maxNames that lead to nobody or to
// a new conversation are free, more than a person's contacts, who come at once from a new
// device. After that one more is free every nameEvery.
const (
	maxNames  = 100
	nameEvery = 2 * time.Second
)

// Directory reads and creates conversations. Its methods may be called from any
// goroutine and block on the database.
type Directory struct {
	db *sql.DB
	// own reads the heads of users who connect.
	own     *batch.Batcher[uint64, []*chatv1.Head]
	members *member.Index
	names   *allowance.Allowance
}

// New returns a directory on a database.
func New(db *sql.DB, members *member.Index) *Directory {
	d := &Directory{db: db, members: members, names: allowance.New(maxNames, nameEvery)}
	d.own = batch.New(maxTogether, headsLimit, func(ctx context.Context, users []uint64) ([][]*chatv1.Head, error) {
		heads, err := d.Heads(ctx, users)
		answers := make([][]*chatv1.Head, len(users))
		for i, user := range users {
			answers[i] = heads[user]
		}
		return answers, err
	})
	return d
}

// away turns a database error into one that a client may see.
func away(err error) error {
	return errs.Wrap(errs.CodeUnavailable, err, "the database does not answer").Retry(time.Second)
}

// errNoConversation is also the answer to users who are not members, so that nobody
// learns which conversations exist.
var errNoConversation = errs.New(errs.CodeNotFound, "there is no such conversation")

// Check says whether a user is a member of a conversation: nil, or CodeNotFound. It
// waits for the database only if Knows is false.
func (d *Directory) Check(ctx context.Context, conversation, user uint64) error {
	if d.Knows(conversation, user) {
		return nil
	}
	m, err := d.members.Load(ctx, conversation)
	if err == nil && !m.Has(user) {
		err = errNoConversation
	}
	return err
}

// Knows says that a user is a member according to the cache. false may mean that the
// conversation is not cached.
func (d *Directory) Knows(conversation, user uint64) bool {
	m, ok := d.members.Cached(conversation)
	return ok && m.Has(user)
}

// OpenDirect returns the direct conversation of a user with another, by name. If
// there is none it is created. Names that lead to nobody, and new conversations, are
// counted.
func (d *Directory) OpenDirect(
	ctx context.Context, user uint64, peerName string,
) (c *chatv1.Conversation, created bool, err error) {
	_, key, err := text.FindName(peerName)
	if err != nil {
		return nil, false, errs.From(err).In("peer_name")
	}
	if wait := d.names.Take(user, 1); wait > 0 {
		return nil, false, errs.New(errs.CodeRateLimited, "you tried too many names; wait a moment").Retry(wait)
	}
	defer func() {
		if !created && errs.CodeOf(err) != errs.CodeNotFound {
			d.names.Add(user, 1)
		}
	}()
	peer := &chatv1.User{}
	err = d.db.QueryRowContext(ctx, "SELECT id, name FROM users WHERE name_key = ?", key).Scan(&peer.Id, &peer.Name)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, errs.New(errs.CodeNotFound, "nobody has that name").In("peer_name")
	case err != nil:
		return nil, false, away(err)
	case peer.Id == user:
		return nil, false, errs.New(errs.CodeInvalid, "that is your own name").In("peer_name")
	}
	low, high := min(user, peer.Id), max(user, peer.Id)
	id, err := d.direct(ctx, low, high)
	if errors.Is(err, sql.ErrNoRows) {
		created = true
		var made []uint64
		if made, err = conversation.Direct(ctx, d.db, conversation.Pair{A: low, B: high}); err == nil {
			id = made[0]
		}
	}
	if err != nil {
		return nil, false, away(err)
	}
	d.members.PutDirect(id, low, high)
	c = &chatv1.Conversation{Id: id, Peer: peer}
	var end end
	err = d.db.QueryRowContext(ctx, "SELECT "+lastEvent+" FROM conversations c WHERE c.id = ?", id).Scan(&end)
	if err != nil {
		return nil, false, away(err)
	}
	c.Head, c.Ordinal = end.seq, end.ordinal
	return c, created, nil
}

func (d *Directory) direct(ctx context.Context, low, high uint64) (id uint64, err error) {
	const query = "SELECT id FROM conversations WHERE low_user = ? AND high_user = ?"
	err = d.db.QueryRowContext(ctx, query, low, high).Scan(&id)
	return id, err
}

// lastEvent reads the end of a conversation's log as "seq ordinal", as "seq" if an
// older server wrote the event, and as an empty text if there is none. It takes one
// backward step in the primary key. MAX, the index that the optimiser prefers, or on
// TiDB another order than the key's would read the whole log. Both numbers are in one text, because a sub-query gives
// one column.
const lastEvent = "COALESCE((SELECT CONCAT_WS(' ', e.seq, e.ordinal) FROM events e FORCE INDEX (PRIMARY)" +
	" WHERE e.conversation_id = c.id ORDER BY e.conversation_id DESC, e.seq DESC LIMIT 1), '')"

// end scans lastEvent.
type end struct{ seq, ordinal uint64 }

// Scan implements sql.Scanner.
func (e *end) Scan(src any) (err error) {
	text, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("the end of a log is %T", src)
	}
	*e = end{}
	if len(text) == 0 {
		return nil
	}
	seq, ordinal, counted := strings.Cut(string(text), " ")
	if e.seq, err = strconv.ParseUint(seq, 10, 64); err != nil || !counted {
		e.ordinal = e.seq
		return err
	}
	e.ordinal, err = strconv.ParseUint(ordinal, 10, 64)
	return err
}

const list = `SELECT c.id, u.id, u.name, ` + lastEvent + `
FROM members m JOIN conversations c ON c.id = m.conversation_id
JOIN users u ON u.id = IF(c.low_user = m.user_id, c.high_user, c.low_user)
WHERE m.user_id = ? AND m.conversation_id > ? ORDER BY m.conversation_id LIMIT ?`

// List returns a page of a user's conversations above an id, and whether there
// are more.
func (d *Directory) List(
	ctx context.Context, user, afterID uint64, limit int,
) (page []*chatv1.Conversation, more bool, err error) {
	rows, err := d.db.QueryContext(ctx, list, user, afterID, limit+1)
	if err != nil {
		return nil, false, away(err)
	}
	defer rows.Close()
	for rows.Next() {
		c := &chatv1.Conversation{Peer: &chatv1.User{}}
		var end end
		if err := rows.Scan(&c.Id, &c.Peer.Id, &c.Peer.Name, &end); err != nil {
			return nil, false, away(err)
		}
		c.Head, c.Ordinal = end.seq, end.ordinal
		page = append(page, c)
	}
	if err := rows.Err(); err != nil {
		return nil, false, away(err)
	}
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

// OwnHeads is Heads for one user, by one query for all who connect at the same time.
func (d *Directory) OwnHeads(ctx context.Context, user uint64) ([]*chatv1.Head, error) {
	return d.own.Ask(ctx, user)
}

// Heads reads the head of every conversation of the users, and the number of their
// own state in it. Conversations with neither are left out.
func (d *Directory) Heads(ctx context.Context, users []uint64) (map[uint64][]*chatv1.Head, error) {
	if len(users) == 0 {
		return nil, nil
	}
	var in strings.Builder
	for i, user := range users {
		if i > 0 {
			in.WriteByte(',')
		}
		in.WriteString(strconv.FormatUint(user, 10))
	}
	query := "SELECT c.user_id, c.id, c.own_state, " + lastEvent + //nolint:gosec // in holds decimal numbers only
		" FROM (SELECT user_id, conversation_id AS id, own_state FROM members WHERE user_id IN (" + in.String() + ")) c"
	rows, err := d.db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	defer rows.Close()
	out := make(map[uint64][]*chatv1.Head, len(users))
	for rows.Next() {
		var user uint64
		var end end
		h := &chatv1.Head{}
		if err := rows.Scan(&user, &h.ConversationId, &h.OwnState, &end); err != nil {
			return nil, fmt.Errorf("read heads: %w", err)
		}
		h.Seq, h.Ordinal = end.seq, end.ordinal
		if planted.Has(planted.StateNotTold) {
			h.OwnState = 0
		}
		if h.GetSeq() > 0 || h.GetOwnState() > 0 {
			out[user] = append(out[user], h)
		}
	}
	return out, rows.Err()
}
