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
			Conversation: conv, Seq: seq, ID: store.MessageID{byte(conv), byte(seq)}, Sender: 9, Kind: store.Kind(1 + seq%3),
			Text: fmt.Sprintf("한국어 %d\n🎉", seq), At: time.UnixMilli(int64(seq)),
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
	if !got[bool](t)(s.Append(t.Context(), 1, run(7, 38, 40))) || !got[bool](t)(s.Append(t.Context(), 1, run(7, 41, 41))) {
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
	enqueue(t, a, 1, 7, "")
	enqueue(t, a, 2, 7, "bob")
	enqueue(t, a, 3, 8, "")
	must(t, a.Settle(t.Context(), []store.Settlement{{ID: id(2), State: store.Acknowledged, Seq: 4}}))
	enqueue(t, a, 4, 7, "Bob")

	equal(t, "new epoch", got[store.State](t)(b.Begin(t.Context(), 5)), store.State{Epoch: 5})
	equal(t, "seen by the other", got[store.State](t)(a.State(t.Context())), store.State{Epoch: 5})
	if n := len(got[[]store.Conversation](t)(a.Conversations(t.Context()))); n != 0 {
		t.Errorf("%d conversations left", n)
	}
	if n := len(got[[]store.Message](t)(a.Messages(t.Context(), 7, 0, 10))); n != 0 {
		t.Errorf("%d messages left", n)
	}
	queued := got[[]store.Outgoing](t)(a.Queued(t.Context(), 0, 10))
	equal(t, "queue", ids(queued), []byte{1, 3, 4})
	for i, want := range []struct {
		conv uint64
		key  string
	}{{0, "bob"}, {8, ""}, {0, "bob"}} {
		if o := queued[i]; o.Conversation != want.conv || o.PeerKey != want.key {
			t.Errorf("message %d: conversation %d, peer %q", o.ID[15], o.Conversation, o.PeerKey)
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
		{ID: 3, Peer: store.Peer{ID: 30, Name: "王小明"}, Stored: &store.Range{Lo: 4, Hi: 6}, Last: &last},
	})
	for key, want := range map[string]uint64{"anna": 2, "王小明": 3, "ann": 0, "": 0} {
		c, ok, err := s.ConversationWith(t.Context(), key)
		if must(t, err); c.ID != want || ok != (want != 0) {
			t.Errorf("with %q: %d, %v, want %d", key, c.ID, ok, want)
		}
	}
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
