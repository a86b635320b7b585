package store_test

import (
	"testing"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) func() store.Store {
		first := store.NewMemory(1000)
		return func() store.Store { return first.Another() }
	})
}

func TestMemoryKeepsTheNewestOnly(t *testing.T) {
	s := store.NewMemory(2)
	if _, err := s.Begin(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= 5; seq++ {
		kept, err := s.Append(t.Context(), 1, []store.Message{{Conversation: 7, Seq: seq}})
		if err != nil || !kept {
			t.Fatalf("message %d: kept %v, %v", seq, kept, err)
		}
	}
	page, err := s.Messages(t.Context(), 7, 0, 10)
	if err != nil || len(page) != 2 || page[0].Seq != 4 {
		t.Errorf("kept %+v, %v", page, err)
	}
	all, err := s.Conversations(t.Context())
	if err != nil || *all[0].Stored != (store.Range{Lo: 4, Hi: 5}) {
		t.Errorf("range %+v, %v", all[0].Stored, err)
	}
	if s.Shared() {
		t.Error("one handle, shared")
	}
}

func TestMessageIDsAreOrderedAndShown(t *testing.T) {
	a, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	b, err := store.NewMessageID()
	if err != nil {
		t.Fatal(err)
	}
	if a == b || a.String() >= b.String() || len(a.String()) != 36 || a[6]>>4 != 7 {
		t.Errorf("%s, then %s", a, b)
	}
}
