// Package sqlite keeps a client's data in an SQLite file that all processes of
// one profile share.
//
// Writers exclude each other by SQLite's own lock and wait up to busyTimeout.
// Who sends is settled by a lock on a second file beside it (flock), which the
// system frees when its holder dies.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	_ "modernc.org/sqlite" // the driver named "sqlite"

	"github.com/msrchat/msrchat/client/store"
)

const (
	// busyTimeout covers fifty processes that each write for a few milliseconds,
	// on a disk that syncs slowly.
	busyTimeout = 15 * time.Second
	// openTimeout bounds the wait for other processes that open the same file.
	openTimeout = 30 * time.Second
)

// Store is a handle on the data of one user. See store.Store.
type Store struct {
	// db has one connection, so that Changed asks the connection that the last
	// read used. Its commits are not synced: what it writes can be had again.
	db *sql.DB
	// accept writes what people typed, synced before it returns.
	accept *sql.DB
	path   string

	mu      sync.Mutex
	version int64        // data_version at the last Changed; under mu
	sender  *flock.Flock // under mu
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the file for a user. A file of another user is refused.
// It waits for other processes that open the file at the same time.
func Open(ctx context.Context, path string, userID uint64) (_ *Store, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// Creating the tables and entering WAL mode need the file alone.
	opening := flock.New(path + ".opening")
	if _, err := opening.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock %s: %w", opening.Path(), err)
	}
	defer func() { err = errors.Join(err, opening.Unlock()) }()

	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{path: path, version: -1, sender: flock.New(path + ".sending")}
	if s.db, err = openDB(path, "normal"); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.accept, err = openDB(path, "full"); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.db.Close())
	}
	if err := s.prepare(ctx, userID); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), s.Close())
	}
	return s, nil
}

func openDB(path, synchronous string) (*sql.DB, error) {
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(" + strconv.FormatInt(busyTimeout.Milliseconds(), 10) + ")",
		"journal_mode(wal)", "synchronous(" + synchronous + ")",
	}}
	file := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// schemaVersion is PRAGMA user_version; 0 is an empty file.
const schemaVersion = 1

var schema = []string{
	`CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID`,
	// AUTOINCREMENT: an order, once given, never comes again, so that whoever
	// reads "after order N" misses nothing.
	`CREATE TABLE IF NOT EXISTS outbox (
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
	`CREATE INDEX IF NOT EXISTS outbox_state ON outbox (state, ord)`,
	// lo and hi are NULL while nothing was fetched.
	`CREATE TABLE IF NOT EXISTS conversations (
		id INTEGER PRIMARY KEY,
		peer_id INTEGER NOT NULL,
		peer TEXT NOT NULL,
		peer_key TEXT NOT NULL,
		lo INTEGER,
		hi INTEGER)`,
	`CREATE INDEX IF NOT EXISTS conversations_peer ON conversations (peer_key)`,
	`CREATE TABLE IF NOT EXISTS events (
		conversation INTEGER NOT NULL,
		seq INTEGER NOT NULL,
		id BLOB NOT NULL,
		sender INTEGER NOT NULL,
		kind INTEGER NOT NULL,
		text TEXT NOT NULL,
		at INTEGER NOT NULL,
		PRIMARY KEY (conversation, seq)) WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS drafts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID`,
}

// prepare brings an empty file to the schema and checks whose file it is.
func (s *Store) prepare(ctx context.Context, userID uint64) error {
	var version int
	if err := s.db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	if version > schemaVersion {
		return fmt.Errorf("written by a newer msrchat (schema %d, this one knows %d): update this program", version, schemaVersion)
	}
	if version < schemaVersion {
		for _, statement := range schema {
			if _, err := s.db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		if _, err := s.db.ExecContext(ctx, `PRAGMA user_version = `+strconv.Itoa(schemaVersion)); err != nil {
			return err
		}
	}
	owner, err := s.Meta(ctx, "user")
	if err != nil {
		return err
	}
	switch want := strconv.FormatUint(userID, 10); owner {
	case want:
	case "":
		if err := s.SetMeta(ctx, "user", want); err != nil {
			return err
		}
	default:
		return fmt.Errorf("belongs to user %s, not %s", owner, want)
	}
	_, err = s.db.ExecContext(ctx, `DELETE FROM outbox WHERE state = ? AND at < ?`,
		store.Acknowledged, time.Now().Add(-store.KeepAcknowledged).UnixMilli())
	return err
}

// Close implements store.Store.
func (s *Store) Close() error {
	return errors.Join(s.Unlock(), s.accept.Close(), s.db.Close())
}

// Shared implements store.Store.
func (s *Store) Shared() bool { return true }

// Changed implements store.Store.
func (s *Store) Changed(ctx context.Context) (bool, error) {
	var version int64
	if err := s.db.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
		return false, fmt.Errorf("watch store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := version != s.version
	s.version = version
	return changed, nil
}

// Meta implements store.Store.
func (s *Store) Meta(ctx context.Context, name string) (string, error) {
	var value string
	err := s.db.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = ?`, name).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return value, nil
}

// SetMeta implements store.Store.
func (s *Store) SetMeta(ctx context.Context, name, value string) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// SetDraft implements store.Drafts.
func (s *Store) SetDraft(ctx context.Context, key, text string) error {
	query, args := `INSERT INTO drafts (key, text) VALUES (?, ?)
		ON CONFLICT (key) DO UPDATE SET text = excluded.text`, []any{key, text}
	if text == "" {
		query, args = `DELETE FROM drafts WHERE key = ?`, []any{key}
	}
	if _, err := s.db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("keep draft: %w", err)
	}
	return nil
}

// Drafts implements store.Drafts.
func (s *Store) Drafts(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	err := each(ctx, s.db, func(rows *sql.Rows) error {
		var key, text string
		if err := rows.Scan(&key, &text); err != nil {
			return err
		}
		out[key] = text
		return nil
	}, `SELECT key, text FROM drafts`)
	if err != nil {
		return nil, fmt.Errorf("read drafts: %w", err)
	}
	return out, nil
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// each calls scan for every row.
func each(ctx context.Context, q querier, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// change runs fn in a transaction that holds the write lock from its start.
func change(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
