// Package schema has the tables and migrates a database to them.
//
// A migration is one SQL file with one statement that may be run again. They only
// expand: an older binary works on a newer schema, so going back to it never
// touches the tables. docs/migrations.md has the rules.
package schema

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/retry"
)

//go:embed migrations/*.sql
var files embed.FS

// The lock that keeps two migrators apart, and how long one waits for it. In turns of
// 5 s, because a statement has to end within the pool's read timeout. The name is in
// the text: TiDB takes the lock twice if it is a parameter.
const (
	lock     = "SELECT GET_LOCK('msrchat-migrate', 5)"
	unlock   = "DO RELEASE_LOCK('msrchat-migrate')"
	lockWait = 60
)

// looksFilled is the migration that says that all accounts were updated.
const looksFilled = 14

// Migration is one step.
type Migration struct {
	Version   int
	Name      string
	Statement string
}

// All returns the migrations in order. Their versions are 1, 2, 3 ….
func All() ([]Migration, error) {
	entries, err := files.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	all := make([]Migration, 0, len(entries))
	for i, e := range entries { // ReadDir sorts by name
		number, name, ok := strings.Cut(strings.TrimSuffix(e.Name(), ".sql"), "_")
		version, err := strconv.Atoi(number)
		if !ok || err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: want %04d_NAME.sql", e.Name(), i+1)
		}
		statement, err := files.ReadFile(path.Join("migrations", e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, Migration{version, name, string(statement)})
	}
	return all, nil
}

// Latest is the version that this binary's code needs.
func Latest() int {
	all, err := All()
	if err != nil {
		panic(err) // the files are part of the binary, and a test reads them
	}
	return len(all)
}

const versionTable = `CREATE TABLE IF NOT EXISTS schema_version (
  version INT NOT NULL, name VARCHAR(128) NOT NULL, applied_at BIGINT NOT NULL, PRIMARY KEY (version)
) ENGINE=InnoDB`

// Migrate applies what is missing, one migration at a time, under a lock: of
// several at once one works and the others wait and find nothing to do. If it
// fails part-way, the next run goes on from there.
func Migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	all, err := All()
	if err != nil {
		return err
	}
	if err := apply(ctx, db, all[:looksFilled-1], log); err != nil {
		return err
	}
	if err := UpdateAccounts(ctx, db, log); err != nil {
		return err
	}
	return apply(ctx, db, all, log)
}

// apply does Migrate's work with a list of migrations. A schema that is newer
// than the list stays as it is.
func apply(ctx context.Context, db *sql.DB, all []Migration, log *slog.Logger) (err error) {
	conn, err := db.Conn(ctx) // GET_LOCK belongs to one connection
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var locked sql.NullInt64
	for range lockWait / 5 {
		if err := conn.QueryRowContext(ctx, lock).Scan(&locked); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if locked.Int64 == 1 {
			break
		}
	}
	if locked.Int64 != 1 {
		return fmt.Errorf("another migration has held the lock for %d s; is one hanging?", lockWait)
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), unlock)
		err = errors.Join(err, unlockErr)
	}()
	if _, err := conn.ExecContext(ctx, versionTable); err != nil {
		return fmt.Errorf("create schema_version: %w", err)
	}
	have, err := version(ctx, conn)
	if err != nil {
		return err
	}
	for _, m := range all[min(have, len(all)):] {
		started := time.Now()
		if _, err := conn.ExecContext(ctx, m.Statement); err != nil && !database.AlreadyExists(err) {
			return fmt.Errorf("migration %04d_%s: %w", m.Version, m.Name, err)
		}
		if _, err := conn.ExecContext(ctx,
			"INSERT IGNORE INTO schema_version (version, name, applied_at) VALUES (?, ?, ?)",
			m.Version, m.Name, time.Now().UnixMilli()); err != nil {
			return fmt.Errorf("record migration %d: %w", m.Version, err)
		}
		log.Info("migration applied", "version", m.Version, "name", m.Name, "took", time.Since(started))
	}
	return nil
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func version(ctx context.Context, q queryer) (int, error) {
	var v int
	if err := q.QueryRowContext(ctx, "SELECT COALESCE(MAX(version), 0) FROM schema_version").Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return v, nil
}

// ErrTooOld says that the migrations have not run yet.
var ErrTooOld = errors.New("the database schema is too old: run the migrate job")

// Check returns ErrTooOld if the schema is below the wanted version.
func Check(ctx context.Context, db *sql.DB, want int) error {
	have, err := version(ctx, db)
	if err != nil {
		return err
	}
	if have < want {
		return fmt.Errorf("%w (version %d, want %d)", ErrTooOld, have, want)
	}
	return nil
}

// WaitFor waits until the database answers and has the wanted version, logging
// what it waits for. It returns the context's cause when that ends first.
func WaitFor(ctx context.Context, db *sql.DB, want int, log *slog.Logger) error {
	for {
		err := Check(ctx, db, want)
		if err == nil {
			return nil
		}
		log.Warn("waiting for the database schema", "err", err)
		if !retry.Sleep(ctx, time.Second) {
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
	}
}

// Epoch reads the log epoch, which changes when the logs lost a tail.
func Epoch(ctx context.Context, db *sql.DB) (uint64, error) {
	var v []byte
	if err := db.QueryRowContext(ctx, "SELECT value FROM facts WHERE name = 'log_epoch'").Scan(&v); err != nil {
		return 0, fmt.Errorf("read log epoch: %w", err)
	}
	return strconv.ParseUint(string(v), 10, 64)
}
