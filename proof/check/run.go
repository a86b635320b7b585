// Package check proves what msrChat promises, from what every device saw and
// what the database holds: an acknowledged message is in its log exactly once,
// logs are dense, one device's messages stand in the order typed, and every
// device of every member was shown every message once, in order, soon after
// typing stopped.
package check

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/msrchat/msrchat/proof/journal"
)

// Row is one event of a log in MySQL.
type Row struct {
	Conversation uint64
	Seq          uint64
	Sender       uint64
	ID           [16]byte
	Text         uint64 // journal.Digest of the body
	At           int64  // Unix milliseconds, by the database's writer
}

// Run is everything that is known of a run.
type Run struct {
	// Journals are those of all devices that took part; their names differ.
	// Nobody else writes to the conversations.
	Journals []*journal.Journal
	// Log are the rows of all conversations, in any order.
	Log []Row
	// Members are the users of each conversation. One that a journal mentions and
	// that is not here counts as one that the device has no part in.
	Members map[uint64][]uint64
	// Quiet is from when on nothing was typed, everything typed was settled, no
	// fault was at work and everybody was online. From then on every device has
	// one Heartbeat of connection to show what it lacks, and at the end of its
	// journal lacks nothing: who closes it gives it that time (Crowd.Quiet of
	// package device does). A device that left before Quiet may lack the end.
	Quiet     time.Time
	Heartbeat time.Duration
	// Interrupted: the run was ended before it became quiet, and nobody expects
	// completeness. Without it, a run with no Quiet is at fault.
	Interrupted bool
	// Minimum is how many acknowledged messages the run must have; at least one.
	Minimum int
}

// Read returns the run of some journals with what the database has of their
// conversations. The caller says the rest: Quiet, Heartbeat, Minimum.
func Read(ctx context.Context, db *sql.DB, journals []*journal.Journal) (*Run, error) {
	run := &Run{Journals: journals}
	conversations := Conversations(journals)
	var err error
	if run.Log, err = ReadLog(ctx, db, conversations); err != nil {
		return nil, err
	}
	run.Members, err = ReadMembers(ctx, db, conversations)
	return run, err
}

// Conversations are those that journals mention.
func Conversations(journals []*journal.Journal) []uint64 {
	seen := make(map[uint64]bool)
	for _, j := range journals {
		for e := range j.All() {
			if e.Conversation != 0 {
				seen[e.Conversation] = true
			}
		}
	}
	ids := make([]uint64, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// perStatement bounds the conversations that one statement asks for.
const perStatement = 500

// ReadLog reads the logs of conversations.
func ReadLog(ctx context.Context, db *sql.DB, conversations []uint64) ([]Row, error) {
	var log []Row
	for part := range slices.Chunk(conversations, perStatement) {
		err := each(ctx, db, "SELECT conversation_id, seq, sender_id, client_msg_id, body, created_at FROM events"+
			" WHERE conversation_id IN ("+list(part)+") ORDER BY conversation_id, seq", func(rows *sql.Rows) error {
			var r Row
			var id, body sql.RawBytes
			if err := rows.Scan(&r.Conversation, &r.Seq, &r.Sender, &id, &body, &r.At); err != nil {
				return err
			}
			copy(r.ID[:], id)
			r.Text = journal.Digest(string(body))
			log = append(log, r)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the logs: %w", err)
		}
	}
	return log, nil
}

// ReadMembers reads who takes part in conversations.
func ReadMembers(ctx context.Context, db *sql.DB, conversations []uint64) (map[uint64][]uint64, error) {
	members := make(map[uint64][]uint64, len(conversations))
	for part := range slices.Chunk(conversations, perStatement) {
		err := each(ctx, db, "SELECT conversation_id, user_id FROM members WHERE conversation_id IN ("+list(part)+")"+
			" ORDER BY conversation_id, user_id", func(rows *sql.Rows) error {
			var conversation, user uint64
			if err := rows.Scan(&conversation, &user); err != nil {
				return err
			}
			members[conversation] = append(members[conversation], user)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the members: %w", err)
		}
	}
	return members, nil
}

func each(ctx context.Context, db *sql.DB, query string, row func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// list is "1,2,3": there is nothing to escape in numbers.
func list(ids []uint64) string {
	var b []byte
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, id, 10)
	}
	return string(b)
}
