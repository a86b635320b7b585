package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// key returns the secret of all services, which they read from the database. It signs
// what is remembered and hides networks. The error is that of the database.
func (s *Store) key(ctx context.Context) ([]byte, error) {
	if secret := s.secret.Load(); secret != nil {
		return *secret, nil
	}
	fresh, _ := NewToken()
	const write = "INSERT IGNORE INTO facts (name, value) VALUES ('session_key', ?)"
	if _, err := s.db.ExecContext(ctx, write, fresh); err != nil {
		return nil, outage(fmt.Errorf("write the session key: %w", err))
	}
	var secret []byte // the first one that was written, by whichever service
	err := s.db.QueryRowContext(ctx, "SELECT value FROM facts WHERE name = 'session_key'").Scan(&secret)
	switch {
	case err != nil:
		return nil, outage(fmt.Errorf("read the session key: %w", err))
	case len(secret) != len(fresh):
		return nil, fmt.Errorf("the session key has %d bytes, want %d", len(secret), len(fresh))
	}
	s.secret.Store(&secret)
	return secret, nil
}

// networkBytes of a MAC are stored for a network: of the networks that somebody could
// try, one in 2^64 looks like another.
const networkBytes = 8

// networkID is what is stored of a network: who reads the table does not learn where
// people are. Nothing is stored for an empty one.
func (s *Store) networkID(ctx context.Context, network string) ([]byte, error) {
	if network == "" {
		return nil, nil
	}
	key, err := s.key(ctx)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("network\x00" + network))
	return mac.Sum(nil)[:networkBytes], nil
}

// Known says whether there was a log-in of a user from a network within the lifetime
// of a session, one that has ended included. It takes as long for a user who does not
// exist.
func (s *Store) Known(ctx context.Context, userID uint64, network string) (bool, error) {
	from, err := s.networkID(ctx, network)
	if err != nil || from == nil {
		return false, err
	}
	var found bool
	err = s.db.QueryRowContext(ctx,
		"SELECT EXISTS (SELECT 1 FROM sessions WHERE user_id = ? AND network = ? AND created_at > ?)",
		userID, from, s.now().Add(-s.lifetime).UnixMilli()).Scan(&found)
	if err != nil {
		return false, outage(fmt.Errorf("look for earlier log-ins of user %d: %w", userID, err))
	}
	return found, nil
}

// Derive returns 32 secret bytes for a purpose, the same in all services, made from the
// secret that they share. The error is that of the database.
func (s *Store) Derive(ctx context.Context, purpose string) ([32]byte, error) {
	key, err := s.key(ctx)
	if err != nil {
		return [32]byte{}, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("derive\x00" + purpose))
	return [32]byte(mac.Sum(nil)), nil
}
