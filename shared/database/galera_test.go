package database_test

import (
	"os"
	"testing"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/shared/database"
)

// A Galera node that has lost the majority answers no statement; connections go to
// another one, which has what was committed before.
func TestAGaleraNodeWithoutAMajorityIsLeft(t *testing.T) {
	if os.Getenv("MSRCHAT_TEST_MYSQL") != "galera" {
		t.Skip("not run: MSRCHAT_TEST_MYSQL is not galera; ./justw engines runs it")
	}
	g := testenv.StartGalera(t)
	db := testenv.Open(t, g.Database(t))
	if got := at(db); got != g.Nodes[0].Addr {
		t.Fatalf("the pool leads to %s, want the first node, %s", got, g.Nodes[0].Addr)
	}
	var syncReads int
	err := db.QueryRowContext(t.Context(), "SELECT @@SESSION.wsrep_sync_wait").Scan(&syncReads)
	if err != nil || syncReads != 1 {
		t.Errorf("wsrep_sync_wait is %d (%v)", syncReads, err)
	}
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	g.Isolate(t, g.Nodes[0], true)
	testenv.Until(t, "the node notices", func() bool {
		_, err := held.ExecContext(t.Context(), "UPDATE facts SET value = '7' WHERE name = 'log_epoch'")
		if err != nil && database.Answered(err) {
			t.Fatalf("its answer is taken as final: %v", err)
		}
		return err != nil
	})
	testenv.Until(t, "the pool leads to the second", func() bool { return at(db) == g.Nodes[1].Addr })
	g.Isolate(t, g.Nodes[0], false)
	testenv.Until(t, "the pool stays there", func() bool { return at(db) == g.Nodes[1].Addr })
}
