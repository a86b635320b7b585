package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// nextMigrations are what some later release may add: to every table a column
// that may be left out and a key. For it, today's binaries are the old ones.
var nextMigrations = []string{
	"ALTER TABLE users ADD COLUMN later_a VARCHAR(64) NULL",
	"ALTER TABLE sessions ADD COLUMN later_b BIGINT NOT NULL DEFAULT 7",
	"ALTER TABLE conversations ADD COLUMN later_c BIGINT NULL",
	"ALTER TABLE members ADD COLUMN later_d BIGINT NULL",
	"ALTER TABLE events ADD COLUMN later_e VARBINARY(16) NULL",
	"ALTER TABLE sessions ADD KEY ix_later (expires_at)",
	"ALTER TABLE events ADD KEY ix_later (created_at)",
	"CREATE TABLE IF NOT EXISTS later (id BIGINT NOT NULL, PRIMARY KEY (id))",
}

// Services keep working while the schema is expanded, and start on one that is
// newer than they are, as when a release is rolled back.
func TestOldServicesOnANewerSchema(t *testing.T) {
	c := cluster.Run(t, cluster.Config{})
	ann, bob := pair(t, c)
	var stop atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			id := ann.Send(t, fmt.Sprint("while the tables change ", n))
			if _, err := ann.Client.Wait(context.Background(), id); err != nil {
				t.Errorf("a send failed visibly: %v", err)
			}
		}
		sent <- n
	}()
	testenv.Until(t, "they talk", func() bool { return bob.Shown() > 0 })
	db := testenv.Open(t, c.Database())
	for i, statement := range nextMigrations {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
		_, err := db.ExecContext(t.Context(),
			"INSERT INTO schema_version (version, name, applied_at) VALUES (?, 'later', 1)", schema.Latest()+1+i)
		if err != nil {
			t.Fatal(err)
		}
	}
	shown := bob.Shown()
	testenv.Until(t, "they talk on the newer schema", func() bool { return bob.Shown() > shown })
	// Rolled back: its migrate finds nothing to do, its servers start.
	if err := schema.Migrate(t.Context(), db, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	c.Chats[0].Stop()
	c.Chats = c.Chats[1:]
	c.AddChat()
	c.Settle()
	c.Register("carol").Connect()
	stop.Store(true)
	cluster.Check(t, <-sent, ann, bob)
	var later int
	row := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sessions WHERE later_b = 7")
	if err := row.Scan(&later); err != nil || later == 0 {
		t.Errorf("the newer schema was touched: %d rows, %v", later, err)
	}
}
