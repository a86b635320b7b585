// Package people are the users of a measurement: accounts made for it, and how
// each of them connects.
package people

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/wire"
)

// People connect as users of the chat servers. Methods may be called from any
// goroutine.
type People struct {
	run      string
	accounts []account.Account
	dialer   *wire.Dialer
	choose   place.Chooser
	// last is the instance that each was on, which is avoided on the way back.
	last []atomic.Pointer[string]
}

// Make makes n accounts, which Remove takes away.
func Make(ctx context.Context, db *sql.DB, n int, dialer *wire.Dialer, choose place.Chooser) (*People, error) {
	p := &People{run: strings.ToLower(rand.Text()[:12]), dialer: dialer, choose: choose, last: make([]atomic.Pointer[string], n)}
	var err error
	if p.accounts, err = account.Make(ctx, db, account.Order{Run: p.run, Count: n}); err != nil {
		return nil, err
	}
	return p, nil
}

// Remove takes away the accounts, and all that they wrote.
func (p *People) Remove(ctx context.Context, db *sql.DB) error {
	_, err := account.Remove(ctx, db, p.run)
	return err
}

// Run is the name under which the accounts were made.
func (p *People) Run() string { return p.run }

// Choose replaces where they go from now on. It is not to be called while
// somebody connects.
func (p *People) Choose(c place.Chooser) { p.choose = c }

// Len is how many they are.
func (p *People) Len() int { return len(p.accounts) }

// Forget lets everybody go anywhere again.
func (p *People) Forget() {
	for i := range p.last {
		p.last[i].Store(nil)
	}
}

// Name is the i-th one's.
func (p *People) Name(i int) string { return p.accounts[i].Name }

// Token is the i-th one's session token.
func (p *People) Token(i int) []byte { return p.accounts[i].Sessions[0].Token }

// Connect connects the i-th one.
func (p *People) Connect(ctx context.Context, i int) (*wire.Conn, error) {
	var avoid []string
	if last := p.last[i].Load(); last != nil {
		avoid = []string{*last}
	}
	at, err := p.choose(ctx, i, p.Token(i), avoid)
	if err != nil {
		return nil, err
	}
	c, err := p.dialer.Dial(ctx, wire.Login{Address: at.Address, Token: p.Token(i), Assignment: at.Assignment})
	if err != nil {
		if at.Instance != "" {
			p.last[i].Store(&at.Instance)
		}
		return nil, fmt.Errorf("connect to %s: %w", at.Address, err)
	}
	p.last[i].Store(&c.Instance)
	return c, nil
}

// Floor are the users of a floor, which knows everybody.
type Floor struct {
	Address string
	Dialer  *wire.Dialer
}

// Name is the i-th one's.
func (Floor) Name(i int) string { return floor.Name(i) }

// Connect connects the i-th one.
func (f Floor) Connect(ctx context.Context, i int) (*wire.Conn, error) {
	return f.Dialer.Dial(ctx, wire.Login{Address: f.Address, Token: floor.Token(i)})
}
