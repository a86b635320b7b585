package member_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/member"
)

// direct makes conversations of user 1 with n others and returns their ids.
func direct(t *testing.T, db *sql.DB, n uint64) []uint64 {
	t.Helper()
	var pairs []conversation.Pair
	for i := range n {
		pairs = append(pairs, conversation.Pair{A: i + 2, B: 1})
	}
	ids, err := conversation.Direct(t.Context(), db, pairs...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestMembersAreReadOnceAndThenCached(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	ids := direct(t, db, 3)
	x := member.New(db)
	if m, ok := x.Cached(ids[0]); ok {
		t.Fatalf("cached before it was read: %v", m)
	}
	m, err := x.Load(t.Context(), ids[0])
	if err != nil || !slices.Equal(m.Users, []uint64{1, 2}) || m.Number == 0 || !m.Has(2) || m.Has(3) {
		t.Fatalf("read %v, %v", m, err)
	}
	if again, ok := x.AtLeast(ids[0], m.Number); !ok || !slices.Equal(again.Users, m.Users) {
		t.Errorf("cached %v, %v", again, ok)
	}
	if _, ok := x.AtLeast(ids[0], m.Number+1); ok {
		t.Error("members with a lower number were returned")
	}
	all, err := x.LoadAll(t.Context(), append(slices.Clone(ids), 1<<40))
	if err != nil || len(all) != 3 || !slices.Equal(all[ids[2]].Users, []uint64{1, 4}) {
		t.Errorf("read together %v, %v", all, err)
	}
}

// That a conversation does not exist is not cached, because it may be created at any
// moment.
func TestAMissingConversationIsNotCached(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	last := direct(t, db, 1)[0]
	x := member.New(db)
	if m, err := x.Load(t.Context(), last+1); err != nil || m.Number != 0 || len(m.Users) != 0 {
		t.Fatalf("a missing conversation: %v, %v", m, err)
	}
	x.PutDirect(last+1, 9, 8)
	if m, ok := x.Cached(last + 1); !ok || !slices.Equal(m.Users, []uint64{8, 9}) {
		t.Errorf("created meanwhile: %v, %v", m, ok)
	}
}

func TestNewerMembersAreNotReplacedByOlderOnes(t *testing.T) {
	x := member.New(nil)
	x.Put(7, member.Members{Number: 5, Users: []uint64{1, 2, 3}})
	x.Put(7, member.Members{Number: 4, Users: []uint64{1, 2}}) // read before, put later
	if m, _ := x.Cached(7); m.Number != 5 {
		t.Errorf("cached %v", m)
	}
	x.Put(7, member.Members{Number: 6, Users: []uint64{1}})
	if m, _ := x.Cached(7); m.Number != 6 || len(m.Users) != 1 {
		t.Errorf("cached %v", m)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	const most = 100_000
	x := member.New(nil)
	for id := range uint64(most + 1) {
		x.PutDirect(id+1, 1, 2)
	}
	n := 0
	for id := range uint64(most + 1) {
		if _, ok := x.Cached(id + 1); ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d are cached, want only the last, which had no room", n)
	}
}

func TestManyReadTogether(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	ids := direct(t, db, 200)
	x := member.New(db)
	var readers sync.WaitGroup
	for i, id := range ids {
		readers.Go(func() {
			if m, err := x.Load(t.Context(), id); err != nil || !m.Has(uint64(i+2)) {
				t.Errorf("conversation %d: %v, %v", id, m, err)
			}
		})
	}
	readers.Wait()
}

func TestWithoutTheDatabaseItSaysWhenToTryAgain(t *testing.T) {
	x := member.New(testenv.Open(t, testenv.MariaDB(t)))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := x.Load(ended, 1)
	if e := errs.From(err); e == nil || e.Code != errs.CodeUnavailable || e.RetryAfter == 0 {
		t.Errorf("load: %v", err)
	}
	if all, err := x.LoadAll(ended, []uint64{1, 2}); err == nil || len(all) != 0 {
		t.Errorf("load all: %s, %v", fmt.Sprint(all), err)
	}
}
