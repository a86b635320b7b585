package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
)

// firstSchema is what the first release made of an empty file, and firstFile what
// user 17 may have left in it: with bob and carol there are conversations; dave and
// Erin were only named.
const (
	firstSchema = `
		CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
		CREATE TABLE IF NOT EXISTS outbox (
			ord INTEGER PRIMARY KEY AUTOINCREMENT,
			id BLOB NOT NULL UNIQUE,
			conversation INTEGER NOT NULL,
			peer TEXT NOT NULL,
			peer_key TEXT NOT NULL,
			text TEXT NOT NULL,
			at INTEGER NOT NULL,
			state INTEGER NOT NULL,
			seq INTEGER NOT NULL DEFAULT 0,
			logged_at INTEGER NOT NULL DEFAULT 0,
			existing INTEGER NOT NULL DEFAULT 0,
			code TEXT NOT NULL DEFAULT '',
			reason TEXT NOT NULL DEFAULT '');
		CREATE INDEX IF NOT EXISTS outbox_state ON outbox (state, ord);
		CREATE TABLE IF NOT EXISTS conversations (
			id INTEGER PRIMARY KEY,
			peer_id INTEGER NOT NULL,
			peer TEXT NOT NULL,
			peer_key TEXT NOT NULL,
			lo INTEGER,
			hi INTEGER);
		CREATE INDEX IF NOT EXISTS conversations_peer ON conversations (peer_key);
		CREATE TABLE IF NOT EXISTS events (
			conversation INTEGER NOT NULL,
			seq INTEGER NOT NULL,
			id BLOB NOT NULL,
			sender INTEGER NOT NULL,
			kind INTEGER NOT NULL,
			text TEXT NOT NULL,
			at INTEGER NOT NULL,
			PRIMARY KEY (conversation, seq)) WITHOUT ROWID;
		CREATE TABLE IF NOT EXISTS drafts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
		PRAGMA user_version = 1;`
	firstFile = `
		INSERT INTO meta VALUES ('user', '17'), ('epoch', '3'), ('listed', '1'), ('endpoints', '[]'),
			('tui.read/bob', '3'), ('tui.read/#46', '999'), ('tui.read/erin', '2'), ('tui.read/49', '1');
		INSERT INTO conversations VALUES
			(43, 18, 'Bob', 'bob', 1, 5), (46, 0, '', '', 7, 8), (49, 19, 'carol', 'carol', 1, 0),
			(52, 20, 'Fred', 'fred', 1, 2);
		INSERT INTO events VALUES
			(43, 1, x'01', 18, 1, 'hi', 1001), (43, 2, x'02', 17, 1, '你好 🎉', 1002), (43, 3, x'03', 18, 1, 'c', 1003),
			(43, 4, x'04', 17, 1, 'mine, from another device', 1004), (43, 5, x'05', 18, 1, 'e', 1005),
			(46, 7, x'07', 20, 1, 'x', 1006), (46, 8, x'08', 20, 1, 'y', 1007),
			(52, 1, x'09', 20, 1, 'p', 1008), (52, 2, x'0a', 20, 1, 'q', 1009);
		INSERT INTO outbox (id, conversation, peer, peer_key, text, at, state, code, reason) VALUES
			(x'00000000000000000000000000000001', 43, 'Bob', 'bob', 'queued, to bob', 2001, 0, '', ''),
			(x'00000000000000000000000000000002', 0, 'dave', 'dave', 'queued, to dave', 2002, 0, '', ''),
			(x'00000000000000000000000000000003', 0, 'DAVE', 'dave', 'refused, to dave', 2003, 2, 'not_found',
				'nobody'),
			(x'00000000000000000000000000000004', 0, 'Carol', 'carol', 'queued, to carol', 2004, 0, '', ''),
			(x'00000000000000000000000000000005', 43, '', '', 'queued', 2005, 0, '', ''),
			(x'00000000000000000000000000000006', 43, 'Bob', 'bob', '', 99999999999999, 1, '', '');
		INSERT INTO drafts VALUES ('chat/bob', 'dear Bob'), ('chat/erin', 'dear Erin'), ('chat/#46', 'dear group'),
			('chat/#77', 'to nobody'), ('chat/carol', ''), ('other', 'x');`
)

// A file of the first release opens with its messages, outbox, drafts and read
// marks.
func TestAFileOfTheFirstReleaseOpensWithEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "first.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, statements := range []string{firstSchema, firstFile} {
		if _, err := db.ExecContext(t.Context(), statements); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second opening finds nothing more to do
		s, err := sqlite.Open(t.Context(), path, 17)
		if err != nil {
			t.Fatal(err)
		}
		sameAsBefore(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func sameAsBefore(t *testing.T, s *sqlite.Store) {
	t.Helper()
	const dave, erin = store.MaxID + 1, store.MaxID + 2
	unsent := func(read uint64, draft string) store.OwnState {
		own := store.OwnState{Read: read, ReadOrdinal: read, Draft: draft}
		if draft != "" {
			own.DraftUnsent, own.Edits = true, 1
		}
		return own
	}
	all, err := s.Conversations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unread := map[uint64]int{}
	for i := range all {
		unread[all[i].ID] = all[i].Unread()
		all[i].Last = nil // see below
	}
	want := []store.Conversation{
		{
			ID: 43, Peer: store.Peer{ID: 18, Name: "Bob"}, Stored: &store.Range{Lo: 1, Hi: 5}, Head: 5, HeadOrdinal: 5,
			Own: unsent(4, "dear Bob"),
		},
		{ID: 46, Stored: &store.Range{Lo: 7, Hi: 8}, Head: 8, HeadOrdinal: 8, Own: unsent(8, "dear group")},
		{ID: 49, Peer: store.Peer{ID: 19, Name: "carol"}, Stored: &store.Range{Lo: 1, Hi: 0}},
		{ID: 52, Peer: store.Peer{ID: 20, Name: "Fred"}, Stored: &store.Range{Lo: 1, Hi: 2}, Head: 2, HeadOrdinal: 2},
		{ID: dave, Peer: store.Peer{Name: "DAVE"}},
		{ID: erin, Peer: store.Peer{Name: "erin"}, Own: unsent(0, "dear Erin")},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("conversations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[uint64]int{43: 1, 46: 0, 49: 0, 52: 2, dave: 0, erin: 0}, unread); diff != "" {
		t.Errorf("unread (-want +got):\n%s", diff)
	}
	messages, err := s.Messages(t.Context(), 43, 0, 10)
	if err != nil || len(messages) != 5 || messages[1].Text() != "你好 🎉" {
		t.Fatalf("messages: %+v, %v", messages, err)
	}
	last := store.Message{
		Conversation: 43, Seq: 5, Ordinal: 5, ID: store.MessageID{5}, Sender: 18, Kind: 1, Body: []byte("e"),
		At: time.UnixMilli(1005),
	}
	if diff := cmp.Diff(last, messages[4]); diff != "" {
		t.Errorf("last message (-want +got):\n%s", diff)
	}
	outbox, err := s.Unsent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type brief struct {
		ID           byte
		Conversation uint64
		Text         string
		State        store.SendState
	}
	var got []brief
	for _, o := range outbox {
		got = append(got, brief{o.ID[15], o.Conversation, o.Text(), o.State})
	}
	if diff := cmp.Diff([]brief{
		{1, 43, "queued, to bob", store.Queued},
		{2, dave, "queued, to dave", store.Queued},
		{3, dave, "refused, to dave", store.Failed},
		{4, 49, "queued, to carol", store.Queued},
		{5, 43, "queued", store.Queued},
	}, got); diff != "" {
		t.Errorf("outbox (-want +got):\n%s", diff)
	}
	states, err := s.UnsentOwn(t.Context(), 0, 10)
	if err != nil || len(states) != 2 || states[0].Conversation != 43 || states[1].Conversation != 46 {
		t.Errorf("own states for the server: %+v, %v", states, err)
	}
	if c, err := s.Contact(t.Context(), "Dave"); err != nil || c.ID != dave {
		t.Errorf("dave is %+v, %v", c, err)
	}
	for name, want := range map[string]string{"tui.read/bob": "", "endpoints": "[]", "epoch": "3"} {
		if value, err := s.Meta(t.Context(), name); err != nil || value != want {
			t.Errorf("%s is %q, %v", name, value, err)
		}
	}
}

// Numbers go on where the migration ended.
func TestAMigratedFileGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "first.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statements := range []string{firstSchema, firstFile} {
		if _, err := db.ExecContext(t.Context(), statements); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, path, 17)
	before, err := s.OwnStates(t.Context(), 0)
	if err != nil || len(before) != 3 {
		t.Fatalf("%+v, %v", before, err)
	}
	grace, err := s.Contact(t.Context(), "grace")
	if err != nil || grace.ID != store.MaxID+3 {
		t.Errorf("grace is %+v, %v", grace, err)
	}
	erins := store.Conversation{ID: 55, Peer: store.Peer{ID: 30, Name: "Erin"}}
	if err := s.PutConversations(t.Context(), 3, []store.Conversation{erins}); err != nil {
		t.Fatal(err)
	}
	after, err := s.OwnStates(t.Context(), before[2].Order)
	if err != nil || len(after) != 1 || after[0].Conversation != 55 || after[0].Draft != "dear Erin" {
		t.Errorf("%+v, %v", after, err)
	}
}
