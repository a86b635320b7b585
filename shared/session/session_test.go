package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/testenv"
)

// clock is a time that a test moves; its mutex owns it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.UnixMilli(1_800_000_000_123)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func addUser(t *testing.T, db *sql.DB, name string) uint64 {
	t.Helper()
	res, err := db.ExecContext(t.Context(),
		"INSERT INTO users (name, name_key, email, email_key, password_hash, created_at) VALUES (?, ?, ?, ?, 'x', 1)",
		name, name, name+"@example.org", name+"@example.org")
	if err != nil {
		t.Fatal(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		t.Fatal(err)
	}
	return uint64(id)
}

func create(t *testing.T, s *session.Store, user uint64, device string) ([]byte, session.Session) {
	t.Helper()
	token, made, err := s.Create(t.Context(), user, device, "")
	if err != nil {
		t.Fatal(err)
	}
	return token, made
}

func wantCode(t *testing.T, what string, err error, want errs.Code) {
	t.Helper()
	if got := errs.CodeOf(err); got != want {
		t.Errorf("%s: %v (%s), want %s", what, err, got, want)
	}
}

// TestContract runs the same steps with a Redis that works, one that is emptied
// before every step, one that is dead, and none.
func TestContract(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	redisCfg := testenv.Redis(t)
	rdb := testenv.OpenRedis(t, redisCfg)
	dead := testenv.OpenRedis(t, cache.Config{Addrs: []string{fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))}})
	for _, v := range []struct {
		name  string
		rdb   redis.UniversalClient
		flush bool // before every step
	}{
		{"redis", rdb, false},
		{"redis flushed", rdb, true},
		{"redis dead", dead, false},
		{"no redis", nil, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			user := addUser(t, db, strings.ReplaceAll(v.name, " ", "-"))
			contract(t, db, v.rdb, user, func() {
				if v.flush {
					testenv.EmptyRedis(t, redisCfg)
				}
			})
		})
	}
}

func contract(t *testing.T, db *sql.DB, rdb redis.UniversalClient, user uint64, step func()) {
	t.Helper()
	c := newClock()
	s := session.NewStore(db, rdb, session.WithLifetime(time.Hour), session.WithClock(c.now))
	ctx := t.Context()

	step()
	token, made := create(t, s, user, "laptop 你好")
	if want := c.now().Add(time.Hour); len(token) != session.TokenBytes || made.UserID != user ||
		!made.ExpiresAt.Equal(want) {
		t.Errorf("created %+v with %d token bytes, want it to end at %v", made, len(token), want)
	}
	for range 2 { // the second time from the cache, if there is one
		step()
		got, err := s.Verify(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, got); diff != "" {
			t.Errorf("verify (-created +verified):\n%s", diff)
		}
	}

	// Made-up tokens.
	random := make([]byte, session.TokenBytes)
	_, _ = rand.Read(random)
	for _, bad := range [][]byte{
		nil, {}, token[:31], append(slices.Clone(token), 0), random, bytes.Repeat([]byte{0}, 32),
	} {
		step()
		_, err := s.Verify(ctx, bad)
		wantCode(t, fmt.Sprintf("token of %d bytes", len(bad)), err, errs.CodeUnauthenticated)
	}

	// A new log-in on the same device replaces the old one and no other.
	step()
	phone, onPhone := create(t, s, user, "phone")
	step()
	again, second := create(t, s, user, "laptop 你好")
	step()
	_, err := s.Verify(ctx, token)
	wantCode(t, "replaced token", err, errs.CodeUnauthenticated)
	for _, ok := range [][]byte{phone, again} {
		step()
		if _, err := s.Verify(ctx, ok); err != nil {
			t.Errorf("verify: %v", err)
		}
	}

	// A revocation takes effect at once, although the answer was remembered.
	for range 2 {
		step()
		if err := s.Revoke(ctx, onPhone.ID); err != nil {
			t.Fatal(err)
		}
		step()
		_, err = s.Verify(ctx, phone)
		wantCode(t, "revoked token", err, errs.CodeUnauthenticated)
	}
	if err := s.Revoke(ctx, 1<<60); err != nil {
		t.Errorf("revoke an unknown session: %v", err)
	}

	gone, err := s.Revoked(ctx, []uint64{made.ID, second.ID, 1 << 60, onPhone.ID, second.ID})
	if want := []uint64{made.ID, 1 << 60, onPhone.ID}; err != nil || !slices.Equal(gone, want) {
		t.Errorf("gone %v, %v; want %v", gone, err, want)
	}
	if gone, err := s.Revoked(ctx, nil); err != nil || gone != nil {
		t.Errorf("gone of none: %v, %v", gone, err)
	}

	// A session expires to the millisecond.
	c.move(time.Hour - time.Millisecond)
	step()
	if _, err := s.Verify(ctx, again); err != nil {
		t.Errorf("one millisecond before the end: %v", err)
	}
	c.move(time.Millisecond)
	step()
	_, err = s.Verify(ctx, again)
	wantCode(t, "expired token", err, errs.CodeUnauthenticated)
	if gone, err := s.Revoked(ctx, []uint64{second.ID}); err != nil || len(gone) != 1 {
		t.Errorf("an expired session is live: %v, %v", gone, err)
	}

	_, _, err = s.Create(ctx, 1<<60, "laptop", "")
	wantCode(t, "unknown user", err, errs.CodeNotFound)
	for _, device := range []string{"", "a\x00b", "a\u202eb", "\xff", strings.Repeat("长", 129)} {
		_, _, err := s.Create(ctx, user, device, "")
		wantCode(t, fmt.Sprintf("device %q", device), err, errs.CodeInvalid)
	}
}

// Both stores have only hashes of tokens.
func TestTokensAreNotStored(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	redisCfg := testenv.Redis(t)
	rdb := testenv.OpenRedis(t, redisCfg)
	s := session.NewStore(db, rdb)
	token, _ := create(t, s, addUser(t, db, "ann"), "laptop")
	if _, err := s.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	var stored []byte
	if err := db.QueryRowContext(t.Context(), "SELECT token_hash FROM sessions").Scan(&stored); err != nil ||
		bytes.Equal(stored, token) {
		t.Errorf("the database has the token itself (%v)", err)
	}
	keys := testenv.RedisKeys(t, redisCfg, "*")
	if len(keys) != 1 {
		t.Fatalf("keys %q; want one", keys)
	}
	value, err := rdb.Get(t.Context(), keys[0]).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{keys[0], value} {
		if strings.Contains(at, session.EncodeToken(token)) || strings.Contains(at, string(token)) {
			t.Errorf("Redis has the token itself in %q", at)
		}
	}
	if ttl, err := rdb.TTL(t.Context(), keys[0]).Result(); err != nil || ttl <= 0 || ttl > session.DefaultCacheTime {
		t.Errorf("the key lives for %v (%v), want up to %v", ttl, err, session.DefaultCacheTime)
	}
}

// Who can write to Redis cannot log in: an entry of their own is not signed, and that
// of somebody else's token is signed for that token.
func TestAnEntryOfSomebodyElseLogsNobodyIn(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	redisCfg := testenv.Redis(t)
	rdb := testenv.OpenRedis(t, redisCfg)
	s := session.NewStore(db, rdb)
	ann := addUser(t, db, "ann")
	real, _ := create(t, s, ann, "laptop")
	if _, err := s.Verify(t.Context(), real); err != nil {
		t.Fatal(err)
	}
	keys := testenv.RedisKeys(t, redisCfg, "*")
	if len(keys) != 1 {
		t.Fatalf("keys %q; want one", keys)
	}
	signed, err := rdb.Get(t.Context(), keys[0]).Result()
	if err != nil {
		t.Fatal(err)
	}
	forged := fmt.Sprintf(`{"i":1,"u":%d,"n":"ann","d":"laptop","e":%d}`, ann, time.Now().Add(time.Hour).UnixMilli())
	for what, entry := range map[string]string{"their own entry": forged, "a copied one": signed} {
		token, hash := session.NewToken()
		key := keys[0][:strings.LastIndexByte(keys[0], ':')+1] + base64.RawURLEncoding.EncodeToString(hash)
		if err := rdb.Set(t.Context(), key, entry, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		_, err := s.Verify(t.Context(), token)
		wantCode(t, what, err, errs.CodeUnauthenticated)
	}
	// Another service has the same key.
	if _, err := db.ExecContext(t.Context(), "UPDATE sessions SET expires_at = 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := session.NewStore(db, rdb).Verify(t.Context(), real); err != nil {
		t.Errorf("what one service remembered, verified by another: %v", err)
	}
	// Put back later, it is too old.
	if err := rdb.Set(t.Context(), keys[0], signed, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(2 * session.DefaultCacheTime) }
	_, err = session.NewStore(db, rdb, session.WithClock(later)).Verify(t.Context(), real)
	wantCode(t, "an old entry", err, errs.CodeUnauthenticated)
	// One of a service whose clock is ahead would be young for too long. Clocks may be some
	// seconds apart.
	earlier := func(by time.Duration) session.Option {
		return session.WithClock(func() time.Time { return time.Now().Add(-by) })
	}
	_, err = session.NewStore(db, rdb, earlier(time.Minute)).Verify(t.Context(), real)
	wantCode(t, "an entry of the future", err, errs.CodeUnauthenticated)
	if err := rdb.Set(t.Context(), keys[0], signed, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := session.NewStore(db, rdb, earlier(2*time.Second)).Verify(t.Context(), real); err != nil {
		t.Errorf("an entry of a clock that is two seconds ahead: %v", err)
	}
}

// A Redis that dies, hangs, or comes back with old answers logs nobody out, and
// keeps nobody logged in for longer than the cache time.
func TestRedisGoesAndComesBack(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	server := testenv.StartRedis(t)
	s := session.NewStore(db, testenv.OpenRedis(t, server.Config()), session.WithCacheTime(time.Second))
	user := addUser(t, db, "ann")
	kept, _ := create(t, s, user, "laptop")
	ended, endedSession := create(t, s, user, "phone")
	verify := func(what string, token []byte) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := s.Verify(ctx, token); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	verify("before", kept)
	verify("before", ended)
	server.Kill()
	verify("dead", kept)
	if err := s.Revoke(t.Context(), endedSession.ID); err != nil {
		t.Fatalf("revoke with Redis dead: %v", err)
	}
	_, err := s.Verify(t.Context(), ended)
	wantCode(t, "revoked with Redis dead", err, errs.CodeUnauthenticated)
	server.Start(t) // with its append-only file, and so with the old answer
	verify("back", kept)
	eventually(t, "the old answer is gone", func() bool {
		_, err := s.Verify(t.Context(), ended)
		return errs.CodeOf(err) == errs.CodeUnauthenticated
	})
	server.Signal(t, syscall.SIGSTOP)
	verify("hanging", kept)
	fresh, _ := create(t, s, user, "tablet")
	verify("hanging, new log-in", fresh)
	server.Signal(t, syscall.SIGCONT)
}

// Without the database only remembered sessions can be verified. The rest is
// unavailable, which does not mean "log in again".
func TestTheDatabaseGoes(t *testing.T) {
	server := testenv.StartMariaDB(t)
	db := testenv.Open(t, server.Database(t))
	s := session.NewStore(db, testenv.OpenRedis(t, testenv.Redis(t)))
	user := addUser(t, db, "ann")
	warm, made := create(t, s, user, "laptop")
	cold, _ := create(t, s, user, "phone")
	if _, err := s.Verify(t.Context(), warm); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if _, err := s.Verify(t.Context(), warm); err != nil {
		t.Errorf("remembered session: %v", err)
	}
	_, err := s.Verify(t.Context(), cold)
	wantCode(t, "verify", err, errs.CodeUnavailable)
	_, err = s.Revoked(t.Context(), []uint64{made.ID})
	wantCode(t, "revoked", err, errs.CodeUnavailable)
	wantCode(t, "revoke", s.Revoke(t.Context(), made.ID), errs.CodeUnavailable)
	_, _, err = s.Create(t.Context(), user, "tablet", "")
	wantCode(t, "create", err, errs.CodeUnavailable)
}

// holdPuts is a Redis hook that delays every write of an answer until it is
// released. It stretches the moment between reading the row and writing the
// cache.
type holdPuts struct {
	redis.Hook
	reached, release chan struct{}
}

func (holdPuts) DialHook(next redis.DialHook) redis.DialHook { return next }

func (holdPuts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h holdPuts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.HasPrefix(cmd.Name(), "set") {
			h.reached <- struct{}{}
			<-h.release
		}
		return next(context.WithoutCancel(ctx), cmd)
	}
}

// A Verify that read the row just before a revocation does not cache the old
// answer after it.
func TestAVerifyCannotUndoARevocation(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	redisCfg := testenv.Redis(t)
	hold := holdPuts{reached: make(chan struct{}), release: make(chan struct{})}
	slow := testenv.OpenRedis(t, redisCfg)
	slow.AddHook(hold)
	verifier, revoker := session.NewStore(db, slow), session.NewStore(db, testenv.OpenRedis(t, redisCfg))
	token, made := create(t, revoker, addUser(t, db, "ann"), "laptop")
	verified := make(chan error, 1)
	go func() {
		_, err := verifier.Verify(t.Context(), token)
		verified <- err
	}()
	<-hold.reached
	if err := revoker.Revoke(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	close(hold.release)
	if err := <-verified; err != nil {
		t.Fatalf("the verification that came first: %v", err)
	}
	_, err := revoker.Verify(t.Context(), token)
	wantCode(t, "after the revocation", err, errs.CodeUnauthenticated)
}

func TestTheNameOfADeviceCanBeSeen(t *testing.T) {
	for _, name := range []string{"laptop", "Ann's phone", "电话 2", strings.Repeat("x", session.MaxDeviceRunes)} {
		if err := session.Device(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "a\x1b[2J", "a\u202eb", "a\u200bb", "a\u17b4nn", "a\u3164", "a\u034fb", "a\ufe0f", "a\u2800b", "\xff",
		strings.Repeat("x", session.MaxDeviceRunes+1),
	} {
		wantCode(t, fmt.Sprintf("%.20q", name), session.Device(name), errs.CodeInvalid)
	}
}

func TestLogInsOnOneDeviceAtOnceLeaveOne(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	s := session.NewStore(db, nil)
	user, other := addUser(t, db, "ann"), addUser(t, db, "bob")
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			if _, _, err := s.Create(t.Context(), []uint64{user, other}[i%2], "laptop", ""); err != nil {
				t.Errorf("create: %v", err)
			}
		})
	}
	wg.Wait()
	var live, all int
	err := db.QueryRowContext(t.Context(), "SELECT COUNT(*), COALESCE(SUM(revoked_at IS NULL), 0) FROM sessions").
		Scan(&all, &live)
	if err != nil || all != 24 || live != 2 {
		t.Errorf("%d sessions, %d live (%v); want 24 and 2", all, live, err)
	}
}

func TestRevokedTakesMoreThanOneStatement(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	s := session.NewStore(db, nil)
	_, made := create(t, s, addUser(t, db, "ann"), "laptop")
	ids := make([]uint64, 1701)
	for i := range ids {
		ids[i] = made.ID + uint64(i)
	}
	gone, err := s.Revoked(t.Context(), ids)
	if err != nil || !slices.Equal(gone, ids[1:]) {
		t.Errorf("%d gone, %v; want all but the first", len(gone), err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(session.EncodeToken(make([]byte, session.TokenBytes)))
	f.Add("")
	f.Add(strings.Repeat("A", 44))
	f.Add(strings.Repeat("A", 42) + "B")                            // trailing bits that are not zero
	f.Add(strings.Repeat("0", 31) + "\r" + strings.Repeat("0", 12)) // base64 skips line ends
	f.Fuzz(func(t *testing.T, s string) {
		token, err := session.ParseToken(s)
		if err != nil {
			wantCode(t, "parse", err, errs.CodeUnauthenticated)
			return
		}
		if len(token) != session.TokenBytes || session.EncodeToken(token) != s {
			t.Errorf("%q gave %x, which is written %q", s, token, session.EncodeToken(token))
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("never seen: %s", what)
}
