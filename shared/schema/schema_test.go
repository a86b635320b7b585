package schema_test

import (
	"database/sql"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/testenv"
)

var quiet = slog.New(slog.DiscardHandler)

func TestMigrationsMayRunAgainAndAtOnce(t *testing.T) {
	cfg := testenv.MariaDB(t)
	db := testenv.Open(t, cfg)
	mustExec(t, db, `INSERT INTO users (name, name_key, email, email_key, password_hash, created_at)
		VALUES ('a', 'a', 'a', 'a', 'a', 1)`)
	mustExec(t, db, "DELETE FROM schema_version WHERE version > 2") // as if it had died part-way
	if err := schema.Check(t.Context(), db, schema.Latest()); !errors.Is(err, schema.ErrTooOld) {
		t.Errorf("an old schema: got %v, want ErrTooOld", err)
	}
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { return schema.Migrate(t.Context(), db, quiet) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := schema.WaitFor(t.Context(), db, schema.Latest(), quiet); err != nil {
		t.Fatal(err)
	}
	var users int
	if err := db.QueryRow("SELECT COUNT(*) FROM users").Scan(&users); err != nil || users != 1 {
		t.Errorf("%d users after migrating again, want 1 (%v)", users, err)
	}
	if epoch, err := schema.Epoch(t.Context(), db); err != nil || epoch == 0 {
		t.Errorf("epoch %d, %v", epoch, err)
	}
}

func TestEachMigrationIsOneStatement(t *testing.T) {
	all, err := schema.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		again := regexp.MustCompile(`IF NOT EXISTS|IGNORE|(?m)^ALTER TABLE \w+ ADD (COLUMN|KEY|UNIQUE KEY) `)
		if strings.Contains(m.Statement, ";\n") || !again.MatchString(m.Statement) {
			t.Errorf("migration %d %s is not one statement that may run again", m.Version, m.Name)
		}
	}
}

// An older binary works on a newer schema, so migrations only add.
func TestMigrationsOnlyExpand(t *testing.T) {
	all, err := schema.All()
	if err != nil {
		t.Fatal(err)
	}
	shrinks := regexp.MustCompile(`(?i)\b(DROP|RENAME|MODIFY|CHANGE|TRUNCATE|DELETE)\b`)
	comment := regexp.MustCompile(`--.*`)
	for _, m := range all {
		statement := comment.ReplaceAllString(m.Statement, "")
		if found := shrinks.FindString(statement); found != "" {
			t.Errorf("migration %d %s has %s", m.Version, m.Name, found)
		}
		// A column without a default would make the older binary's inserts fail.
		if strings.Contains(statement, "ADD COLUMN") &&
			(strings.Contains(statement, "NOT NULL") && !strings.Contains(statement, "DEFAULT")) {
			t.Errorf("migration %d %s adds a column that the older binary cannot leave out", m.Version, m.Name)
		}
	}
}

func TestAServerThatIsNotDurableIsRefused(t *testing.T) {
	s := testenv.StartMariaDB(t)
	db := testenv.Open(t, s.Database(t))
	if err := database.CheckDurability(t.Context(), db); err != nil {
		t.Fatalf("the safe settings were refused: %v", err)
	}
	mustExec(t, db, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
	if err := database.CheckDurability(t.Context(), db); err == nil ||
		!strings.Contains(err.Error(), "innodb_flush_log_at_trx_commit=2") {
		t.Errorf("got %v, want a refusal that names the setting", err)
	}
}

func mustExec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}
