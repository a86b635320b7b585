package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
)

// migrations are numbered from 1: PRAGMA user_version is how many a file has
// behind it. Each runs in one transaction. One that was released never changes,
// and none calls the code of this package, which knows only the newest schema.
var migrations = [][]string{firstSchema, conversationsAreTheKey}

// migrate brings the file to the newest schema.
func (s *Store) migrate(ctx context.Context) error {
	var version int
	if err := s.db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("written by a newer msrchat (schema %d, this one knows %d): update this program",
			version, len(migrations))
	}
	for n := version + 1; n <= len(migrations); n++ {
		err := change(ctx, s.db, func(tx *sql.Tx) error {
			for _, statement := range append(migrations[n-1], `PRAGMA user_version = `+strconv.Itoa(n)) {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("migrate to schema %d: %w", n, err)
		}
	}
	return nil
}

var firstSchema = []string{
	`CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID`,
	// AUTOINCREMENT: an order, once given, never comes again, so that a reader of
	// "after order N" misses nothing.
	`CREATE TABLE outbox (
		ord INTEGER PRIMARY KEY AUTOINCREMENT,
		id BLOB NOT NULL UNIQUE,
		conversation INTEGER NOT NULL,
		peer TEXT NOT NULL,
		peer_key TEXT NOT NULL,
		text TEXT NOT NULL,
		at INTEGER NOT NULL,
		state INTEGER NOT NULL,
		seq INTEGER NOT NULL DEFAULT 0,
		logged_at INTEGER NOT NULL DEFAULT 0,
		existing INTEGER NOT NULL DEFAULT 0,
		code TEXT NOT NULL DEFAULT '',
		reason TEXT NOT NULL DEFAULT '')`,
	`CREATE INDEX outbox_state ON outbox (state, ord)`,
	// lo and hi are NULL while nothing was fetched.
	`CREATE TABLE conversations (
		id INTEGER PRIMARY KEY,
		peer_id INTEGER NOT NULL,
		peer TEXT NOT NULL,
		peer_key TEXT NOT NULL,
		lo INTEGER,
		hi INTEGER)`,
	`CREATE INDEX conversations_peer ON conversations (peer_key)`,
	`CREATE TABLE events (
		conversation INTEGER NOT NULL,
		seq INTEGER NOT NULL,
		id BLOB NOT NULL,
		sender INTEGER NOT NULL,
		kind INTEGER NOT NULL,
		text TEXT NOT NULL,
		at INTEGER NOT NULL,
		PRIMARY KEY (conversation, seq)) WITHOUT ROWID`,
	`CREATE TABLE drafts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID`,
}

// conversationsAreTheKey: what was kept under a person's name belongs to a
// conversation from here on. 4611686018427387903 is store.MaxID.
var conversationsAreTheKey = []string{
	// The events stay where they are, however many there are: the new column is
	// NULL for old ones, all of which counted, and a body of the type TEXT is read
	// as the same bytes.
	`ALTER TABLE events RENAME COLUMN text TO body`,
	`ALTER TABLE events ADD COLUMN ordinal INTEGER`,
	`ALTER TABLE conversations ADD COLUMN head INTEGER NOT NULL DEFAULT 0`,
	`ALTER TABLE conversations ADD COLUMN head_ordinal INTEGER NOT NULL DEFAULT 0`,
	`UPDATE conversations SET head = hi, head_ordinal = hi WHERE hi IS NOT NULL`,
	// See store.OwnState. ord rises with each change.
	`CREATE TABLE own_states (
		conversation INTEGER PRIMARY KEY,
		ord INTEGER NOT NULL DEFAULT 0,
		number INTEGER NOT NULL DEFAULT 0,
		read INTEGER NOT NULL DEFAULT 0,
		read_ordinal INTEGER NOT NULL DEFAULT 0,
		read_told INTEGER NOT NULL DEFAULT 0,
		draft TEXT NOT NULL DEFAULT '',
		draft_edited INTEGER NOT NULL DEFAULT 0,
		draft_unsent INTEGER NOT NULL DEFAULT 0,
		base INTEGER NOT NULL DEFAULT 0,
		edits INTEGER NOT NULL DEFAULT 0)`,
	`CREATE INDEX own_states_ord ON own_states (ord)`,
	// Where what was in a provisional conversation is now; see store.Move.
	`CREATE TABLE moves (
		ord INTEGER PRIMARY KEY,
		provisional INTEGER NOT NULL UNIQUE,
		conversation INTEGER NOT NULL)`,

	// People who were named and have no conversation get a provisional one.
	`INSERT INTO conversations (id, peer_id, peer, peer_key)
		SELECT 4611686018427387903 + ROW_NUMBER() OVER (ORDER BY key), 0, MIN(name), key FROM (
			SELECT peer_key AS key, peer AS name FROM outbox WHERE conversation = 0 AND peer_key <> ''
			UNION ALL SELECT SUBSTR(key, 6), SUBSTR(key, 6) FROM drafts WHERE key GLOB 'chat/[^#]*')
		WHERE key NOT IN (SELECT peer_key FROM conversations) GROUP BY key`,
	`INSERT INTO meta (name, value) SELECT 'next.provisional', CAST(id AS TEXT) FROM conversations
		WHERE id > 4611686018427387903 ORDER BY id DESC LIMIT 1`,
	`ALTER TABLE outbox RENAME COLUMN text TO body`,
	`ALTER TABLE outbox ADD COLUMN kind INTEGER NOT NULL DEFAULT 1`,
	`UPDATE outbox SET conversation = (SELECT MIN(id) FROM conversations c WHERE c.peer_key = outbox.peer_key)
		WHERE conversation = 0 AND peer_key IN (SELECT peer_key FROM conversations WHERE peer_key <> '')`,
	`ALTER TABLE outbox DROP COLUMN peer`,
	`ALTER TABLE outbox DROP COLUMN peer_key`,
	`CREATE INDEX outbox_conversation ON outbox (conversation)`,

	// Drafts become unsent own states. The screen kept them under "chat/" and the
	// key of the other person's name, or "#" and the id. When they were typed is
	// not known, so that the draft of another device counts as the later one.
	`INSERT INTO own_states (conversation, draft, draft_unsent, edits)
		SELECT c.id, GROUP_CONCAT(d.text, CHAR(10)), 1, 1 FROM drafts d JOIN conversations c
		ON d.key = 'chat/' || c.peer_key AND c.peer_key <> '' OR d.key = 'chat/#' || c.id
		WHERE d.text <> '' GROUP BY c.id`,
	`DROP TABLE drafts`,
	// So do read marks, kept under "tui.read/" and the same keys. What the user
	// wrote last, of the newest hundred messages, counted as read, too.
	`INSERT INTO own_states (conversation, read, read_ordinal)
		SELECT id, seq, seq FROM (SELECT c.id, MAX(
			MIN(c.hi, COALESCE((SELECT MAX(CAST(m.value AS INTEGER)) FROM meta m
				WHERE m.name IN ('tui.read/' || c.peer_key, 'tui.read/#' || c.id)), 0)),
			COALESCE((SELECT MAX(seq) FROM
				(SELECT e.seq, e.sender FROM events e WHERE e.conversation = c.id ORDER BY e.seq DESC LIMIT 100)
				WHERE sender = (SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'user')), 0)) AS seq
			FROM conversations c WHERE c.hi IS NOT NULL)
		WHERE seq > 0
		ON CONFLICT (conversation) DO UPDATE SET read = excluded.read, read_ordinal = excluded.read_ordinal`,
	`DELETE FROM meta WHERE name GLOB 'tui.read/*'`,
	`UPDATE own_states SET ord = n FROM (SELECT conversation AS id, ROW_NUMBER() OVER (ORDER BY conversation) AS n
		FROM own_states) WHERE conversation = id`,
	`INSERT INTO meta (name, value) SELECT 'next.change', CAST(ord AS TEXT) FROM own_states ORDER BY ord DESC LIMIT 1`,
}
