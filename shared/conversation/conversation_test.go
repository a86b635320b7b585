package conversation_test

import (
	"database/sql"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/testenv"
)

func TestDirect(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	first, err := conversation.Direct(t.Context(), db, conversation.Pair{A: 7, B: 3})
	if err != nil {
		t.Fatal(err)
	}
	again, err := conversation.Direct(t.Context(), db,
		conversation.Pair{A: 3, B: 8}, conversation.Pair{A: 3, B: 7}, conversation.Pair{A: 8, B: 3})
	if err != nil {
		t.Fatal(err)
	}
	if again[1] != first[0] || again[0] == first[0] || again[0] != again[2] {
		t.Errorf("7 and 3 got %v; then 3-8, 3-7, 8-3 got %v", first, again)
	}
	if got, want := members(t, db, again[0]), []uint64{3, 8}; !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	if got, want := members(t, db, first[0]), []uint64{3, 7}; !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	var low, high uint64
	row := db.QueryRow("SELECT low_user, high_user FROM conversations WHERE id = ?", first[0])
	if err := row.Scan(&low, &high); err != nil || low != 3 || high != 7 {
		t.Errorf("users %d and %d (%v), want 3 and 7", low, high, err)
	}
}

func members(t *testing.T, db *sql.DB, conversation uint64) (users []uint64) {
	t.Helper()
	rows, err := db.Query("SELECT user_id FROM members WHERE conversation_id = ? ORDER BY user_id", conversation)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var user uint64
		if err := rows.Scan(&user); err != nil {
			t.Fatal(err)
		}
		users = append(users, user)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return users
}

// Many callers ask for the same conversations at once, in different orders.
func TestDirectAtOnce(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	var pairs []conversation.Pair
	for i := range uint64(50) {
		pairs = append(pairs, conversation.Pair{A: i + 1, B: i + 100})
	}
	got := make([][]uint64, 8)
	var group errgroup.Group
	for i := range got {
		mine := slices.Clone(pairs)
		if i%2 == 1 {
			slices.Reverse(mine)
		}
		group.Go(func() (err error) {
			got[i], err = conversation.Direct(t.Context(), db, mine...)
			if i%2 == 1 {
				slices.Reverse(got[i])
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, ids := range got[1:] {
		if !slices.Equal(ids, got[0]) {
			t.Errorf("got %v and %v", got[0], ids)
		}
	}
}

func TestDirectRefuses(t *testing.T) {
	db := testenv.Open(t, testenv.MariaDB(t))
	for _, pairs := range [][]conversation.Pair{
		{{A: 1, B: 1}},
		{{A: 0, B: 1}},
		{{A: 1, B: 2}, {A: 3, B: 3}},
		make([]conversation.Pair, conversation.MaxPairs+1),
	} {
		if ids, err := conversation.Direct(t.Context(), db, pairs...); err == nil {
			t.Errorf("%d pairs, the first %v: got %v", len(pairs), pairs[0], ids)
		}
	}
	if ids, err := conversation.Direct(t.Context(), db); err != nil || len(ids) != 0 {
		t.Errorf("no pairs: %v, %v", ids, err)
	}
}
