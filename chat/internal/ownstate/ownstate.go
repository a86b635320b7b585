// Package ownstate stores what users set for themselves in their conversations: how
// far they have read, and the draft of their next message. All devices of a user see
// the same, because each change gives the state a greater number, and the numbers
// are announced beside the heads of the logs.
package ownstate

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/batch"
)

const (
	// maxTogether changes share one transaction, which may take setLimit.
	maxTogether = 100
	setLimit    = 5 * time.Second
	// maxAttempts is how often a transaction is tried that conflicts with another
	// server's locks.
	maxAttempts = 4
	// MaxDraft is the longest draft in bytes: that of the longest text.
	MaxDraft = text.MaxMessageBytes
	// maxPageBytes keeps an answer with drafts well below the bound of a write queue.
	maxPageBytes = 256 << 10
)

// Store reads and writes own states in the database. Its methods may be called
// from any goroutine and wait for the database.
type Store struct {
	db *sql.DB
	// sets writes the changes that come in at the same time with one commit.
	sets *batch.Batcher[change, outcome]
}

// key identifies an own state.
type key struct{ user, conversation uint64 }

// change is a request to change an own state.
type change struct {
	key
	set *chatv1.SetOwnState
}

// outcome is the result of one change: the state afterwards, and whether it differs
// from before. err refuses this change only.
type outcome struct {
	state   *chatv1.OwnState
	changed bool
	err     error
}

// New returns a store on a database.
func New(db *sql.DB) *Store {
	s := &Store{db: db}
	s.sets = batch.New(maxTogether, setLimit, s.setAll)
	return s
}

var (
	errNoConversation = errs.New(errs.CodeNotFound, "there is no such conversation")
	errReadTooFar     = errs.New(errs.CodeInvalid, "the log does not reach that far").In("read_seq")
)

// Set changes a user's own state. It returns the state afterwards and whether it
// changed. A user who is not a member gets CodeNotFound.
func (s *Store) Set(ctx context.Context, user uint64, set *chatv1.SetOwnState) (*chatv1.OwnState, bool, error) {
	if err := text.Draft(set.GetDraft().GetText()); err != nil {
		return nil, false, err
	}
	o, err := s.sets.Ask(ctx, change{key{user, set.GetConversationId()}, set})
	if err != nil {
		return nil, false, away(err)
	}
	return o.state, o.changed, o.err
}

// away turns a database error into one that a client may see.
func away(err error) error {
	return errs.Wrap(errs.CodeUnavailable, err, "the database does not answer").Retry(time.Second)
}

// setAll makes changes in one transaction, and again after a conflict of locks.
func (s *Store) setAll(ctx context.Context, changes []change) ([]outcome, error) {
	for attempt := 1; ; attempt++ {
		out, err := s.transact(ctx, changes)
		if err == nil || !database.IsContention(err) || attempt == maxAttempts {
			return out, err
		}
	}
}

func (s *Store) transact(ctx context.Context, changes []change) ([]outcome, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	rows, err := lock(ctx, tx, changes)
	if err != nil {
		return nil, err
	}
	if err := readDrafts(ctx, tx, rows); err != nil {
		return nil, err
	}
	ordinals, err := readOrdinals(ctx, tx, changes)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	out := make([]outcome, len(changes))
	for i, c := range changes {
		out[i] = apply(rows[c.key], c.set, ordinals, now)
	}
	if err := write(ctx, tx, rows); err != nil {
		return nil, err
	}
	return out, tx.Commit()
}

// row is a member's locked row with the draft. It has joined because the whole row is
// written back.
type row struct {
	key
	joined            int64
	state             chatv1.OwnState
	changed, newDraft bool
}

// place is that of an event in a log.
type place struct{ conversation, seq uint64 }

// apply changes a locked row, which is nil if the user is not a member.
func apply(r *row, set *chatv1.SetOwnState, ordinals map[place]uint64, now int64) outcome {
	if r == nil {
		return outcome{err: errNoConversation}
	}
	changed := false
	if seq := set.GetReadSeq(); seq > r.state.GetReadSeq() {
		ordinal, ok := ordinals[place{r.conversation, seq}]
		if !ok {
			return outcome{err: errReadTooFar}
		}
		r.state.ReadSeq, r.state.ReadOrdinal = seq, ordinal
		changed = true
	}
	if d := set.GetDraft(); d != nil && wins(d, set.GetBaseNumber(), r.state.GetDraft(), now) {
		r.state.Draft = &chatv1.Draft{
			Text:       d.GetText(),
			EditedAtMs: min(d.GetEditedAtMs(), now),
			Number:     r.state.GetNumber() + 1,
		}
		r.newDraft, changed = true, true
	}
	if changed {
		r.state.Number++
		r.changed = true
	}
	return outcome{state: snapshot(&r.state), changed: changed}
}

// wins says whether a draft replaces the present one: its device had seen that one,
// or it was edited later. The same text changes nothing.
func wins(d *chatv1.Draft, base uint64, present *chatv1.Draft, now int64) bool {
	if d.GetText() == present.GetText() {
		return false
	}
	return base >= present.GetNumber() || min(d.GetEditedAtMs(), now) > present.GetEditedAtMs()
}

// Read returns own states of a user in the order asked, as many as fit into an
// answer. A state that was never set has the number 0.
func (s *Store) Read(ctx context.Context, user uint64, conversations []uint64) ([]*chatv1.OwnState, error) {
	found, err := readAll(ctx, s.db, user, conversations)
	if err != nil {
		return nil, away(err)
	}
	out := make([]*chatv1.OwnState, 0, len(conversations))
	size := 0
	for _, id := range conversations {
		state := found[id]
		if state == nil {
			state = &chatv1.OwnState{ConversationId: id}
		}
		if size += len(state.GetDraft().GetText()); size > maxPageBytes && len(out) > 0 {
			break
		}
		out = append(out, state)
	}
	return out, nil
}

func fail(what string, err error) error { return fmt.Errorf("%s own states: %w", what, err) }
