package schema_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/testenv"
)

// bare opens a database that has no tables.
func bare(t *testing.T) *sql.DB {
	t.Helper()
	cfg := testenv.MariaDB(t)
	db := testenv.Open(t, cfg)
	mustExec(t, db, "DROP DATABASE "+cfg.Name)
	mustExec(t, db, "CREATE DATABASE "+cfg.Name)
	return testenv.Open(t, cfg)
}

// TestAnOlderAndANewerBinarySideBySide: the newer one waits until its migration
// has run, the older one works before and after, and its migrate job, run again
// when it is reverted to, leaves the newer schema alone.
func TestAnOlderAndANewerBinarySideBySide(t *testing.T) {
	db := bare(t)
	newer, err := schema.All()
	if err != nil {
		t.Fatal(err)
	}
	older := newer[:len(newer)-1]
	if err := schema.Apply(t.Context(), db, older, quiet); err != nil {
		t.Fatal(err)
	}
	openDirect := func(low int) {
		t.Helper()
		const insert = "INSERT INTO conversations (kind, low_user, high_user, created_at) VALUES (1, ?, 99, 1)"
		if _, err := db.ExecContext(t.Context(), insert, low); err != nil {
			t.Errorf("the older binary's insert: %v", err)
		}
	}
	openDirect(1)

	waiting, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("waited"))
	defer cancel()
	if err := schema.WaitFor(waiting, db, len(newer), quiet); !errors.Is(err, schema.ErrTooOld) {
		t.Fatalf("the newer binary did not wait for its schema: %v", err)
	}
	arrived := make(chan error, 1)
	go func() { arrived <- schema.WaitFor(t.Context(), db, len(newer), quiet) }()
	if err := schema.Apply(t.Context(), db, newer, quiet); err != nil {
		t.Fatal(err)
	}
	if err := <-arrived; err != nil {
		t.Errorf("the newer binary waits although the migration has run: %v", err)
	}

	// Both at work on the expanded schema.
	if err := schema.Check(t.Context(), db, len(older)); err != nil {
		t.Errorf("the older binary does not take the newer schema: %v", err)
	}
	openDirect(2)
	if _, err := db.ExecContext(t.Context(), "UPDATE conversations SET first_seq = 7 WHERE low_user = 1"); err != nil {
		t.Fatal(err)
	}

	// Reverted: the older migrate job runs and removes nothing.
	if err := schema.Apply(t.Context(), db, older, quiet); err != nil {
		t.Fatal(err)
	}
	var first sql.NullInt64
	row := db.QueryRowContext(t.Context(), "SELECT first_seq FROM conversations WHERE low_user = 1")
	if err := row.Scan(&first); err != nil || first.Int64 != 7 {
		t.Errorf("first_seq %v after the revert, %v", first, err)
	}
	if err := schema.Check(t.Context(), db, len(newer)); err != nil {
		t.Errorf("the revert lowered the schema's version: %v", err)
	}
}

// A migrator that died between a statement and its record runs the statement
// again.
func TestAnAddedColumnIsNotAddedTwice(t *testing.T) {
	db := bare(t)
	all, err := schema.All()
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Apply(t.Context(), db, all, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "DELETE FROM schema_version WHERE version = ?", len(all)); err != nil {
		t.Fatal(err)
	}
	if err := schema.Apply(t.Context(), db, all, quiet); err != nil {
		t.Errorf("run again: %v", err)
	}
}
