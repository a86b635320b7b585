package msglog_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// id makes a client message id out of two numbers.
func id(a, b uint64) (out [16]byte) {
	binary.BigEndian.PutUint64(out[:], a)
	binary.BigEndian.PutUint64(out[8:], b)
	return out
}

func entry(sender, n uint64, text string) msglog.Event {
	return msglog.Event{Sender: sender, ID: id(sender, n), Kind: 1, Body: []byte(text)}
}

func open(t testing.TB, cfg database.Config, opts msglog.Options) *msglog.Log {
	t.Helper()
	l := msglog.New(testenv.Open(t, cfg), opts)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return l
}

func mustAppend(t testing.TB, l *msglog.Log, conversation uint64, entries ...msglog.Event) []msglog.Result {
	t.Helper()
	results, err := l.Append(context.Background(), conversation, entries)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestAppendNumbersDensely(t *testing.T) {
	cfg := testenv.MariaDB(t)
	var mu sync.Mutex
	var committed []msglog.Event
	l := open(t, cfg, msglog.Options{Committed: func(c []msglog.Event) {
		mu.Lock()
		defer mu.Unlock()
		committed = append(committed, c...)
	}})
	texts := []string{"你好", "'; DROP TABLE events; --", "\\' \x00 \xff bytes", "👨‍👩‍👧", ""}
	for i, text := range texts {
		got := mustAppend(t, l, 7, entry(1, uint64(i), text))[0]
		if got.Err != nil || got.Seq != uint64(i+1) || got.Existing || got.CreatedAt == 0 {
			t.Fatalf("%q: got %+v, want number %d", text, got, i+1)
		}
	}
	events, err := l.After(t.Context(), 7, 0, 100)
	if err != nil || len(events) != len(texts) {
		t.Fatalf("read %d events, %v", len(events), err)
	}
	for i, e := range events {
		want := entry(1, uint64(i), texts[i])
		want.Conversation, want.Seq, want.Ordinal, want.CreatedAt = 7, uint64(i+1), uint64(i+1), e.CreatedAt
		if diff := cmp.Diff(want, e, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("event %d: %s", i+1, diff)
		}
	}
	if len(committed) != len(texts) || committed[4].Seq != 5 || string(committed[3].Body) != texts[3] {
		t.Errorf("Committed got %d events, want %d", len(committed), len(texts))
	}
	before, err := l.Before(t.Context(), 7, 4, 2)
	if err != nil || len(before) != 2 || before[0].Seq != 2 || before[1].Seq != 3 {
		t.Errorf("before 4: %+v, %v", before, err)
	}
	heads, err := l.Heads(t.Context(), []uint64{7, 8})
	if err != nil || heads[7] != (msglog.Head{Seq: 5, Ordinal: 5}) || heads[8] != (msglog.Head{}) || len(heads) != 1 {
		t.Errorf("heads %v, %v", heads, err)
	}
}

func TestARepeatGetsTheFirstAnswer(t *testing.T) {
	l := open(t, testenv.MariaDB(t), msglog.Options{})
	first := mustAppend(t, l, 1, entry(1, 1, "one"), entry(1, 2, "two"))
	got := mustAppend(t, l, 1,
		entry(1, 3, "three"), entry(1, 1, "one"), entry(1, 3, "three"),
		entry(1, 2, "other"), entry(1, 4, "four"), entry(1, 4, "4"))
	wantResults(t, got, []outcome{
		{3, false, ""},
		{first[0].Seq, true, ""},
		{3, true, ""},
		{0, false, errs.CodeConflict},
		{4, false, ""},
		{0, false, errs.CodeConflict},
	})
	if got[1].CreatedAt != first[0].CreatedAt {
		t.Error("a repeat must get the first one's time")
	}
	// The same id of another sender, or in another conversation, is another message.
	other := mustAppend(t, l, 1, msglog.Event{Sender: 2, ID: id(1, 1), Kind: 1, Body: []byte("mine")})
	elsewhere := mustAppend(t, l, 2, entry(1, 1, "one"))
	if other[0].Seq != 5 || elsewhere[0].Seq != 1 || elsewhere[0].Existing {
		t.Errorf("got %+v and %+v", other[0], elsewhere[0])
	}
}

// outcome is what a test wants of a result.
type outcome struct {
	seq      uint64
	existing bool
	code     errs.Code
}

func wantResults(t *testing.T, got []msglog.Result, want []outcome) {
	t.Helper()
	for i, w := range want {
		if got[i].Seq != w.seq || got[i].Existing != w.existing || errs.CodeOf(got[i].Err) != w.code {
			t.Errorf("entry %d: got %+v, want %+v", i, got[i], w)
		}
	}
}

func TestABadEntryFailsAlone(t *testing.T) {
	cfg := testenv.MariaDB(t)
	db := testenv.Open(t, cfg)
	// A column of eight bytes stands for any value that a database may refuse.
	if _, err := db.Exec("ALTER TABLE events MODIFY body VARBINARY(8) NOT NULL"); err != nil {
		t.Fatal(err)
	}
	l := open(t, cfg, msglog.Options{})
	got := mustAppend(t, l, 1, entry(1, 1, "a"), entry(1, 2, "far too long"), entry(1, 3, "c"),
		entry(1, 4, string(bytes.Repeat([]byte("x"), msglog.MaxBody+1))), entry(1, 5, "e"))
	wantResults(t, got, []outcome{
		{1, false, ""}, {0, false, errs.CodeInvalid}, {2, false, ""}, {0, false, errs.CodeTooLarge}, {3, false, ""},
	})
}

// write appends messages of one sender to conversations in turn and offers each
// again until it has a number.
func write(ctx context.Context, l *msglog.Log, sender uint64, conversations, messages int, acked *acks) error {
	for n := range messages {
		conversation := uint64(n%conversations) + 1
		e := entry(sender, uint64(n), fmt.Sprintf("%d from %d", n, sender))
		for {
			results, err := l.Append(ctx, conversation, []msglog.Event{e})
			if err != nil {
				if ctx.Err() != nil {
					return err
				}
				continue
			}
			if results[0].Err != nil {
				return results[0].Err
			}
			acked.add(conversation, e, results[0])
			break
		}
	}
	return nil
}

// acks are the results that the writers got. Its mutex owns the map.
type acks struct {
	mu  sync.Mutex
	all map[uint64]map[uint64]msglog.Event
	n   atomic.Int64
}

func (a *acks) add(conversation uint64, e msglog.Event, r msglog.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = make(map[uint64]map[uint64]msglog.Event)
	}
	if a.all[conversation] == nil {
		a.all[conversation] = make(map[uint64]msglog.Event)
	}
	a.all[conversation][r.Seq] = e
	a.n.Add(1)
}

// check compares the results with the table: each log is dense and has each message
// once, at the number that was answered, and each sender's order is kept.
func (a *acks) check(t *testing.T, db *sql.DB, messages int) {
	t.Helper()
	var rows, gaps, doubles int
	mustScan(t, db, &rows, "SELECT COUNT(*) FROM events")
	mustScan(t, db, &gaps, "SELECT COUNT(*) FROM (SELECT 1 FROM events GROUP BY conversation_id"+
		" HAVING COUNT(*) <> MAX(seq) OR MIN(seq) <> 1) g")
	mustScan(t, db, &doubles, "SELECT COUNT(*) FROM (SELECT 1 FROM events GROUP BY sender_id, client_msg_id"+
		" HAVING COUNT(*) > 1) d")
	if rows != messages || gaps != 0 || doubles != 0 || a.n.Load() != int64(messages) {
		t.Errorf("%d rows and %d answers for %d messages, %d conversations with gaps, %d doubled",
			rows, a.n.Load(), messages, gaps, doubles)
	}
	found, err := db.Query("SELECT conversation_id, seq, sender_id, client_msg_id FROM events" +
		" ORDER BY conversation_id, seq")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	last := make(map[[2]uint64]uint64)
	for found.Next() {
		var conversation, seq, sender uint64
		var msg []byte
		if err := found.Scan(&conversation, &seq, &sender, &msg); err != nil {
			t.Fatal(err)
		}
		if e := a.all[conversation][seq]; e.Sender != sender || !bytes.Equal(e.ID[:], msg) {
			t.Fatalf("conversation %d has another message at %d than was answered", conversation, seq)
		}
		n, of := binary.BigEndian.Uint64(msg[8:])+1, [2]uint64{conversation, sender}
		if n <= last[of] {
			t.Fatalf("conversation %d: message %d of sender %d is behind %d", conversation, n-1, sender, last[of]-1)
		}
		last[of] = n
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
}

func mustScan(t *testing.T, db *sql.DB, into *int, query string) {
	t.Helper()
	if err := db.QueryRow(query).Scan(into); err != nil {
		t.Fatal(err)
	}
}

// Two logs stand for two chat servers that disagree about the owners.
func TestTwoWritersOfTheSameConversationsBothMakeProgress(t *testing.T) {
	cfg := testenv.MariaDB(t)
	logs := []*msglog.Log{open(t, cfg, msglog.Options{}), open(t, cfg, msglog.Options{})}
	const senders, messages, conversations = 12, 120, 5
	var acked acks
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			if err := write(ctx, logs[s%2], uint64(s+1), conversations, messages, &acked); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	acked.check(t, testenv.Open(t, cfg), senders*messages)
}

// kill -9 of the database, several times, under writers on two logs: every message
// that was answered is there once.
func TestTheDatabaseIsKilledUnderLoad(t *testing.T) {
	server := testenv.StartMariaDB(t)
	cfg := server.Database(t)
	logs := []*msglog.Log{open(t, cfg, msglog.Options{}), open(t, cfg, msglog.Options{})}
	const senders, messages, conversations, kills = 10, 150, 4, 3
	var acked acks
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			if err := write(ctx, logs[s%2], uint64(s+1), conversations, messages, &acked); err != nil {
				t.Error(err)
			}
		})
	}
	for kill := range kills {
		goal := int64((kill + 1) * senders * messages / (kills + 1))
		testenv.Until(t, "the writers make progress", func() bool { return acked.n.Load() >= goal })
		server.Kill()
		server.Start(t)
	}
	wg.Wait()
	acked.check(t, testenv.Open(t, cfg), senders*messages)
}

func TestCloseAnswersEverybody(t *testing.T) {
	server := testenv.StartMariaDB(t)
	db := testenv.Open(t, server.Database(t))
	l := msglog.New(db, msglog.Options{})
	mustAppend(t, l, 1, entry(1, 1, "one"))
	server.Kill()
	answered := make(chan error)
	go func() {
		_, err := l.Append(context.Background(), 1, []msglog.Event{entry(1, 2, "two")})
		answered <- err
	}()
	testenv.Until(t, "the append waits", func() bool { return l.QueueDelay() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil {
		t.Error("Close said that all was settled with the database away")
	}
	if err := <-answered; errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("the waiting append got %v, want unavailable", err)
	}
	_, err := l.Append(t.Context(), 1, []msglog.Event{entry(1, 3, "three")})
	if errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("an append after Close got %v, want unavailable", err)
	}
}
