package account

import (
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

func TestDuplicateKey(t *testing.T) {
	for message, want := range map[string]string{
		"Duplicate entry 'ann' for key 'users.uk_users_name'":                        "uk_users_name",  // MySQL 8.4
		"Duplicate entry 'ann@example.org' for key 'uk_users_email'":                 "uk_users_email", // MariaDB
		"Duplicate entry 'x' for key 'users.uk_users_email' for key 'uk_users_name'": "uk_users_name",
		"": "", "'": "", "Duplicate entry": "Duplicate entry",
	} {
		err := fmt.Errorf("insert: %w", &mysql.MySQLError{Number: 1062, Message: message})
		if got := duplicateKey(err); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
	if got := duplicateKey(fmt.Errorf("not from the database")); got != "" {
		t.Errorf("got %q", got)
	}
}

// The real server's message decides which field is named.
func TestInsertNamesTheFieldThatIsTaken(t *testing.T) {
	s := NewStore(testenv.Open(t, testenv.MariaDB(t)))
	add := func(name, email string) error {
		_, err := s.insert(t.Context(), identity{name, name}, identity{email, email}, "hash")
		return err
	}
	if err := add("ann", "ann@example.org"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, email, field string }{
		{"ann", "other@example.org", "name"},
		{"other", "ann@example.org", "email"},
		{"ann", "ann@example.org", "name"},
		{"other", "ann@example.org", "email"},
		{"аnn", "other@example.org", "name"}, // with a Cyrillic letter
		{"ɑnn", "ann@example.org", "email"},
	} {
		if e := errs.From(add(c.name, c.email)); e == nil || e.Code != errs.CodeConflict || e.Field != c.field {
			t.Errorf("%s %s: %v, want a conflict of %s", c.name, c.email, e, c.field)
		}
	}
	got, err := s.byName(t.Context(), "ann")
	if err != nil || got.Email != "ann@example.org" || got.passwordHash != "hash" {
		t.Errorf("by name: %+v, %v", got, err)
	}
	if _, err := s.byEmail(t.Context(), "nobody@example.org"); errs.CodeOf(err) != errs.CodeNotFound {
		t.Errorf("unknown: %v, want not_found", err)
	}
	// A hash is replaced only if it is still the one that was verified.
	if err := s.replaceHash(t.Context(), got, "newer"); err != nil {
		t.Fatal(err)
	}
	if err := s.replaceHash(t.Context(), got, "stale"); err != nil {
		t.Fatal(err)
	}
	if now, err := s.ByID(t.Context(), got.ID); err != nil || now.passwordHash != "newer" {
		t.Errorf("hash %q, %v; want newer", now.passwordHash, err)
	}
}
