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

// updateAccounts sets what shared/text derives from names and addresses, where an
// older binary wrote something else. It may be run again and beside others.
func updateAccounts(ctx context.Context, db *sql.DB, log *slog.Logger) error {
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
			for _, a := range page {
				after = a.id
				statement, value, ok := step.set(a)
				if !ok {
					continue
				}
				_, err := db.ExecContext(ctx, statement, value, a.id)
				if database.IsDuplicate(err) {
					// The account stays as it is; the other one keeps what is unique.
					log.Warn("two accounts look the same", "user", a.id, "err", err)
				} else if err != nil {
					return fmt.Errorf("update user %d: %w", a.id, err)
				}
			}
			more = len(page) == accountPage
		}
	}
	return nil
}

func look(a account) (string, []byte, bool) {
	hash := text.Look(a.name)
	return "UPDATE users SET name_look = ? WHERE id = ?", hash[:], true
}

func emailKey(a account) (string, []byte, bool) {
	_, key, err := text.Email(a.email)
	return "UPDATE users SET email_key = ? WHERE id = ?", []byte(key), err == nil && key != a.emailKey
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
