// Package users are the users of a measurement: accounts made for it, and how
// each of them connects.
package users

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"sync/atomic"

	"github.com/msrchat/msrchat/client"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/proof/account"
)

// program is what servers are told.
const program = "msrchat-bench"

// Users connect to the chat servers. Methods may be called from any goroutine.
type Users struct {
	run      string
	accounts []account.Account
	dialer   *wire.Dialer
	choose   place.Chooser
	// last is the instance that each was on, which is avoided on the way back.
	last []atomic.Pointer[string]
}

// Make makes n accounts, which Remove deletes.
func Make(ctx context.Context, db *sql.DB, n int, dialer *wire.Dialer, choose place.Chooser) (*Users, error) {
	u := &Users{
		run: strings.ToLower(rand.Text()[:12]), dialer: dialer, choose: choose, last: make([]atomic.Pointer[string], n),
	}
	var err error
	if u.accounts, err = account.Make(ctx, db, account.Order{Run: u.run, Count: n}); err != nil {
		return nil, err
	}
	return u, nil
}

// Of returns users who have sessions, whose tokens are given, and nothing else.
func Of(tokens [][]byte, dialer *wire.Dialer, choose place.Chooser) *Users {
	u := &Users{dialer: dialer, choose: choose, last: make([]atomic.Pointer[string], len(tokens))}
	for _, t := range tokens {
		u.accounts = append(u.accounts, account.Account{Sessions: []client.Session{{Token: t}}})
	}
	return u
}

// Befriend gives everybody conversations with so many others.
func (u *Users) Befriend(ctx context.Context, db *sql.DB, others int) error {
	return account.Befriend(ctx, db, u.accounts, others)
}

// Remove deletes the accounts, and all that they wrote.
func (u *Users) Remove(ctx context.Context, db *sql.DB) error {
	_, err := account.Remove(ctx, db, u.run)
	return err
}

// Choose replaces where they go from now on. It is not to be called while
// somebody connects.
func (u *Users) Choose(c place.Chooser) { u.choose = c }

// Len is how many they are.
func (u *Users) Len() int { return len(u.accounts) }

// Forget lets everybody go to any server again.
func (u *Users) Forget() {
	for i := range u.last {
		u.last[i].Store(nil)
	}
}

// Name is the i-th one's.
func (u *Users) Name(i int) string { return u.accounts[i].Name }

// Token is the i-th one's session token.
func (u *Users) Token(i int) []byte { return u.accounts[i].Sessions[0].Token }

// Connect connects the i-th one.
func (u *Users) Connect(ctx context.Context, i int) (*wire.Conn, error) {
	var avoid []string
	if last := u.last[i].Load(); last != nil {
		avoid = []string{*last}
	}
	at, err := u.choose(ctx, i, u.Token(i), avoid)
	if err != nil {
		return nil, err
	}
	c, w, err := u.dialer.Dial(ctx, at.Server, wire.Login{
		Token: u.Token(i), Program: program, Assignment: at.Assignment,
	})
	if err != nil {
		if instance := at.Server.GetInstance(); instance != "" {
			u.last[i].Store(&instance)
		}
		return nil, err
	}
	instance := w.GetInstance()
	u.last[i].Store(&instance)
	return c, nil
}

// Floor are the users of a floor, which has all accounts that there could be.
type Floor struct {
	Address string
	Dialer  *wire.Dialer
}

// Name is the i-th one's.
func (Floor) Name(i int) string { return floor.Name(i) }

// Connect connects the i-th one.
func (f Floor) Connect(ctx context.Context, i int) (*wire.Conn, error) {
	c, _, err := f.Dialer.Dial(ctx, &chatv1.Endpoint{Address: f.Address}, wire.Login{
		Token: floor.Token(i), Program: program,
	})
	return c, err
}
