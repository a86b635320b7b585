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

// prepare brings the file to the schema, checks whose file it is, and drops what
// nobody needs.
func (s *Store) prepare(ctx context.Context, userID uint64) error {
	if err := s.migrate(ctx); err != nil {
		return err
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
	return change(ctx, s.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE state = ? AND at < ?`,
			store.Acknowledged, time.Now().Add(-store.KeepAcknowledged).UnixMilli())
		if err == nil {
			err = dropEmpty(ctx, tx)
		}
		return err
	})
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

// next returns the next number of a sequence, which begins after first and never
// gives one twice.
func next(ctx context.Context, tx *sql.Tx, sequence string, first uint64) (n uint64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO meta (name, value) VALUES (?1, CAST(?2 AS TEXT))
		ON CONFLICT (name) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)
		RETURNING CAST(value AS INTEGER)`, "next."+sequence, int64(first)+1).Scan(&n)
	return n, err
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
