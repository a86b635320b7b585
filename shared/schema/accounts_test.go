package schema_test

import (
	"bytes"
	"testing"

	"github.com/msrchat/msrchat/shared/schema"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

// Accounts that a release before names were compared by their looks has made.
func TestAccountsOfAnOlderRelease(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	for i, a := range []struct{ name, key, email, emailKey string }{
		{"ann", "ann", "ann@example.org", "ann@example.org"},
		{"аnn", "аnn", "vİctim@example.org", "victim@example.org"}, // looks like the first
		{"an\u3164", "an\u3164", "Jo@Bücher.example", "jo@bücher.example"},
		{"bob", "bob", "jo@xn--bcher-kva.example", "jo@xn--bcher-kva.example"}, // the mailbox of the one before
		{"kim", "kim", "\u212aim@b.c", "kim@b.c"},                              // the Kelvin sign: another mailbox
	} {
		const insert = "INSERT INTO users (id, name, name_key, email, email_key, password_hash, created_at)" +
			" VALUES (?, ?, ?, ?, ?, '', 1)"
		if _, err := db.ExecContext(t.Context(), insert, i+1, a.name, a.key, a.email, a.emailKey); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // it may be run again
		if err := schema.Migrate(t.Context(), db, quiet); err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			look string // whose look is set
			key  string
		}{
			{"ann", "ann@example.org"},
			{"", "vİctim@example.org"},
			{"an\u3164", "jo@bücher.example"},
			{"bob", "jo@xn--bcher-kva.example"},
			{"kim", "\u212aim@b.c"},
		} {
			var look, key []byte
			row := db.QueryRowContext(t.Context(), "SELECT name_look, email_key FROM users WHERE id = ?", i+1)
			if err := row.Scan(&look, &key); err != nil {
				t.Fatal(err)
			}
			var hash []byte
			if want.look != "" {
				all := text.Look(want.look)
				hash = all[:]
			}
			if !bytes.Equal(look, hash) || string(key) != want.key {
				t.Errorf("account %d: look %x, key %q, want %x, %q", i+1, look, key, hash, want.key)
			}
		}
	}
}
