// Package session issues the tokens that people are logged in with and finds the
// user of a token.
//
// MySQL is the truth: a row for every log-in, with the SHA-256 of its token.
// Redis only remembers answers for some seconds, so that losing it logs nobody
// out. A revocation is a time in the row and replaces the cached answer; a server
// that keeps connections open asks MySQL with Revoked from time to time.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// TokenBytes is the length of a token. 256 random bits cannot be guessed, so
// storing their plain SHA-256 is safe.
const TokenBytes = 32

const (
	// DefaultLifetime is how long a log-in lasts.
	DefaultLifetime = 90 * 24 * time.Hour
	// DefaultCacheTime is how long an answer is remembered, and so how long a
	// revoked token may still be accepted if Redis was away at the revocation.
	DefaultCacheTime = 30 * time.Second
	// MaxDeviceRunes is what the column holds.
	MaxDeviceRunes = 128
)

// NewToken returns a new random token and its hash, which is what is stored.
func NewToken() (token, hash []byte) {
	token = make([]byte, TokenBytes)
	_, _ = rand.Read(token) // never fails: the program would end
	return token, hashOf(token)
}

func hashOf(token []byte) []byte {
	sum := sha256.Sum256(token)
	return sum[:]
}

// Session is one log-in.
type Session struct {
	ID        uint64
	UserID    uint64
	UserName  string
	Device    string
	ExpiresAt time.Time // to the millisecond
}

// Store is safe for concurrent use. It owns neither of the two clients.
type Store struct {
	db       *sql.DB
	cache    *cached
	lifetime time.Duration
	now      func() time.Time
	secret   atomic.Pointer[[]byte] // signs what is remembered; nil until it was read
}

// Option changes a new Store.
type Option func(*Store)

// WithLifetime sets how long new sessions last.
func WithLifetime(d time.Duration) Option { return func(s *Store) { s.lifetime = d } }

// WithCacheTime sets how long answers are remembered, at least one second.
func WithCacheTime(d time.Duration) Option { return func(s *Store) { s.cache.keep = d } }

// WithClock replaces time.Now.
func WithClock(now func() time.Time) Option { return func(s *Store) { s.now = now } }

// NewStore returns a store on a database that has the schema. Without rdb every
// token is looked up in MySQL.
func NewStore(db *sql.DB, rdb redis.UniversalClient, opts ...Option) *Store {
	s := &Store{db: db, cache: newCached(rdb), lifetime: DefaultLifetime, now: time.Now}
	for _, o := range opts {
		o(s)
	}
	return s
}

// Device checks the name of a device, which a client chooses for the machine that
// it runs on. Its errors are invalid and name the field.
func Device(name string) error {
	switch {
	case name == "":
		return errs.New(errs.CodeInvalid, "the device is empty").In("device")
	case !utf8.ValidString(name):
		return errs.New(errs.CodeInvalid, "the device is not valid UTF-8").In("device")
	case utf8.RuneCountInString(name) > MaxDeviceRunes:
		return errs.New(errs.CodeInvalid, "the device is longer than %d characters", MaxDeviceRunes).In("device")
	}
	for _, r := range name {
		if !unicode.IsPrint(r) || !text.Shown(r) { // control characters, bidirectional ones included
			return errs.New(errs.CodeInvalid, "the device has a character that cannot be shown").In("device")
		}
	}
	return nil
}

// Create logs a user in on a device and returns the token, which is stored
// nowhere. network is where the user logs in from, empty if that is unknown; see
// Known. It revokes older sessions of that user on that device. An unknown
// user is not_found, a wrong device name invalid, a database that is away
// unavailable.
func (s *Store) Create(
	ctx context.Context, userID uint64, device, network string,
) (token []byte, _ Session, err error) {
	if err := Device(device); err != nil {
		return nil, Session{}, err
	}
	from, err := s.networkID(ctx, network)
	if err != nil {
		return nil, Session{}, err
	}
	token, hash := NewToken()
	var created Session
	var replaced [][]byte
	// The user's row is locked first, so that log-ins of one user take turns and
	// cannot deadlock. Contention is left with other transactions on that row.
	for range 3 {
		created, replaced, err = s.insert(ctx, userID, device, from, hash)
		if !database.IsContention(err) {
			break
		}
	}
	if err != nil {
		return nil, Session{}, outage(fmt.Errorf("create session of user %d: %w", userID, err))
	}
	s.cache.revoke(ctx, replaced...)
	return token, created, nil
}

func (s *Store) insert(
	ctx context.Context, userID uint64, device string, from, hash []byte,
) (_ Session, replaced [][]byte, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return Session{}, nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	now := s.now()
	made := Session{UserID: userID, Device: device, ExpiresAt: time.UnixMilli(now.Add(s.lifetime).UnixMilli())}
	err = tx.QueryRowContext(ctx, "SELECT name FROM users WHERE id = ? FOR UPDATE", userID).Scan(&made.UserName)
	if errors.Is(err, sql.ErrNoRows) {
		return Session{}, nil, errs.Wrap(errs.CodeNotFound, err, "there is no such user")
	}
	if err != nil {
		return Session{}, nil, err
	}
	const live = " WHERE user_id = ? AND device = ? AND revoked_at IS NULL"
	if replaced, err = hashes(ctx, tx, "SELECT token_hash FROM sessions"+live, userID, device); err != nil {
		return Session{}, nil, err
	}
	if len(replaced) > 0 {
		if _, err := tx.ExecContext(ctx, "UPDATE sessions SET revoked_at = ?"+live,
			now.UnixMilli(), userID, device); err != nil {
			return Session{}, nil, err
		}
	}
	res, err := tx.ExecContext(ctx,
		"INSERT INTO sessions (token_hash, user_id, device, network, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
		hash, userID, device, from, now.UnixMilli(), made.ExpiresAt.UnixMilli())
	if err != nil {
		return Session{}, nil, err
	}
	id, err := res.LastInsertId()
	if err != nil {
		return Session{}, nil, err
	}
	made.ID = uint64(id)
	return made, replaced, tx.Commit()
}

func hashes(ctx context.Context, tx *sql.Tx, query string, args ...any) (all [][]byte, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h []byte
		if err := rows.Scan(&h); err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, rows.Err()
}

// Verify finds the session of a token. An unknown, expired or revoked one is
// unauthenticated; unavailable means that neither store answered and says nothing
// about the token.
func (s *Store) Verify(ctx context.Context, token []byte) (Session, error) {
	if len(token) != TokenBytes {
		return Session{}, errUnknown
	}
	hash := hashOf(token)
	now := s.now()
	secret, _ := s.key(ctx) // without it nothing is remembered
	remembered, answered := s.cache.get(ctx, secret, hash, now)
	if found := remembered; found != nil {
		if found.ID == 0 {
			return Session{}, errUnknown // a revocation
		}
		if !now.Before(found.ExpiresAt) {
			return Session{}, errExpired
		}
		return *found, nil
	}
	var found Session
	var expires int64
	var revoked sql.NullInt64
	err := s.db.QueryRowContext(ctx,
		"SELECT s.id, s.user_id, u.name, s.device, s.expires_at, s.revoked_at"+
			" FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.token_hash = ?", hash,
	).Scan(&found.ID, &found.UserID, &found.UserName, &found.Device, &expires, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Session{}, errUnknown
	case err != nil:
		return Session{}, outage(fmt.Errorf("verify session: %w", err))
	case revoked.Valid:
		return Session{}, errUnknown
	}
	found.ExpiresAt = time.UnixMilli(expires)
	if !now.Before(found.ExpiresAt) {
		return Session{}, errExpired
	}
	if answered { // do not wait a second time for a Redis that is away
		s.cache.put(ctx, secret, hash, found, now)
	}
	return found, nil
}

// Both say what to do, and do not tell an unknown token from a revoked one.
var (
	errUnknown = errs.New(errs.CodeUnauthenticated, "this session does not exist or has been ended; log in again")
	errExpired = errs.New(errs.CodeUnauthenticated, "this session has expired; log in again")
)

// Revoke ends a session. One that is unknown or already ended is no error.
func (s *Store) Revoke(ctx context.Context, sessionID uint64) error {
	// The time of the first revocation stays.
	_, err := s.db.ExecContext(ctx, "UPDATE sessions SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?",
		s.now().UnixMilli(), sessionID)
	var hash []byte
	if err == nil {
		err = s.db.QueryRowContext(ctx, "SELECT token_hash FROM sessions WHERE id = ?", sessionID).Scan(&hash)
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return outage(fmt.Errorf("revoke session %d: %w", sessionID, err))
	}
	s.cache.revoke(ctx, hash)
	return nil
}

// revokedBatch bounds one statement of Revoked.
const revokedBatch = 500

// Revoked returns those of the ids that are not live sessions: revoked, expired
// or unknown. It asks only MySQL, once for 500 ids.
func (s *Store) Revoked(ctx context.Context, ids []uint64) (gone []uint64, err error) {
	for len(ids) > 0 {
		batch := ids[:min(len(ids), revokedBatch)]
		ids = ids[len(batch):]
		live, err := s.live(ctx, batch)
		if err != nil {
			return nil, outage(fmt.Errorf("check %d sessions: %w", len(batch), err))
		}
		for _, id := range batch {
			if !live[id] {
				gone = append(gone, id)
			}
		}
	}
	return gone, nil
}

func (s *Store) live(ctx context.Context, ids []uint64) (_ map[uint64]bool, err error) {
	query := make([]byte, 0, 128+2*len(ids))
	query = append(query, "SELECT id FROM sessions WHERE revoked_at IS NULL AND expires_at > ? AND id IN (?"...)
	args := make([]any, 0, len(ids)+1)
	args = append(args, s.now().UnixMilli(), ids[0])
	for _, id := range ids[1:] {
		query = append(query, ",?"...)
		args = append(args, id)
	}
	rows, err := s.db.QueryContext(ctx, string(append(query, ')')), args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	live := make(map[uint64]bool, len(ids))
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		live[id] = true
	}
	return live, rows.Err()
}

// outage turns a foreign error into unavailable, unless the database answered it:
// then our statement is wrong.
func outage(err error) error {
	var domain *errs.Error
	if errors.As(err, &domain) || database.Answered(err) && !database.IsContention(err) {
		return err
	}
	return errs.Wrap(errs.CodeUnavailable, err, "sessions cannot be checked at present; try again").Retry(time.Second)
}

// EncodeToken writes a token for HTTP, in base64url without padding.
func EncodeToken(token []byte) string { return base64.RawURLEncoding.EncodeToString(token) }

// ParseToken reads what EncodeToken wrote. Anything else is unauthenticated.
func ParseToken(s string) ([]byte, error) {
	token, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// Compared as well, because the decoder skips line ends: a token has one
	// form.
	if err != nil || len(token) != TokenBytes || EncodeToken(token) != s {
		return nil, errUnknown
	}
	return token, nil
}
