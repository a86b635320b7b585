package sqlite_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/sqlite"
	"github.com/msrchat/msrchat/client/store/storetest"
	"github.com/msrchat/msrchat/shared/content"
)

func open(t *testing.T, path string, user uint64) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() store.Store {
		t.Helper()
		path := filepath.Join(t.TempDir(), "with space?&#%41.db")
		return func() store.Store { return filled{open(t, path, 17), path} }
	})
}

// filled fills the outbox without a synced commit for each message.
type filled struct {
	*sqlite.Store
	path string
}

func (f filled) FillForTest(n int) error {
	db, err := sql.Open("sqlite", f.path+"-none")
	if err != nil {
		return err
	}
	defer db.Close()
	escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
	if _, err := db.Exec("ATTACH ? AS s", "file:"+escape.Replace(f.path)); err != nil {
		return err
	}
	_, err = db.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO s.outbox (id, conversation, body, at, state) SELECT randomblob(16), 1, '', 0, 0 FROM n`, n)
	return err
}

func TestTheFileIsPrivateAndKeptAcrossOpenings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	s, err := sqlite.Open(t.Context(), path, 17)
	if err != nil {
		t.Fatal(err)
	}
	id := store.MessageID{1}
	out := store.Outgoing{ID: id, Conversation: 7, Kind: content.Text, Body: []byte("still here"), At: time.Now()}
	if _, err := s.Enqueue(t.Context(), 0, out); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	got, err := open(t, path, 17).Outgoing(t.Context(), id)
	if err != nil || got.Text() != "still here" || got.State != store.Queued {
		t.Errorf("reopened: %+v, %v", got, err)
	}
	if _, err := sqlite.Open(t.Context(), path, 18); err == nil ||
		!strings.Contains(err.Error(), "belongs to user 17") {
		t.Errorf("another user's file: %v", err)
	}
}

// A window may show any of the newest; what somebody typed stays in any case.
func TestProvisionalConversationsInWhichNothingWaitsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contacts.db")
	s := open(t, path, 17)
	var ids []uint64
	for n := range store.MaxEmpty + 5 {
		c, err := s.Contact(t.Context(), fmt.Sprintf("name%d", n))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	err := s.ChangeOwn(t.Context(), 0, ids[:1], func(_ uint64, own *store.OwnState) {
		own.SetDraft("dear", time.Now())
	})
	if err != nil {
		t.Fatal(err)
	}
	out := store.Outgoing{ID: store.MessageID{1}, Conversation: ids[1], Kind: content.Text, At: time.Now()}
	if _, err := s.Enqueue(t.Context(), 0, out); err != nil {
		t.Fatal(err)
	}
	again := open(t, path, 17)
	for i, want := range map[int]bool{0: true, 1: true, 2: false, 4: false, 5: true, store.MaxEmpty + 4: true} {
		if _, there, err := again.Conversation(t.Context(), ids[i]); err != nil || there != want {
			t.Errorf("contact %d is there: %v, %v", i, there, err)
		}
	}
}

func TestAFileFromTheFutureAndAForeignFileAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "future.db")
	open(t, path, 1)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path, 1); err == nil || !strings.Contains(err.Error(), "newer msrchat") {
		t.Errorf("future file: %v", err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	if err := os.WriteFile(foreign, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), foreign, 1); err == nil {
		t.Error("a foreign file was opened")
	}
}

// While another process moves a provisional conversation it is found at every moment,
// before or after: a message in it must not be taken for one to nobody.
func TestAConversationThatMovesIsAlwaysFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	reader, mover := open(t, path, 17), open(t, path, 17)
	if _, err := reader.Begin(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(60) {
		name := fmt.Sprint("person", i)
		at, err := reader.Contact(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		moved := make(chan error, 1)
		go func() {
			moved <- mover.Resolve(t.Context(), 1, store.PeerKey(name), store.Conversation{
				ID: i + 1, Peer: store.Peer{ID: i + 100, Name: name},
			})
		}()
		for now := at; now.ID == at.ID; {
			var there bool
			if now, there, err = reader.Conversation(t.Context(), at.ID); err != nil || !there {
				t.Fatalf("conversation with %s: there %v, %v", name, there, err)
			}
		}
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
	}
}
