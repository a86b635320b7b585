package database_test

import (
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/shared/database"
)

// A client that vanishes in the middle of a transaction (no power, no network)
// does not keep its locks. To the server it is a client that stays silent.
func TestAVanishedClientsLocksEnd(t *testing.T) {
	t.Parallel()
	cfg := testenv.MariaDB(t)
	db, err := database.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE t (id INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // its connection is gone by then
	if _, err := tx.ExecContext(t.Context(), "SELECT id FROM t FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := db.ExecContext(t.Context(), "UPDATE t SET id = 2"); err != nil {
		t.Fatalf("after %v the lock is still held: %v", time.Since(began), err)
	}
}
