package schema

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/text"
)

// accountPage is how many accounts are read at once.
const accountPage = 1000

// The accounts whose look, and whose key of the address, may be of an older rule, a
// page in the order of their ids. Addresses in ASCII have the same key by every rule.
const (
	withoutLook = "SELECT id, name, email, email_key FROM users" +
		" WHERE id > ? AND name_look IS NULL ORDER BY id LIMIT ?"
	beyondASCII = "SELECT id, name, email, email_key FROM users" +
		" WHERE id > ? AND LENGTH(email) <> CHAR_LENGTH(email) ORDER BY id LIMIT ?"
)

// account is a row of users whose derived columns may be those of an older binary.
type account struct {
	id                    uint64
	name, email, emailKey string
}

// UpdateAccounts sets what shared/text derives from names and addresses, where an
// older binary wrote something else. It may be run again and beside others. A gate
// runs it once more when the older gates have gone.
func UpdateAccounts(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	for _, step := range []struct {
		query string
		set   func(account) (statement string, value []byte, ok bool)
	}{
		{withoutLook, look},
		{beyondASCII, emailKey},
	} {
		for after, more := uint64(0), true; more; {
			page, err := accounts(ctx, db, step.query, after)
			if err != nil {
				return err
			}
			if err := updatePage(ctx, db, log, page, step.set); err != nil {
				return err
			}
			if more = len(page) == accountPage; more {
				after = page[accountPage-1].id
			}
		}
	}
	return nil
}

// updatePage updates accounts with one commit.
func updatePage(
	ctx context.Context, db *sql.DB, log *slog.Logger, page []account,
	set func(account) (statement string, value []byte, ok bool),
) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("update users: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	for _, a := range page {
		statement, value, ok := set(a)
		if !ok {
			continue
		}
		_, err := tx.ExecContext(ctx, statement, value, a.id)
		if database.IsDuplicate(err) { // the statement alone is undone
			log.Warn("an account looks like an older one or has the same mailbox; it stays as it is", "user", a.id)
		} else if err != nil {
			return fmt.Errorf("update user %d: %w", a.id, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("update users: %w", err)
	}
	return nil
}

func look(a account) (string, []byte, bool) {
	hash := text.Look(a.name)
	return "UPDATE users SET name_look = ? WHERE id = ?", hash[:], true
}

// emailKey is the key of an address. One that nobody could register any more is its
// own key, so that it keeps nobody else from registering.
func emailKey(a account) (string, []byte, bool) {
	_, key, err := text.Email(a.email)
	if err != nil {
		key = a.email
	}
	return "UPDATE users SET email_key = ? WHERE id = ?", []byte(key), key != a.emailKey
}

// accounts reads a page of users.
func accounts(ctx context.Context, db *sql.DB, query string, after uint64) ([]account, error) {
	rows, err := db.QueryContext(ctx, query, after, accountPage)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer rows.Close()
	var page []account
	for rows.Next() {
		var a account
		if err := rows.Scan(&a.id, &a.name, &a.email, &a.emailKey); err != nil {
			return nil, fmt.Errorf("read users: %w", err)
		}
		page = append(page, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return page, nil
}
