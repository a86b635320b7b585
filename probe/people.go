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

// side is how many accounts are here and as many there: side² conversations, so
// that with a handful of servers each owns some.
const side = 4

// tokenLifetime bounds how long a token is good that a dead probe left behind.
// One that expires under a living probe is replaced.
const tokenLifetime = 7 * 24 * time.Hour

// people are the accounts of one slot, made once and used again at each start.
//
// Their names have colons, which shared/text allows in no name: nobody can
// register one, and nobody can open a conversation with one, since that takes a
// name. There is no password (an empty column is what no password matches) and
// no mail can go to their addresses (RFC 2606).
type people struct {
	db       *sql.DB
	sessions *session.Store
	device   string

	here, there [side]*person
	// talks are the conversations: talks[i][j] of here[i] with there[j].
	talks [side][side]uint64
}

// person is one account. In a leg its token belongs to its end.
type person struct {
	id    uint64
	name  string
	token []byte
}

// enlist makes what of a slot does not exist yet, and logs everybody in.
func enlist(ctx context.Context, db *sql.DB, slot int, instance string) (*people, error) {
	p := &people{
		db: db, device: "probe " + instance,
		// Without Redis: a token is made once and verified by the chat servers.
		sessions: session.NewStore(db, nil, session.WithLifetime(tokenLifetime)),
	}
	for i := range side {
		for place, at := range map[string]*[side]*person{"here": &p.here, "there": &p.there} {
			made, err := p.account(ctx, fmt.Sprintf("probe:%d:%s:%d", slot, place, i))
			if err != nil {
				return nil, err
			}
			at[i] = made
		}
	}
	var pairs []conversation.Pair
	for _, a := range p.here {
		for _, b := range p.there {
			pairs = append(pairs, conversation.Pair{A: a.id, B: b.id})
		}
	}
	ids, err := conversation.Direct(ctx, db, pairs...)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		p.talks[i/side][i%side] = ids[i]
	}
	return p, nil
}

func (p *people) account(ctx context.Context, name string) (*person, error) {
	address := strings.ReplaceAll(name, ":", "-") + "@probe.invalid"
	now := time.Now().UnixMilli()
	if _, err := p.db.ExecContext(ctx, "INSERT INTO users (name, name_key, email, email_key, password_hash, created_at)"+
		" VALUES (?, ?, ?, ?, '', ?) ON DUPLICATE KEY UPDATE id = id", name, name, address, address, now); err != nil {
		return nil, err
	}
	a := &person{name: name}
	if err := p.db.QueryRowContext(ctx, "SELECT id FROM users WHERE name_key = ?", name).Scan(&a.id); err != nil {
		return nil, err
	}
	if _, err := p.db.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = ? AND expires_at < ?", a.id, now); err != nil {
		return nil, err
	}
	return a, p.logIn(ctx, a)
}

// logIn gives a person a new token.
func (p *people) logIn(ctx context.Context, a *person) (err error) {
	a.token, _, err = p.sessions.Create(ctx, a.id, p.device)
	return err
}

const (
	// keptEvents is how much of each conversation stays: far more than can be
	// acknowledged and not verified yet, also by another probe of the same slot.
	keptEvents = 1000
	// trimBatch bounds one statement, trimRounds one turn.
	trimBatch, trimRounds = 500, 50
)

// trim removes the beginnings of the probe's own conversations, so that a slot's
// share of the log is bounded: 16 conversations of a thousand short messages,
// about 3 MB. first_seq says so, for whoever compares the log with 1, 2, 3 ….
func (p *people) trim(ctx context.Context) error {
	for i := range p.talks {
		for _, talk := range p.talks[i] {
			if err := p.trimOne(ctx, talk); err != nil {
				return fmt.Errorf("trim conversation %d: %w", talk, err)
			}
		}
	}
	return nil
}

func (p *people) trimOne(ctx context.Context, talk uint64) error {
	var head uint64
	err := p.db.QueryRowContext(ctx, "SELECT COALESCE(MAX(seq), 0) FROM events FORCE INDEX (PRIMARY) WHERE conversation_id = ?", talk).Scan(&head)
	if err != nil || head <= keptEvents {
		return err
	}
	first := head - keptEvents
	if _, err := p.db.ExecContext(ctx, "UPDATE conversations SET first_seq = GREATEST(COALESCE(first_seq, 1), ?) WHERE id = ?", first, talk); err != nil {
		return err
	}
	for range trimRounds {
		done, err := p.db.ExecContext(ctx, "DELETE FROM events WHERE conversation_id = ? AND seq < ? ORDER BY seq LIMIT ?", talk, first, trimBatch)
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
func (p *people) firstSeq(ctx context.Context, talk uint64) (uint64, error) {
	var first sql.NullInt64
	if err := p.db.QueryRowContext(ctx, "SELECT first_seq FROM conversations WHERE id = ?", talk).Scan(&first); err != nil {
		return 0, fmt.Errorf("read where conversation %d begins: %w", talk, err)
	}
	return uint64(max(first.Int64, 1)), nil
}
