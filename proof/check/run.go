// Package check proves what msrChat promises, from what every device saw and
// what the database holds: an acknowledged message is in its log exactly once,
// logs are dense, one device's messages are in the order typed, every device of
// every member was shown every message once, in order, soon after typing stopped,
// and all devices of a person have the same own states.
package check

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
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

// State is a user's own state in a conversation, in MySQL.
type State struct {
	Conversation uint64
	User         uint64
	Number       uint64
	Read         uint64
	Draft        string
}

// Run is everything that a check needs of a run.
type Run struct {
	// Journals are those of all devices that took part; their names differ.
	// Nobody else writes to the conversations or sets anything in them.
	Journals []*journal.Journal
	// Log are the rows of all conversations, States the own states in them, in any
	// order. A member who has set nothing may have none.
	Log    []Row
	States []State
	// Members are the users of each conversation. One that a journal mentions and
	// that is not here counts as one that the device's user is not a member of.
	Members map[uint64][]uint64
	// Quiet is from when on nothing was typed, everything typed was settled, no
	// fault was active and everybody was online. From then on every device has
	// one Heartbeat of connection to show what it lacks, and at the end of its
	// journal lacks nothing: it is closed after that time (Crowd.Quiet of package
	// device waits). A device that left before Quiet may lack the end.
	Quiet     time.Time
	Heartbeat time.Duration
	// Interrupted: the run was ended before it became quiet, and nobody expects
	// completeness. Otherwise a run without Quiet is a violation.
	Interrupted bool
	// Minimum is how many acknowledged messages the run must have; at least one.
	Minimum int
}

// Read returns the run of some journals with what the database has of their
// conversations. The caller sets the rest: Quiet, Heartbeat, Minimum.
func Read(ctx context.Context, db *sql.DB, journals []*journal.Journal) (*Run, error) {
	run := &Run{Journals: journals}
	return run, run.Read(ctx, db, Conversations(journals))
}

// Read reads what the database has of conversations.
func (r *Run) Read(ctx context.Context, db *sql.DB, conversations []uint64) error {
	r.Log, r.States, r.Members = nil, nil, make(map[uint64][]uint64, len(conversations))
	for part := range slices.Chunk(conversations, perStatement) {
		for _, read := range []struct {
			what, query string
			row         func(*sql.Rows) error
		}{{"logs", logQuery, r.readRow}, {"members", membersQuery, r.readMember}} {
			if err := each(ctx, db, fmt.Sprintf(read.query, list(part)), read.row); err != nil {
				return fmt.Errorf("read the %s: %w", read.what, err)
			}
		}
	}
	return nil
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
	return slices.Sorted(maps.Keys(seen))
}

const (
	// perStatement bounds the conversations that one statement asks for.
	perStatement = 500

	logQuery = "SELECT conversation_id, seq, sender_id, client_msg_id, body, created_at FROM events" +
		" WHERE conversation_id IN (%s) ORDER BY conversation_id, seq"
	membersQuery = "SELECT m.conversation_id, m.user_id, m.own_state, m.read_seq, COALESCE(d.body, '') FROM members m" +
		" LEFT JOIN drafts d ON d.user_id = m.user_id AND d.conversation_id = m.conversation_id" +
		" WHERE m.conversation_id IN (%s) ORDER BY m.conversation_id, m.user_id"
)

func (r *Run) readRow(rows *sql.Rows) error {
	var row Row
	var id, body sql.RawBytes
	if err := rows.Scan(&row.Conversation, &row.Seq, &row.Sender, &id, &body, &row.At); err != nil {
		return err
	}
	copy(row.ID[:], id)
	row.Text = journal.Digest(string(body))
	r.Log = append(r.Log, row)
	return nil
}

func (r *Run) readMember(rows *sql.Rows) error {
	var s State
	if err := rows.Scan(&s.Conversation, &s.User, &s.Number, &s.Read, &s.Draft); err != nil {
		return err
	}
	r.Members[s.Conversation] = append(r.Members[s.Conversation], s.User)
	if s != (State{Conversation: s.Conversation, User: s.User}) {
		r.States = append(r.States, s)
	}
	return nil
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
