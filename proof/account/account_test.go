package account_test

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

// count says how many rows each table has.
func count(t *testing.T, db *sql.DB) map[string]int {
	t.Helper()
	n := make(map[string]int)
	for _, table := range []string{"users", "sessions", "conversations", "members", "drafts", "events"} {
		var rows int
		if err := db.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		n[table] = rows
	}
	return n
}

func makePairs(t *testing.T, db *sql.DB, order account.Order) ([]account.Account, map[uint64]conversation.Pair) {
	t.Helper()
	people, conversations, err := account.MakePairs(t.Context(), db, order)
	if err != nil {
		t.Fatal(err)
	}
	return people, conversations
}

func TestTokensAreAccepted(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	// More than one batch of users, and of sessions.
	people, conversations := makePairs(t, db, account.Order{Run: "a1", Count: 1201, Devices: 2})
	if got := count(t, db); got["users"] != 1201 || got["sessions"] != 2402 ||
		got["conversations"] != 600 || got["members"] != 1200 {
		t.Errorf("there are %v", got)
	}
	if len(conversations) != 600 {
		t.Errorf("%d conversations, want 600", len(conversations))
	}
	store := session.NewStore(db, nil)
	seen := make(map[string]bool)
	for i, p := range people {
		if _, _, err := text.Name(p.Name); err != nil || p.ID == 0 || len(p.Sessions) != 2 {
			t.Fatalf("account %d is %v (%v)", i, p, err)
		}
		for d, s := range p.Sessions {
			if seen[string(s.Token)] {
				t.Fatal("two sessions have one token")
			}
			seen[string(s.Token)] = true
			if i%100 != 0 {
				continue // verifying is a query
			}
			got, err := store.Verify(t.Context(), s.Token)
			if err != nil || got.UserID != p.ID || got.UserName != p.Name || got.Device != account.DeviceName(d) {
				t.Errorf("%s's token belongs to %+v (%v)", p.Name, got, err)
			}
		}
	}
}

// Nothing in the database is of use to somebody who wants to log in.
func TestNothingToLogInWith(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	people, _ := makePairs(t, db, account.Order{Run: "a1", Count: 1})
	var hash, email string
	row := db.QueryRow("SELECT password_hash, email FROM users WHERE id = ?", people[0].ID)
	if err := row.Scan(&hash, &email); err != nil {
		t.Fatal(err)
	}
	// The gate takes an empty column for a person who does not exist; that it
	// refuses them is tested with a real gate in e2e.
	if hash != "" || email != "bench-a1-0@bench.invalid" {
		t.Errorf("the password column has %q, the address is %q", hash, email)
	}
	var stored []byte
	if err := db.QueryRow("SELECT token_hash FROM sessions WHERE user_id = ?", people[0].ID).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(stored, people[0].Sessions[0].Token) {
		t.Error("the token itself is stored")
	}
	if _, err := session.NewStore(db, nil).Verify(t.Context(), stored); errs.CodeOf(err) != errs.CodeUnauthenticated {
		t.Errorf("the stored hash as a token: %v", err)
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	// People who only look like test accounts, and a run with a similar name.
	exec(`INSERT INTO users (name, name_key, email, email_key, password_hash, created_at) VALUES
		('bench-a1-x', 'bench-a1-x', 'x@example.org', 'x@example.org', '$argon2id$', 1),
		('bench-a1-y', 'bench-a1-y', 'y@bench.invalid', 'y@bench.invalid', '$argon2id$', 1)`)
	makePairs(t, db, account.Order{Run: "a10", Count: 2})
	before := count(t, db)

	people, conversations := makePairs(t, db, account.Order{Run: "a1", Count: 1004, Devices: 2})
	some, err := account.OpenDirect(t.Context(), db, []conversation.Pair{{A: people[0].ID, B: people[3].ID}})
	if err != nil {
		t.Fatal(err)
	}
	for id := range conversations {
		some = append(some, id)
	}
	for _, id := range some {
		exec("INSERT INTO events (conversation_id, seq, sender_id, client_msg_id, kind, body, created_at)"+
			" VALUES (?, 1, 1, 'a', 1, 'a', 1), (?, 2, 1, 'b', 1, 'b', 1)", id, id)
		exec("INSERT INTO drafts (user_id, conversation_id, body, edited_at, number)"+
			" SELECT user_id, conversation_id, 'x', 1, 1 FROM members WHERE conversation_id = ?", id)
	}
	removed, err := account.Remove(t.Context(), db, "a1")
	want := account.Removed{Users: 1004, Sessions: 2008, Conversations: 503, Events: 1006}
	if err != nil || removed != want {
		t.Errorf("removed %+v (%v), want %+v", removed, err, want)
	}
	after := count(t, db)
	for table, n := range before {
		if after[table] != n {
			t.Errorf("%s had %d rows before and has %d", table, n, after[table])
		}
	}
	_, err = session.NewStore(db, nil).Verify(t.Context(), people[0].Sessions[0].Token)
	if errs.CodeOf(err) != errs.CodeUnauthenticated {
		t.Errorf("a removed account's token: %v", err)
	}
	if removed, err = account.Remove(t.Context(), db, "a1"); err != nil || removed != (account.Removed{}) {
		t.Errorf("removed again: %+v (%v)", removed, err)
	}
	if removed, err = account.RemoveAll(t.Context(), db); err != nil || removed.Users != 2 {
		t.Errorf("removed of all runs: %+v (%v)", removed, err)
	}
	if got := count(t, db); got["users"] != 2 {
		t.Errorf("%d users are left, want the 2 real ones", got["users"])
	}
}

func TestOrdersThatMakeNoSense(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	for _, order := range []account.Order{
		{Run: "", Count: 1},
		{Run: "A", Count: 1},
		{Run: "a-b", Count: 1},
		{Run: "aaaaaaaaaaaaaaaaa", Count: 1},
		{Run: "a", Count: 0},
		{Run: "a", Count: -1},
		{Run: "a", Count: account.MaxCount + 1},
		{Run: "a", Count: 1, Devices: -1},
		{Run: "a", Count: 1, Devices: account.MaxDevices + 1},
		{Run: "a", Count: 1, First: -1},
	} {
		if _, err := account.Make(t.Context(), db, order); err == nil {
			t.Errorf("%+v was accepted", order)
		}
	}
	for _, run := range []string{"", "%", "_", "a-b"} {
		if _, err := account.Remove(t.Context(), db, run); err == nil {
			t.Errorf("removing run %q was accepted", run)
		}
	}
	if _, err := account.Make(t.Context(), db, account.Order{Run: "a", Count: 2}); err != nil {
		t.Fatal(err)
	}
	_, err := account.Make(t.Context(), db, account.Order{Run: "a", Count: 2, First: 1})
	if !database.IsDuplicate(err) {
		t.Errorf("a number that is taken: %v", err)
	}
}

func TestOnlyALocalDatabase(t *testing.T) {
	cfg := testenv.MariaDB(t)
	db, err := account.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	for _, addr := range []string{
		"192.0.2.1:3306", "db.example.org:3306", "[2001:db8::1]:3306", "127.0.0.1", "", cfg.Addr + ",192.0.2.1:3306",
	} {
		cfg.Addr = addr
		if db, err := account.Open(t.Context(), cfg); err == nil {
			db.Close()
			t.Errorf("a database at %q was opened", addr)
		}
	}
}
