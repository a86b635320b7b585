// Package account is people's accounts: registration, log-in and log-out.
package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Account is a person's account.
type Account struct {
	ID    uint64
	Name  string
	Email string

	passwordHash string
}

// Store is the accounts in MySQL. Names and addresses are unique by constraint:
// of two requests for the same one, the database picks one.
type Store struct{ db *sql.DB }

// NewStore returns a store on a database that has the schema.
func NewStore(db *sql.DB) *Store { return &Store{db} }

// identity is a name or an address as typed, and its unique key.
type identity struct{ display, key string }

// insert creates an account. A name or an address that is taken is a conflict
// that names the field.
func (s *Store) insert(ctx context.Context, name, email identity, passwordHash string) (Account, error) {
	look := text.Look(name.display)
	res, err := s.db.ExecContext(ctx,
		"INSERT INTO users (name, name_key, name_look, email, email_key, password_hash, created_at)"+
			" VALUES (?, ?, ?, ?, ?, ?, ?)",
		name.display, name.key, look[:], email.display, email.key, passwordHash, time.Now().UnixMilli())
	if database.IsDuplicate(err) {
		switch duplicateKey(err) {
		case "uk_users_email":
			return Account{}, errs.Wrap(errs.CodeConflict, err,
				"this address has an account already; log in instead").In("email")
		case "uk_users_look":
			return Account{}, errs.Wrap(errs.CodeConflict, err,
				"this name looks like one that is taken; choose another").In("name")
		}
		return Account{}, errs.Wrap(errs.CodeConflict, err, "this name is taken; choose another").In("name")
	}
	if err != nil {
		return Account{}, outage(fmt.Errorf("insert user: %w", err))
	}
	id, err := res.LastInsertId()
	if err != nil {
		return Account{}, fmt.Errorf("insert user: %w", err)
	}
	return Account{ID: uint64(id), Name: name.display, Email: email.display, passwordHash: passwordHash}, nil
}

// duplicateKey reads the key's name from "Duplicate entry 'VALUE' for key
// 'TABLE.KEY'"; MariaDB omits the table. VALUE is a user's text and may look like
// anything, so the end of the message counts.
func duplicateKey(err error) string {
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		return ""
	}
	quoted := strings.TrimSuffix(e.Message, "'")
	name := quoted[strings.LastIndexByte(quoted, '\'')+1:]
	return name[strings.LastIndexByte(name, '.')+1:]
}

const columns = "SELECT id, name, email, password_hash FROM users WHERE "

// ByID returns the account, or not_found.
func (s *Store) ByID(ctx context.Context, id uint64) (Account, error) {
	return s.one(ctx, columns+"id = ?", id)
}

func (s *Store) byName(ctx context.Context, key string) (Account, error) {
	return s.one(ctx, columns+"name_key = ?", []byte(key))
}

func (s *Store) byEmail(ctx context.Context, key string) (Account, error) {
	return s.one(ctx, columns+"email_key = ?", []byte(key))
}

func (s *Store) one(ctx context.Context, query string, arg any) (Account, error) {
	var a Account
	err := s.db.QueryRowContext(ctx, query, arg).Scan(&a.ID, &a.Name, &a.Email, &a.passwordHash)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Account{}, errs.Wrap(errs.CodeNotFound, err, "there is no such account")
	case err != nil:
		return Account{}, outage(fmt.Errorf("read user: %w", err))
	}
	return a, nil
}

// replaceHash stores a new hash of the same password, unless the password was
// changed in between.
func (s *Store) replaceHash(ctx context.Context, a Account, newHash string) error {
	_, err := s.db.ExecContext(ctx, "UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?",
		newHash, a.ID, a.passwordHash)
	return err
}

// outage turns err into unavailable, unless the database answered: then our
// statement is wrong.
func outage(err error) error {
	if database.Answered(err) && !database.IsContention(err) {
		return err
	}
	return errs.Wrap(errs.CodeUnavailable, err, "accounts cannot be reached at present; try again").Retry(time.Second)
}
