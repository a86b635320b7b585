package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client/store"
)

// run makes the messages first..last of a conversation.
func run(conv, first, last uint64) []store.Message {
	var out []store.Message
	for seq := first; seq <= last; seq++ {
		out = append(out, store.Message{
			Conversation: conv, Seq: seq, Ordinal: seq - 1, ID: store.MessageID{byte(conv), byte(seq)}, Sender: 9,
			Kind: uint32(1 + seq%3), Body: fmt.Appendf(nil, "한국어 %d\n🎉\xff", seq), At: time.UnixMilli(int64(seq)),
		})
	}
	return out
}

func stored(t *testing.T, s store.Store, conv uint64) *store.Range {
	t.Helper()
	for _, c := range got[[]store.Conversation](t)(s.Conversations(t.Context())) {
		if c.ID == conv {
			return c.Stored
		}
	}
	return nil
}

func runs(t *testing.T, open func() store.Store) {
	t.Helper()
	s := open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	for _, c := range []struct {
		first, last uint64
		kept        bool
		want        store.Range
	}{
		{10, 12, true, store.Range{Lo: 10, Hi: 12}}, // the first run founds the range
		{14, 15, false, store.Range{Lo: 10, Hi: 12}},
		{13, 15, true, store.Range{Lo: 10, Hi: 15}},
		{12, 14, true, store.Range{Lo: 10, Hi: 15}}, // known already
		{1, 8, false, store.Range{Lo: 10, Hi: 15}},
		{8, 9, true, store.Range{Lo: 8, Hi: 15}},
		{5, 20, true, store.Range{Lo: 5, Hi: 20}}, // around both ends
	} {
		if kept := got[bool](t)(s.Append(t.Context(), 1, run(7, c.first, c.last))); kept != c.kept {
			t.Errorf("run %d..%d: kept %v", c.first, c.last, kept)
		}
		if r := stored(t, s, 7); r == nil || *r != c.want {
			t.Errorf("after run %d..%d the range is %v, want %v", c.first, c.last, r, c.want)
		}
	}
	equal(t, "messages", got[[]store.Message](t)(s.Messages(t.Context(), 7, 0, 100)), run(7, 5, 20))
	if got[bool](t)(s.Append(t.Context(), 1, nil)); stored(t, s, 8) != nil {
		t.Error("an empty run founded a range")
	}
}

func emptyRange(t *testing.T, open func() store.Store) {
	t.Helper()
	s := open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	put := func(r *store.Range) {
		must(t, s.PutConversations(t.Context(), 1, []store.Conversation{{ID: 7, Stored: r}}))
	}
	put(nil)
	if stored(t, s, 7) != nil {
		t.Error("a range from nothing")
	}
	put(&store.Range{Lo: 41, Hi: 40})
	put(&store.Range{Lo: 99, Hi: 98})
	equal(t, "range", stored(t, s, 7), &store.Range{Lo: 41, Hi: 40})
	if got[bool](t)(s.Append(t.Context(), 1, run(7, 1, 39))) {
		t.Error("a run below the gap was kept")
	}
	if !got[bool](t)(s.Append(t.Context(), 1, run(7, 38, 40))) ||
		!got[bool](t)(s.Append(t.Context(), 1, run(7, 41, 41))) {
		t.Error("runs at the empty range's ends were not kept")
	}
	equal(t, "messages", got[[]store.Message](t)(s.Messages(t.Context(), 7, 0, 100)), run(7, 38, 41))
}

func epoch(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	must(t, a.SetListed(t.Context(), 0)) // a new account: nothing to list
	equal(t, "first epoch", got[store.State](t)(a.Begin(t.Context(), 4)), store.State{Epoch: 4, Listed: true})
	must(t, a.PutConversations(t.Context(), 4, []store.Conversation{{ID: 7, Peer: store.Peer{ID: 2, Name: "Bob"}}}))
	got[bool](t)(a.Append(t.Context(), 4, run(7, 1, 3)))
	enqueue(t, a, 1, 7)
	enqueue(t, a, 2, 7)
	enqueue(t, a, 3, 8)
	carols := contact(t, a, "carol")
	enqueue(t, a, 5, carols)
	must(t, a.Settle(t.Context(), []store.Outgoing{{ID: id(2), State: store.Acknowledged, Seq: 4}}))
	enqueue(t, a, 4, contact(t, a, "Bob"))
	draft(t, a, 4, 7, "dear Bob")
	draft(t, a, 4, 8, "dear someone")

	equal(t, "new epoch", got[store.State](t)(b.Begin(t.Context(), 5)), store.State{Epoch: 5})
	equal(t, "seen by the other", got[store.State](t)(a.State(t.Context())), store.State{Epoch: 5})
	bobs := contact(t, a, "bob")
	if !store.Provisional(bobs) || bobs == carols {
		t.Errorf("the conversation with Bob is %d now", bobs)
	}
	equal(t, "conversations", idsOf(t, a), []uint64{carols, bobs})
	if n := len(got[[]store.Message](t)(a.Messages(t.Context(), 7, 0, 10))); n != 0 {
		t.Errorf("%d messages left", n)
	}
	queued := got[[]store.Outgoing](t)(a.Queued(t.Context(), 0, 10))
	equal(t, "queue", ids(queued), []byte{1, 5, 4})
	lost := got[store.Outgoing](t)(a.Outgoing(t.Context(), id(3)))
	if lost.State != store.Failed || lost.Code != store.ErrStale.Code || lost.Reason == "" || lost.Conversation != 0 ||
		lost.Text() == "" {
		t.Errorf("a message to an unknown conversation: %+v", lost)
	}
	for i, want := range []uint64{bobs, carols, bobs} {
		if o := queued[i]; o.Conversation != want {
			t.Errorf("message %d: conversation %d, want %d", o.ID[15], o.Conversation, want)
		}
	}
	if o := ownOf(t, a, bobs); o.Draft != "dear Bob" || !o.DraftUnsent || o.Base != 0 || o.Number != 0 {
		t.Errorf("draft: %+v", o)
	}
	for _, o := range got[[]store.Owned](t)(a.OwnStates(t.Context(), 0)) {
		if o.Conversation != bobs {
			t.Errorf("left: %+v", o)
		}
	}
	if _, err := a.Append(t.Context(), 4, run(7, 1, 1)); !errors.Is(err, store.ErrStale) {
		t.Errorf("append in the old epoch: %v", err)
	}
	if err := a.PutConversations(t.Context(), 4, nil); !errors.Is(err, store.ErrStale) {
		t.Errorf("put in the old epoch: %v", err)
	}
	if err := a.SetListed(t.Context(), 4); !errors.Is(err, store.ErrStale) {
		t.Errorf("listed in the old epoch: %v", err)
	}
	for conv, want := range map[uint64]error{7: store.ErrStale, bobs: nil} {
		if _, err := a.Enqueue(t.Context(), 4, store.Outgoing{ID: id(99), Conversation: conv}); !errors.Is(err, want) {
			t.Errorf("enqueue for %d in the old epoch: %v", conv, err)
		}
		if err := a.ChangeOwn(t.Context(), 4, []uint64{conv}, func(uint64, *store.OwnState) {}); !errors.Is(err, want) {
			t.Errorf("own state of %d in the old epoch: %v", conv, err)
		}
	}
	must(t, a.SetListed(t.Context(), 5))
	equal(t, "same epoch again", got[store.State](t)(b.Begin(t.Context(), 5)), store.State{Epoch: 5, Listed: true})
}

func conversations(t *testing.T, open func() store.Store) {
	t.Helper()
	s := open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	put := func(c ...store.Conversation) { t.Helper(); must(t, s.PutConversations(t.Context(), 1, c)) }
	put(store.Conversation{ID: 3, Peer: store.Peer{ID: 30, Name: "王小明"}}, store.Conversation{ID: 2})
	got[bool](t)(s.Append(t.Context(), 1, run(3, 4, 6)))
	put(store.Conversation{ID: 3}) // says nothing of the peer: keeps it
	put(store.Conversation{ID: 2, Peer: store.Peer{ID: 20, Name: "Ann"}})
	put(store.Conversation{ID: 2, Peer: store.Peer{ID: 20, Name: "Anna"}})
	last := run(3, 6, 6)[0]
	equal(t, "all", got[[]store.Conversation](t)(s.Conversations(t.Context())), []store.Conversation{
		{ID: 2, Peer: store.Peer{ID: 20, Name: "Anna"}},
		{
			ID: 3, Peer: store.Peer{ID: 30, Name: "王小明"}, Stored: &store.Range{Lo: 4, Hi: 6}, Last: &last,
			Head: 6, HeadOrdinal: 5,
		},
	})
	for name, want := range map[string]uint64{"ANNA": 2, "王小明": 3} {
		equal(t, "contact "+name, contact(t, s, name), want)
	}
	ann := contact(t, s, "Ann")
	c, ok, err := s.Conversation(t.Context(), ann)
	if err != nil || !ok || c.Peer != (store.Peer{Name: "Ann"}) || !store.Provisional(ann) {
		t.Errorf("a new contact: %+v, %v, %v", c, ok, err)
	}
	if c, ok, err := s.Conversation(t.Context(), 99); err != nil || ok {
		t.Errorf("an unknown one: %+v, %v", c, err)
	}
}

func heads(t *testing.T, open func() store.Store) {
	t.Helper()
	s := open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	check := func(seq, ordinal uint64) {
		t.Helper()
		c, _, err := s.Conversation(t.Context(), 7)
		must(t, err)
		if c.Head != seq || c.HeadOrdinal != ordinal {
			t.Errorf("head %d, ordinal %d, want %d and %d", c.Head, c.HeadOrdinal, seq, ordinal)
		}
	}
	put := func(seq, ordinal uint64) {
		t.Helper()
		must(t, s.PutConversations(t.Context(), 1, []store.Conversation{{ID: 7, Head: seq, HeadOrdinal: ordinal}}))
	}
	put(10, 8)
	put(9, 9)
	check(10, 8)
	put(0, 0)
	check(10, 8)
	put(12, 0) // not told
	check(12, 8)
	put(12, 10)
	check(12, 10)
	got[bool](t)(s.Append(t.Context(), 1, run(7, 3, 4)))
	check(12, 10)
	got[bool](t)(s.Append(t.Context(), 1, run(7, 19, 20))) // not kept, but the log reaches so far
	check(20, 19)
}

func pages(t *testing.T, open func() store.Store) {
	t.Helper()
	s := open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	got[bool](t)(s.Append(t.Context(), 1, run(7, 5, 14)))
	got[bool](t)(s.Append(t.Context(), 1, run(8, 1, 2)))
	for _, c := range []struct {
		before      uint64
		limit       int
		first, last uint64
	}{
		{0, 3, 12, 14},
		{12, 3, 9, 11},
		{6, 3, 5, 5},
		{5, 3, 1, 0},
		{2, 3, 1, 0},
		{15, 100, 5, 14},
		{1000, 2, 13, 14},
		{1<<64 - 1, 1, 14, 14},
	} {
		page := got[[]store.Message](t)(s.Messages(t.Context(), 7, c.before, c.limit))
		want := run(7, c.first, c.last)
		if len(page) == 0 && len(want) == 0 {
			continue
		}
		equal(t, fmt.Sprintf("before %d, limit %d", c.before, c.limit), page, want)
	}
}
