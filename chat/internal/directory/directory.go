// Package directory knows the conversations and who takes part in them.
package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/batch"
)

// maxCached bounds the remembered memberships; beyond it all are dropped, and
// reading one again costs a key look-up.
const maxCached = 100_000

// When many users come in at once, so many read their heads by one statement,
// which may take that long.
const (
	maxTogether = 200
	headsLimit  = 5 * time.Second
)

// Directory reads and creates conversations. Its methods may be called from any
// goroutine and block on the database.
type Directory struct {
	db *sql.DB
	// own asks for the heads of users who come in.
	own *batch.Batcher[uint64, []*chatv1.Head]

	mu sync.RWMutex // owns members
	// members of a direct conversation never change, so they can be remembered.
	members map[uint64][]uint64
}

// New returns a directory on a database.
func New(db *sql.DB) *Directory {
	d := &Directory{db: db, members: make(map[uint64][]uint64)}
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

// Known is Members without asking the database: nil for a conversation that is
// not remembered.
func (d *Directory) Known(id uint64) []uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.members[id]
}

// Members returns who takes part in a conversation; CodeNotFound for one that
// does not exist. The slice must not be changed.
func (d *Directory) Members(ctx context.Context, id uint64) ([]uint64, error) {
	if known := d.Known(id); known != nil {
		return known, nil
	}
	var low, high uint64
	err := d.db.QueryRowContext(ctx, "SELECT low_user, high_user FROM conversations WHERE id = ? AND kind = ?", id, conversation.KindDirect).Scan(&low, &high)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errNoConversation
	}
	if err != nil {
		return nil, away(err)
	}
	d.remember(id, low, high)
	return []uint64{low, high}, nil
}

// errNoConversation is also the answer to those who do not take part, so that
// nobody learns which conversations exist.
var errNoConversation = errs.New(errs.CodeNotFound, "there is no such conversation")

func (d *Directory) remember(conversation, low, high uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.members) >= maxCached {
		clear(d.members)
	}
	d.members[conversation] = []uint64{low, high}
}

// Audience is Members for a user who wants to take part: CodeNotFound when the
// user does not.
func (d *Directory) Audience(ctx context.Context, conversation, user uint64) ([]uint64, error) {
	members, err := d.Members(ctx, conversation)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(members, user) {
		return nil, errNoConversation
	}
	return members, nil
}

// OpenDirect returns the direct conversation of a user with somebody, by name,
// and makes it where there is none; created says so.
func (d *Directory) OpenDirect(ctx context.Context, user uint64, peerName string) (c *chatv1.Conversation, created bool, err error) {
	_, key, err := text.Name(peerName)
	if err != nil {
		return nil, false, err
	}
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
	d.remember(id, low, high)
	c = &chatv1.Conversation{Id: id, Peer: peer}
	err = d.db.QueryRowContext(ctx, "SELECT "+head+" FROM conversations c WHERE c.id = ?", id).Scan(&c.Head)
	if err != nil {
		return nil, false, away(err)
	}
	return c, created, nil
}

func (d *Directory) direct(ctx context.Context, low, high uint64) (id uint64, err error) {
	err = d.db.QueryRowContext(ctx, "SELECT id FROM conversations WHERE low_user = ? AND high_user = ?", low, high).Scan(&id)
	return id, err
}

// head reads a conversation's last number by one backward step in the primary
// key, where MAX, or the index that the optimiser prefers, reads all of it.
const head = "COALESCE((SELECT e.seq FROM events e FORCE INDEX (PRIMARY) WHERE e.conversation_id = c.id ORDER BY e.seq DESC LIMIT 1), 0)"

const list = `SELECT c.id, u.id, u.name, ` + head + `
FROM members m JOIN conversations c ON c.id = m.conversation_id
JOIN users u ON u.id = IF(c.low_user = m.user_id, c.high_user, c.low_user)
WHERE m.user_id = ? AND m.conversation_id > ? ORDER BY m.conversation_id LIMIT ?`

// List returns a page of a user's conversations above an id, and whether there
// are more.
func (d *Directory) List(ctx context.Context, user, afterID uint64, limit int) (page []*chatv1.Conversation, more bool, err error) {
	rows, err := d.db.QueryContext(ctx, list, user, afterID, limit+1)
	if err != nil {
		return nil, false, away(err)
	}
	defer rows.Close()
	for rows.Next() {
		c := &chatv1.Conversation{Peer: &chatv1.User{}}
		if err := rows.Scan(&c.Id, &c.Peer.Id, &c.Peer.Name, &c.Head); err != nil {
			return nil, false, away(err)
		}
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

// OwnHeads is Heads for one user, read together with others who come in.
func (d *Directory) OwnHeads(ctx context.Context, user uint64) ([]*chatv1.Head, error) {
	return d.own.Ask(ctx, user)
}

// Heads reads how far every conversation of the users reaches. Empty
// conversations are left out.
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
	query := "SELECT c.user_id, c.id, " + head + //nolint:gosec // in holds nothing but decimal numbers
		" FROM (SELECT user_id, conversation_id AS id FROM members WHERE user_id IN (" + in.String() + ")) c"
	rows, err := d.db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	defer rows.Close()
	out := make(map[uint64][]*chatv1.Head, len(users))
	for rows.Next() {
		var user uint64
		h := &chatv1.Head{}
		if err := rows.Scan(&user, &h.ConversationId, &h.Seq); err != nil {
			return nil, fmt.Errorf("read heads: %w", err)
		}
		if h.GetSeq() > 0 {
			out[user] = append(out[user], h)
		}
	}
	return out, rows.Err()
}
