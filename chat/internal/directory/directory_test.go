package directory_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"

	"github.com/msrchat/msrchat/chat/internal/directory"
	"github.com/msrchat/msrchat/chat/internal/member"
)

// world is a directory on a real database.
type world struct {
	*directory.Directory
	t  *testing.T
	db *sql.DB
}

func open(t *testing.T) *world {
	t.Helper()
	db := testenv.Open(t, testenv.MariaDB(t))
	return &world{directory.New(db, member.New(db)), t, db}
}

func (w *world) user(name string) uint64 {
	w.t.Helper()
	made, err := w.db.ExecContext(w.t.Context(),
		"INSERT INTO users (name, name_key, email, email_key, password_hash, created_at) VALUES (?, ?, ?, ?, '', 1)",
		name, name, name+"@x", name+"@x")
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := made.LastInsertId()
	if err != nil {
		w.t.Fatal(err)
	}
	return uint64(id)
}

func (w *world) open(user uint64, peer string) uint64 {
	w.t.Helper()
	c, _, err := w.OpenDirect(w.t.Context(), user, peer)
	if err != nil {
		w.t.Fatalf("open with %s: %v", peer, err)
	}
	return c.GetId()
}

// write writes events up to a number.
func (w *world) write(conversation, sender, upTo uint64) {
	w.t.Helper()
	const insert = "INSERT INTO events (conversation_id, seq, sender_id, client_msg_id, kind, body, created_at)" +
		" VALUES (?, ?, ?, ?, 1, 'x', 1)"
	for seq := range upTo {
		id := make([]byte, 16)
		id[0], id[1] = byte(seq+1), byte((seq+1)>>8)
		if _, err := w.db.ExecContext(w.t.Context(), insert, conversation, seq+1, sender, id); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestADirectConversationIsOneForBoth(t *testing.T) {
	w := open(t)
	ann, bob, eve := w.user("ann"), w.user("bob"), w.user("eve")
	c, created, err := w.OpenDirect(t.Context(), ann, "BOB")
	if err != nil || !created || c.GetPeer().GetId() != bob || c.GetPeer().GetName() != "bob" || c.GetHead() != 0 {
		t.Fatalf("got %v, created %v, %v", c, created, err)
	}
	w.write(c.GetId(), ann, 3)
	again, created, err := w.OpenDirect(t.Context(), bob, "ann")
	if err != nil || created || again.GetId() != c.GetId() || again.GetHead() != 3 || again.GetPeer().GetId() != ann {
		t.Errorf("from the other side: %v, created %v, %v", again, created, err)
	}
	fresh := directory.New(w.db, member.New(w.db)) // with nothing cached
	for _, d := range []*directory.Directory{w.Directory, fresh} {
		for _, user := range []uint64{ann, bob} {
			if err := d.Check(t.Context(), c.GetId(), user); err != nil || !d.Knows(c.GetId(), user) {
				t.Errorf("%d is a member: %v", user, err)
			}
		}
		// A conversation of others looks like one that does not exist.
		others, none := d.Check(t.Context(), c.GetId(), eve), d.Check(t.Context(), 1<<40, eve)
		if errs.CodeOf(others) != errs.CodeNotFound || others.Error() != none.Error() {
			t.Errorf("another user gets %v, and %v if it does not exist", others, none)
		}
	}
	for name, want := range map[string]errs.Code{
		"nobody": errs.CodeNotFound,
		"ann":    errs.CodeInvalid,
		"\x00":   errs.CodeInvalid,
		"":       errs.CodeInvalid,
	} {
		if _, _, err := w.OpenDirect(t.Context(), ann, name); errs.CodeOf(err) != want {
			t.Errorf("with %q: %v, want %s", name, err, want)
		}
	}
}

func TestTwoUsersWhoBeginAtOnceGetTheSameConversation(t *testing.T) {
	w := open(t)
	ann, bob := w.user("ann"), w.user("bob")
	const each = 8
	ids := make([]uint64, 2*each)
	var all sync.WaitGroup
	for i := range each {
		for side, begin := range []struct {
			user uint64
			peer string
		}{{ann, "bob"}, {bob, "ann"}} {
			all.Go(func() {
				d := directory.New(w.db, member.New(w.db))
				c, _, err := d.OpenDirect(t.Context(), begin.user, begin.peer)
				if err != nil {
					t.Error(err)
				}
				ids[2*i+side] = c.GetId()
			})
		}
	}
	all.Wait()
	if slices.Min(ids) != slices.Max(ids) {
		t.Errorf("they got %v", ids)
	}
	var rows int
	const count = "SELECT COUNT(*) FROM members WHERE conversation_id = ?"
	if err := w.db.QueryRowContext(t.Context(), count, ids[0]).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d members, %v", rows, err)
	}
}

func TestPagesAndHeads(t *testing.T) {
	w := open(t)
	ann, loner := w.user("ann"), w.user("loner")
	want := map[uint64]uint64{} // head by conversation
	for n := range uint64(7) {
		peer := w.user(fmt.Sprintf("peer%d", n))
		id := w.open(ann, fmt.Sprintf("peer%d", n))
		w.write(id, peer, n)
		want[id] = n
	}
	seen, after := map[uint64]uint64{}, uint64(0)
	for pages := 1; ; pages++ {
		page, more, err := w.List(t.Context(), ann, after, 3)
		if err != nil || len(page) == 0 {
			t.Fatalf("page %d: %d, %v", pages, len(page), err)
		}
		for _, c := range page {
			seen[c.GetId()] = c.GetHead()
			after = c.GetId()
		}
		if !more {
			if pages != 3 {
				t.Errorf("%d pages of 7 by 3", pages)
			}
			break
		}
	}
	if len(seen) != len(want) {
		t.Errorf("listed %v, want %v", seen, want)
	}
	// Two events of one log are not counted, as a later release would write it. An
	// empty conversation has an own state.
	last := slices.Max(slices.Collect(maps.Keys(want)))
	empty := slices.Min(slices.Collect(maps.Keys(want)))
	for _, change := range []string{
		fmt.Sprintf("UPDATE events SET ordinal = 4 WHERE conversation_id = %d AND seq = 6", last),
		fmt.Sprintf("UPDATE members SET own_state = 3 WHERE conversation_id = %d AND user_id = %d", empty, ann),
	} {
		if _, err := w.db.ExecContext(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	heads, err := w.Heads(t.Context(), []uint64{ann, loner})
	if err != nil || len(heads[ann]) != 7 || len(heads[loner]) != 0 {
		t.Fatalf("heads %v, %v", heads, err)
	}
	for _, h := range heads[ann] {
		if h.GetSeq() != want[h.GetConversationId()] || seen[h.GetConversationId()] != h.GetSeq() {
			t.Errorf("the head of conversation %d is %d, want %d",
				h.GetConversationId(), h.GetSeq(), want[h.GetConversationId()])
		}
		ordinal, own := h.GetSeq(), uint64(0)
		switch h.GetConversationId() {
		case last:
			ordinal = 4
		case empty:
			own = 3
		}
		if h.GetOrdinal() != ordinal || h.GetOwnState() != own {
			t.Errorf("conversation %d: %v, want ordinal %d and own state %d", h.GetConversationId(), h, ordinal, own)
		}
	}
	var reading sync.WaitGroup
	for range 50 { // together
		for user, n := range map[uint64]int{ann: 7, loner: 0} {
			reading.Go(func() {
				if own, err := w.OwnHeads(t.Context(), user); err != nil || len(own) != n {
					t.Errorf("own heads %v, %v, want %d", own, err, n)
				}
			})
		}
	}
	reading.Wait()
	if none, err := w.Heads(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("of nobody: %v, %v", none, err)
	}
}

// What is cached is answered without the database. Other errors say when to try
// again.
// The time of the answer shows an outsider nothing: the database is asked also about
// a conversation that is cached.
func TestARefusalTakesTheSameWorkWhetherTheConversationExists(t *testing.T) {
	w := open(t)
	ann, eve := w.user("ann"), w.user("eve")
	w.user("bob")
	cached := w.open(ann, "bob")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, id := range []uint64{cached, cached + 1} {
		if err := w.Check(ended, id, eve); errs.CodeOf(err) != errs.CodeUnavailable {
			t.Errorf("conversation %d without a database: %v", id, err)
		}
		if err := w.Check(t.Context(), id, eve); errs.CodeOf(err) != errs.CodeNotFound {
			t.Errorf("conversation %d: %v", id, err)
		}
	}
}

func TestTheDatabaseIsAway(t *testing.T) {
	w := open(t)
	ann := w.user("ann")
	w.user("bob")
	cached := w.open(ann, "bob")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Check(ended, cached, ann); err != nil {
		t.Errorf("a cached conversation: %v", err)
	}
	checked := w.Check(ended, cached+1, ann)
	_, _, opened := w.OpenDirect(ended, ann, "bob")
	_, _, listed := w.List(ended, ann, 0, 10)
	for what, err := range map[string]error{"check": checked, "open": opened, "list": listed} {
		if e := errs.From(err); e == nil || e.Code != errs.CodeUnavailable || e.RetryAfter != time.Second {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.Heads(ended, []uint64{ann}); err == nil {
		t.Error("heads without a database")
	}
	if _, err := w.OwnHeads(ended, ann); err == nil {
		t.Error("own heads without a database")
	}
}

// Trying names is slowed down, writing to people one knows is not.
func TestTryingNamesIsSlowedDown(t *testing.T) {
	w := open(t)
	ann := w.user("ann")
	w.user("ben")
	for range 300 {
		w.open(ann, "ben")
	}
	tried := 0
	for ; tried < 300; tried++ {
		_, _, err := w.OpenDirect(t.Context(), ann, fmt.Sprint("nobody", tried))
		if errs.CodeOf(err) == errs.CodeRateLimited {
			break
		}
	}
	if tried < 90 || tried > 110 {
		t.Errorf("%d names were tried", tried)
	}
}

// So is beginning conversations: each is a name that was found.
func TestBeginningConversationsIsSlowedDown(t *testing.T) {
	w := open(t)
	ann := w.user("ann")
	for n := range 150 {
		w.user(fmt.Sprint("peer", n))
	}
	begun := 0
	for ; begun < 150; begun++ {
		_, created, err := w.OpenDirect(t.Context(), ann, fmt.Sprint("peer", begun))
		if errs.CodeOf(err) == errs.CodeRateLimited {
			break
		}
		if err != nil || !created {
			t.Fatalf("conversation %d: created %v, %v", begun, created, err)
		}
	}
	if begun < 90 || begun > 110 {
		t.Errorf("%d conversations were begun", begun)
	}
}

// People whose names an earlier release took, and nobody may choose now, are found.
func TestAnOldNameIsFound(t *testing.T) {
	w := open(t)
	ann := w.user("ann")
	const old = "ben\u0301\u0301\u0301" // the same accent again and again on one letter
	if _, _, err := text.Name(old); err == nil {
		t.Fatalf("%q may be chosen: this shows nothing", old)
	}
	_, key, err := text.FindName(old)
	if err != nil {
		t.Fatal(err)
	}
	peer := w.user(old)
	if _, err := w.db.ExecContext(t.Context(), "UPDATE users SET name_key = ? WHERE id = ?", key, peer); err != nil {
		t.Fatal(err)
	}
	c, _, err := w.OpenDirect(t.Context(), ann, old)
	if err != nil || c.GetPeer().GetId() != peer {
		t.Errorf("found %v, %v", c, err)
	}
}
