// Package account makes accounts by the thousand for tests and measurements.
//
// It goes past the gate, straight into the database, and so needs what only an
// operator has: the database's password. The gate knows nothing of it. What it
// makes is marked, and opens no hole:
//
//   - the name is bench-RUN-NUMBER, the address ends with @bench.invalid, where no
//     mail can be sent (RFC 2606);
//   - there is no password: its column is empty, which the gate verifies like that
//     of a person who does not exist, so nobody can log in with one;
//   - the tokens are as random as those of a log-in, and only their hashes are
//     stored.
//
// Remove deletes what a run made and wrote, and nothing else.
package account

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/text"
)

const (
	// namePrefix and domain mark the accounts.
	namePrefix = "bench-"
	domain     = "@bench.invalid"
	// noPassword is what the gate's password check takes for a person who does
	// not exist: it is wrong whatever is typed, after the same work.
	noPassword = ""
	// batch is how many rows one statement inserts: 500 rows of 5 values stay far
	// below the limits of a packet (16 MiB) and of a statement's values (65,535).
	batch = 500
	// MaxCount bounds the accounts of one call, MaxDevices the sessions of one.
	MaxCount   = 2_000_000
	MaxDevices = 16
	// lifetime is how long the tokens are good for: longer than the longest soak.
	lifetime = 7 * 24 * time.Hour
)

// Account is one user with sessions.
type Account struct {
	ID   uint64
	Name string
	// Sessions are the log-ins, one for each device.
	Sessions []client.Session
}

// Order says what to make.
type Order struct {
	// Run names what belongs together: 1 to 16 lower-case letters and digits.
	Run string
	// Count is how many accounts, numbered from First on.
	Count, First int
	// Devices is how many sessions each gets; 1 if 0.
	Devices int
}

var runName = regexp.MustCompile(`^[a-z0-9]{1,16}$`)

func (o *Order) check() error {
	if o.Devices == 0 {
		o.Devices = 1
	}
	switch {
	case !runName.MatchString(o.Run):
		return fmt.Errorf("the run %q must be 1 to 16 lower-case letters and digits", o.Run)
	case o.Count < 1 || o.Count > MaxCount || o.First < 0 || o.First > MaxCount:
		return fmt.Errorf("%d accounts from number %d: want 1 to %d of both", o.Count, o.First, MaxCount)
	case o.Devices < 1 || o.Devices > MaxDevices:
		return fmt.Errorf("%d devices: want 1 to %d", o.Devices, MaxDevices)
	}
	return nil
}

// Open opens the database for this package, if it is on this machine or in a
// private network: a database anywhere else would be filled by mistake.
func Open(ctx context.Context, cfg database.Config) (*sql.DB, error) {
	for addr := range strings.SplitSeq(cfg.Addr, ",") {
		if err := local(addr); err != nil {
			return nil, err
		}
	}
	return database.Open(ctx, cfg)
}

func local(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("database address %q: %w", addr, err)
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()) {
		return nil
	}
	return fmt.Errorf("the database %s is neither on this machine nor in a private network (by its IP address):"+
		" test accounts are not made there", addr)
}

// Make makes accounts. Where it fails, some may have been made: Remove
// deletes them.
func Make(ctx context.Context, db *sql.DB, order Order) ([]Account, error) {
	if err := order.check(); err != nil {
		return nil, err
	}
	all := make([]Account, 0, order.Count)
	for len(all) < order.Count {
		from := order.First + len(all)
		some, err := makeSome(ctx, db, order, from, min(batch, order.Count-len(all)))
		if err != nil {
			return nil, fmt.Errorf("make accounts %d and on of run %s: %w", from, order.Run, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// makeSome makes one batch.
func makeSome(ctx context.Context, db *sql.DB, order Order, from, n int) ([]Account, error) {
	accounts := make([]Account, n)
	keys := make([]any, n)
	byKey := make(map[string]*Account, n)
	users := rows{head: "INSERT INTO users (name, name_key, email, email_key, password_hash, created_at) VALUES "}
	now := time.Now()
	for i := range accounts {
		name, key, err := text.Name(namePrefix + order.Run + "-" + strconv.Itoa(from+i))
		if err != nil {
			return nil, err
		}
		email, emailKey, err := text.Email(name + domain)
		if err != nil {
			return nil, err
		}
		users.add(name, key, email, emailKey, noPassword, now.UnixMilli())
		accounts[i].Name, keys[i], byKey[key] = name, []byte(key), &accounts[i]
	}
	if err := users.insert(ctx, db); err != nil {
		return nil, err
	}
	if err := readIDs(ctx, db, keys, byKey); err != nil {
		return nil, err
	}
	return accounts, logIn(ctx, db, accounts, order.Devices, now)
}

// readIDs asks for the ids by name: that a statement's numbers follow each other
// depends on the server's settings.
func readIDs(ctx context.Context, db *sql.DB, keys []any, byKey map[string]*Account) error {
	query := "SELECT id, name_key FROM users WHERE name_key IN (?" + //nolint:gosec // nothing but question marks
		strings.Repeat(",?", len(keys)-1) + ")"
	found, err := db.QueryContext(ctx, query, keys...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var id uint64
		var key string
		if err := found.Scan(&id, &key); err != nil {
			return err
		}
		byKey[key].ID = id
	}
	return found.Err()
}

// logIn gives every account its sessions.
func logIn(ctx context.Context, db *sql.DB, accounts []Account, devices int, now time.Time) error {
	const head = "INSERT INTO sessions (token_hash, user_id, device, created_at, expires_at) VALUES "
	expires := time.UnixMilli(now.Add(lifetime).UnixMilli())
	sessions := rows{head: head}
	for i := range accounts {
		a := &accounts[i]
		for d := range devices {
			token, hash := session.NewToken()
			sessions.add(hash, a.ID, DeviceName(d), now.UnixMilli(), expires.UnixMilli())
			a.Sessions = append(a.Sessions, client.Session{
				Token: token, User: client.User{ID: a.ID, Name: a.Name}, ExpiresAt: expires,
			})
		}
		if sessions.n >= batch || i == len(accounts)-1 {
			if err := sessions.insert(ctx, db); err != nil {
				return err
			}
			sessions = rows{head: head}
		}
	}
	return nil
}

// DeviceName is what the nth device of an account is called, from 0.
func DeviceName(n int) string { return "bench " + strconv.Itoa(n+1) }

// OpenDirect opens the direct conversations of pairs and returns their ids in
// the same order.
func OpenDirect(ctx context.Context, db *sql.DB, pairs []conversation.Pair) ([]uint64, error) {
	ids := make([]uint64, 0, len(pairs))
	for len(pairs) > 0 {
		n := min(len(pairs), conversation.MaxPairs)
		some, err := conversation.Direct(ctx, db, pairs[:n]...)
		if err != nil {
			return nil, err
		}
		ids, pairs = append(ids, some...), pairs[n:]
	}
	return ids, nil
}

// Befriend gives every account of a ring direct conversations with so many neighbours, an
// even number, and each of these one message. It is what a fleet of people who know each
// other looks like when they connect.
func Befriend(ctx context.Context, db *sql.DB, ring []Account, neighbours int) error {
	if neighbours%2 != 0 || neighbours < 0 || neighbours >= len(ring) {
		return fmt.Errorf("%d neighbours of %d: want an even number below", neighbours, len(ring))
	}
	var pairs []conversation.Pair
	for i, a := range ring {
		for n := 1; n <= neighbours/2; n++ {
			b := ring[(i+n)%len(ring)]
			pairs = append(pairs, conversation.Pair{A: a.ID, B: b.ID})
		}
	}
	for some := range slices.Chunk(pairs, batch) {
		ids, err := OpenDirect(ctx, db, some)
		if err != nil {
			return err
		}
		events := rows{head: "INSERT INTO events (conversation_id, seq, ordinal, sender_id, client_msg_id," +
			" kind, body, created_at) VALUES "}
		for i, id := range ids {
			message := uuid.Must(uuid.NewV7())
			events.add(id, 1, 1, some[i].A, message[:], 1, []byte("hello"), time.Now().UnixMilli())
		}
		if err := events.insert(ctx, db); err != nil {
			return fmt.Errorf("write to neighbours: %w", err)
		}
	}
	return nil
}

// MakePairs makes accounts and opens the direct conversation of the first with
// the second, the third with the fourth, and so on.
func MakePairs(ctx context.Context, db *sql.DB, order Order) ([]Account, map[uint64]conversation.Pair, error) {
	people, err := Make(ctx, db, order)
	if err != nil {
		return nil, nil, err
	}
	pairs := make([]conversation.Pair, 0, len(people)/2)
	for two := range slices.Chunk(people, 2) {
		if len(two) == 2 {
			pairs = append(pairs, conversation.Pair{A: two[0].ID, B: two[1].ID})
		}
	}
	ids, err := OpenDirect(ctx, db, pairs)
	if err != nil {
		return nil, nil, err
	}
	conversations := make(map[uint64]conversation.Pair, len(ids))
	for i, id := range ids {
		conversations[id] = pairs[i]
	}
	return people, conversations, nil
}

// rows is a multi-row INSERT that is being put together.
type rows struct {
	head string
	n    int
	args []any
}

func (r *rows) add(values ...any) {
	r.n++
	r.args = append(r.args, values...)
}

func (r *rows) insert(ctx context.Context, db *sql.DB) error {
	row := ",(?" + strings.Repeat(",?", len(r.args)/r.n-1) + ")"
	_, err := db.ExecContext(ctx, r.head+strings.Repeat(row, r.n)[1:], r.args...)
	return err
}
