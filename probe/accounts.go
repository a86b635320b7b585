package probe

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/session"
)

// perSide is how many accounts are on each side: perSide² conversations, so that
// with a handful of servers each owns some.
const perSide = 4

// tokenLifetime bounds how long a token is good that a dead probe has left.
// One that expires under a running probe is replaced.
const tokenLifetime = 7 * 24 * time.Hour

// accounts are those of one slot, created once and used again at each start.
//
// Their names have colons, which shared/text allows in no name: nobody can
// register one, and nobody can open a conversation with one, since that takes a
// name. There is no password (an empty column is what no password matches) and
// no mail can go to their addresses (RFC 2606).
type accounts struct {
	db       *sql.DB
	sessions *session.Store
	device   string

	// near connect to the probe's chat server, far to one of the fleet after the
	// other.
	near, far [perSide]*account
	// conversations[i][j] is that of near[i] with far[j].
	conversations [perSide][perSide]uint64
}

// account is one user. In a round its token belongs to its participant.
type account struct {
	id    uint64
	name  string
	token []byte
}

// openAccounts creates what of a slot does not exist yet, and logs all in.
func openAccounts(ctx context.Context, db *sql.DB, slot int, instance string) (*accounts, error) {
	a := &accounts{
		db: db, device: "probe " + instance,
		// Without Redis: a token is created once and verified by the chat servers.
		sessions: session.NewStore(db, nil, session.WithLifetime(tokenLifetime)),
	}
	for i := range perSide {
		// The names are those of the first release: its accounts are used again.
		for name, side := range map[string]*[perSide]*account{"here": &a.near, "there": &a.far} {
			opened, err := a.open(ctx, fmt.Sprintf("probe:%d:%s:%d", slot, name, i))
			if err != nil {
				return nil, err
			}
			side[i] = opened
		}
	}
	var pairs []conversation.Pair
	for _, near := range a.near {
		for _, far := range a.far {
			pairs = append(pairs, conversation.Pair{A: near.id, B: far.id})
		}
	}
	ids, err := conversation.Direct(ctx, db, pairs...)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		a.conversations[i/perSide][i%perSide] = ids[i]
	}
	return a, nil
}

func (a *accounts) open(ctx context.Context, name string) (*account, error) {
	address := strings.ReplaceAll(name, ":", "-") + "@probe.invalid"
	now := time.Now().UnixMilli()
	_, err := a.db.ExecContext(ctx,
		"INSERT INTO users (name, name_key, email, email_key, password_hash, created_at)"+
			" VALUES (?, ?, ?, ?, '', ?) ON DUPLICATE KEY UPDATE id = id", name, name, address, address, now)
	if err != nil {
		return nil, err
	}
	one := &account{name: name}
	if err := a.db.QueryRowContext(ctx, "SELECT id FROM users WHERE name_key = ?", name).Scan(&one.id); err != nil {
		return nil, err
	}
	if _, err := a.db.ExecContext(ctx,
		"DELETE FROM sessions WHERE user_id = ? AND expires_at < ?", one.id, now); err != nil {
		return nil, err
	}
	return one, a.logIn(ctx, one)
}

// logIn gives an account a new token.
func (a *accounts) logIn(ctx context.Context, one *account) (err error) {
	one.token, _, err = a.sessions.Create(ctx, one.id, a.device, "")
	return err
}

const (
	// keptEvents is how much of each conversation stays: far more than can be
	// acknowledged and not verified yet, also by another probe of the same slot.
	keptEvents = 1000
	// trimBatch bounds one statement, trimRounds one call.
	trimBatch, trimRounds = 500, 50
)

// trim removes the beginnings of the probe's own conversations, so that a slot's
// part of the log is bounded: 16 conversations of a thousand short messages,
// about 3 MB. first_seq says where a log begins, for programs that compare it
// with 1, 2, 3 ….
func (a *accounts) trim(ctx context.Context) error {
	for i := range a.conversations {
		for _, id := range a.conversations[i] {
			if err := a.trimOne(ctx, id); err != nil {
				return fmt.Errorf("trim conversation %d: %w", id, err)
			}
		}
	}
	return nil
}

func (a *accounts) trimOne(ctx context.Context, id uint64) error {
	var head uint64
	err := a.db.QueryRowContext(ctx,
		"SELECT COALESCE(MAX(seq), 0) FROM events FORCE INDEX (PRIMARY) WHERE conversation_id = ?", id).Scan(&head)
	if err != nil || head <= keptEvents {
		return err
	}
	first := head - keptEvents
	const statement = "UPDATE conversations SET first_seq = GREATEST(COALESCE(first_seq, 1), ?) WHERE id = ?"
	if _, err := a.db.ExecContext(ctx, statement, first, id); err != nil {
		return err
	}
	for range trimRounds {
		done, err := a.db.ExecContext(ctx,
			"DELETE FROM events WHERE conversation_id = ? AND seq < ? ORDER BY seq LIMIT ?", id, first, trimBatch)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n < trimBatch {
			return err
		}
	}
	return nil
}

// firstSeq is where a conversation's log begins.
func (a *accounts) firstSeq(ctx context.Context, id uint64) (uint64, error) {
	var first sql.NullInt64
	err := a.db.QueryRowContext(ctx, "SELECT first_seq FROM conversations WHERE id = ?", id).Scan(&first)
	if err != nil {
		return 0, fmt.Errorf("read where conversation %d begins: %w", id, err)
	}
	return uint64(max(first.Int64, 1)), nil
}
