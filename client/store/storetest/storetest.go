// Package storetest is the contract of store.Store as tests. Every
// implementation runs it.
package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
)

// Run runs the contract. fresh returns a function that opens one more handle on
// the same, at first empty data.
func Run(t *testing.T, fresh func(t *testing.T) (open func() store.Store)) {
	t.Helper()
	for name, test := range map[string]func(t *testing.T, open func() store.Store){
		"outbox keeps the order and gives each id once": outboxOrder,
		"settled messages leave the queue once":         settle,
		"a contact is provisional until it is resolved": resolve,
		"a listed conversation resolves its contact":    listedContact,
		"one handle sends at a time":                    lock,
		"a handle sees what another changed":            changed,
		"the outbox is bounded":                         bounded,
		"runs that touch are joined":                    runs,
		"an empty range says where to go on":            emptyRange,
		"a new epoch drops the log, not the outbox":     epoch,
		"conversations are found by their peer":         conversations,
		"heads rise":                                    heads,
		"pages of messages":                             pages,
		"own states":                                    ownStates,
		"small values":                                  meta,
		"handles used at once":                          concurrent,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func got[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func id(n byte) store.MessageID { return store.MessageID{15: n} }

func enqueue(t *testing.T, s store.Store, n byte, conv uint64) store.Outgoing {
	t.Helper()
	st := got[store.State](t)(s.State(t.Context()))
	o, err := s.Enqueue(t.Context(), st.Epoch, store.Outgoing{
		ID: id(n), Conversation: conv, Kind: content.Text, Body: fmt.Appendf(nil, "text %d 你好", n),
		At: time.UnixMilli(int64(1000 + int(n))),
	})
	must(t, err)
	return o
}

// contact is the id of the conversation with a person.
func contact(t *testing.T, s store.Store, name string) uint64 {
	t.Helper()
	return got[store.Conversation](t)(s.Contact(t.Context(), name)).ID
}

func draft(t *testing.T, s store.Store, epoch, conv uint64, text string) {
	t.Helper()
	must(t, s.ChangeOwn(t.Context(), epoch, []uint64{conv}, func(_ uint64, o *store.OwnState) {
		o.SetDraft(text, time.UnixMilli(77))
	}))
}

func ownOf(t *testing.T, s store.Store, conv uint64) store.OwnState {
	t.Helper()
	c, _, err := s.Conversation(t.Context(), conv)
	must(t, err)
	return c.Own
}

func ids(list []store.Outgoing) []byte {
	out := []byte{}
	for _, o := range list {
		out = append(out, o.ID[15])
	}
	return out
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func outboxOrder(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	first := enqueue(t, a, 1, 7)
	enqueue(t, b, 2, contact(t, a, "Bob"))
	enqueue(t, a, 3, 7)
	all := got[[]store.Outgoing](t)(b.Queued(t.Context(), 0, 10))
	equal(t, "queue", ids(all), []byte{1, 2, 3})
	equal(t, "first", all[0], first)
	equal(t, "second's conversation", all[1].Conversation, contact(t, b, "BOB"))
	equal(t, "page", ids(got[[]store.Outgoing](t)(a.Queued(t.Context(), first.Order, 1))), []byte{2})
	if _, err := a.Enqueue(t.Context(), 0, store.Outgoing{ID: id(9), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	_, err := a.Enqueue(t.Context(), 0, store.Outgoing{ID: id(8), Conversation: store.MaxID + 999})
	if !errors.Is(err, store.ErrNoConversation) {
		t.Errorf("to nowhere: %v", err)
	}
	if _, err := a.Outgoing(t.Context(), id(77)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown id: %v", err)
	}
}

func settle(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	for n := range byte(4) {
		enqueue(t, a, n+1, 7)
	}
	at := time.UnixMilli(5000)
	must(t, a.Settle(t.Context(), []store.Outgoing{
		{ID: id(1), State: store.Acknowledged, Seq: 11, LoggedAt: at, Existing: true},
		{ID: id(3), State: store.Failed, Code: errs.CodeForbidden, Reason: "no"},
		{ID: id(99), State: store.Acknowledged, Seq: 1},
	}))
	// A second outcome for the same message changes nothing.
	must(t, b.Settle(t.Context(), []store.Outgoing{{ID: id(1), State: store.Failed, Code: errs.CodeInvalid}}))
	equal(t, "queue", ids(got[[]store.Outgoing](t)(b.Queued(t.Context(), 0, 10))), []byte{2, 4})
	equal(t, "unsent", ids(got[[]store.Outgoing](t)(b.Unsent(t.Context()))), []byte{2, 3, 4})
	one := got[store.Outgoing](t)(b.Outgoing(t.Context(), id(1)))
	if one.State != store.Acknowledged || one.Seq != 11 || !one.LoggedAt.Equal(at) || !one.Existing || one.Code != "" {
		t.Errorf("acknowledged: %+v", one)
	}
	three := got[store.Outgoing](t)(b.Outgoing(t.Context(), id(3)))
	if three.State != store.Failed || three.Code != errs.CodeForbidden || three.Reason != "no" || three.Text() == "" {
		t.Errorf("failed: %+v", three)
	}
	if err := a.Discard(t.Context(), id(2)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("discarding a queued message: %v", err)
	}
	must(t, a.Discard(t.Context(), id(3)))
	equal(t, "unsent", ids(got[[]store.Outgoing](t)(b.Unsent(t.Context()))), []byte{2, 4})
}

func resolve(t *testing.T, open func() store.Store) {
	t.Helper()
	s, other := open(), open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	bobs, carols := contact(t, s, "Bob"), contact(t, s, "carol")
	if !store.Provisional(bobs) || !store.Provisional(carols) || bobs == carols || contact(t, other, "BOB") != bobs {
		t.Fatalf("contacts: %d, %d, %d", bobs, carols, contact(t, other, "BOB"))
	}
	enqueue(t, s, 1, bobs)
	enqueue(t, s, 2, carols)
	enqueue(t, s, 3, bobs)
	draft(t, s, 99, bobs, "half a tho") // of any epoch
	bob := store.Conversation{ID: 5, Peer: store.Peer{ID: 50, Name: "Robert"}, Head: 3, HeadOrdinal: 2}
	if err := s.Resolve(t.Context(), 2, "bob", bob); !errors.Is(err, store.ErrStale) {
		t.Errorf("another epoch: %v", err)
	}
	must(t, s.Resolve(t.Context(), 1, "bob", bob))
	must(t, s.Resolve(t.Context(), 1, "bob", bob)) // again: nothing is left to move
	var convs []uint64
	for _, o := range got[[]store.Outgoing](t)(s.Queued(t.Context(), 0, 10)) {
		convs = append(convs, o.Conversation)
	}
	equal(t, "conversations", convs, []uint64{5, carols, 5})
	moves := got[[]store.Move](t)(other.Moved(t.Context(), 0))
	if len(moves) != 1 || moves[0].From != bobs || moves[0].To != 5 {
		t.Fatalf("moves: %+v", moves)
	}
	if later := got[[]store.Move](t)(other.Moved(t.Context(), moves[0].Order)); len(later) != 0 {
		t.Errorf("moves after the last: %+v", later)
	}
	// The old id still leads to the conversation.
	enqueue(t, other, 4, bobs)
	draft(t, other, 1, bobs, "half a thought")
	c, ok, err := s.Conversation(t.Context(), bobs)
	if must(t, err); !ok || c.ID != 5 || c.Stored != nil || c.Head != 3 || c.Own.Draft != "half a thought" {
		t.Errorf("conversation: %+v, %v", c, ok)
	}
	if o := got[store.Outgoing](t)(s.Outgoing(t.Context(), id(4))); o.Conversation != 5 {
		t.Errorf("to the old id: %+v", o)
	}
	// Of the provisional ones those are listed in which something waits.
	contact(t, s, "nobody")
	equal(t, "all", idsOf(t, s), []uint64{5, carols})
}

func idsOf(t *testing.T, s store.Store) (out []uint64) {
	t.Helper()
	for _, c := range got[[]store.Conversation](t)(s.Conversations(t.Context())) {
		out = append(out, c.ID)
	}
	return out
}

func listedContact(t *testing.T, open func() store.Store) {
	t.Helper()
	s := open()
	got[store.State](t)(s.Begin(t.Context(), 1))
	bobs := contact(t, s, "bob")
	draft(t, s, 1, bobs, "from here")
	draft(t, s, 1, 5, "from there")
	bob := store.Peer{ID: 50, Name: "Bob"}
	must(t, s.PutConversations(t.Context(), 1, []store.Conversation{{ID: 4}, {ID: 5, Peer: bob}}))
	equal(t, "all", idsOf(t, s), []uint64{4, 5})
	equal(t, "draft", ownOf(t, s, 5).Draft, "from there\nfrom here")
	equal(t, "contact", contact(t, s, "BOB"), 5)
	if m := got[[]store.Move](t)(s.Moved(t.Context(), 0)); len(m) != 1 || m[0].From != bobs || m[0].To != 5 {
		t.Errorf("moves: %+v", m)
	}
}

func lock(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	try := got[bool](t)
	if !try(a.TryLock()) {
		t.Fatal("a free lock was not given")
	}
	if !try(a.TryLock()) {
		t.Fatal("the holder may ask again")
	}
	if try(b.TryLock()) {
		t.Fatal("two handles hold the lock")
	}
	must(t, b.Unlock())
	if try(b.TryLock()) {
		t.Fatal("the other's Unlock freed the lock")
	}
	must(t, a.Unlock())
	if !try(b.TryLock()) {
		t.Fatal("the lock was not freed")
	}
	must(t, b.Close())
	if !try(a.TryLock()) {
		t.Fatal("Close did not free the lock")
	}
}

func changed(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	got[bool](t)(b.Changed(t.Context()))
	enqueue(t, a, 1, 7)
	if !got[bool](t)(b.Changed(t.Context())) {
		t.Error("an insert by another handle is not seen")
	}
	if got[bool](t)(b.Changed(t.Context())) {
		t.Error("seen twice")
	}
	must(t, a.Settle(t.Context(), []store.Outgoing{{ID: id(1), State: store.Acknowledged, Seq: 1}}))
	if !got[bool](t)(b.Changed(t.Context())) {
		t.Error("an outcome by another handle is not seen")
	}
	if !b.Shared() {
		t.Error("two handles, not shared")
	}
}

func bounded(t *testing.T, open func() store.Store) {
	t.Helper()
	if testing.Short() {
		t.Skip("not run: -short")
	}
	s := open()
	if filler, ok := s.(interface{ FillForTest(n int) error }); ok {
		must(t, filler.FillForTest(store.MaxQueued))
	} else {
		for range store.MaxQueued {
			m := got[store.MessageID](t)(store.NewMessageID())
			got[store.Outgoing](t)(s.Enqueue(t.Context(), 0, store.Outgoing{ID: m, Conversation: 1, At: time.Now()}))
		}
	}
	_, err := s.Enqueue(t.Context(), 0, store.Outgoing{ID: id(1), Conversation: 1, At: time.Now()})
	if errs.CodeOf(err) != errs.CodeExhausted {
		t.Errorf("one more than %d: %v", store.MaxQueued, err)
	}
}

func meta(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	must(t, a.SetMeta(t.Context(), "endpoints", "[]"))
	must(t, a.SetMeta(t.Context(), "endpoints", "[1]"))
	equal(t, "meta", got[string](t)(b.Meta(t.Context(), "endpoints")), "[1]")
	equal(t, "absent", got[string](t)(b.Meta(t.Context(), "none")), "")
}

func ownStates(t *testing.T, open func() store.Store) {
	t.Helper()
	a, b := open(), open()
	got[store.State](t)(a.Begin(t.Context(), 1))
	got[bool](t)(b.Changed(t.Context()))
	want := store.OwnState{
		Number: 3, Read: 8, ReadOrdinal: 7, Draft: "草稿", DraftEdited: time.UnixMilli(5),
		ServerRead: 6, DraftUnsent: true,
		Base: 2, Edits: 9,
	}
	set := func(own store.OwnState, convs ...uint64) error {
		return a.ChangeOwn(t.Context(), 1, convs, func(_ uint64, o *store.OwnState) { *o = own })
	}
	must(t, set(want, 9, 7))
	must(t, set(store.OwnState{Number: 4, Read: 2, ServerRead: 2, Draft: "told"}, 8))
	if !got[bool](t)(b.Changed(t.Context())) {
		t.Error("a change by another handle is not seen")
	}
	all := got[[]store.Owned](t)(b.OwnStates(t.Context(), 0))
	if len(all) != 3 || all[0].Conversation != 9 || all[2].Conversation != 8 || all[1].OwnState != want {
		t.Fatalf("all: %+v", all)
	}
	must(t, set(want, 7)) // changes nothing
	if later := got[[]store.Owned](t)(b.OwnStates(t.Context(), all[2].Order)); len(later) != 0 {
		t.Errorf("changed: %+v", later)
	}
	must(t, set(store.OwnState{}, 9))
	later := got[[]store.Owned](t)(b.OwnStates(t.Context(), all[2].Order))
	if len(later) != 1 || later[0].Conversation != 9 {
		t.Errorf("changed: %+v", later)
	}
	must(t, set(want, 9))
	draft(t, a, 1, contact(t, a, "bob"), "no server knows bob")
	var unsent []uint64
	for _, o := range got[[]store.Owned](t)(b.UnsentOwn(t.Context(), 0, 10)) {
		unsent = append(unsent, o.Conversation)
	}
	equal(t, "unsent", unsent, []uint64{7, 9})
	if page := got[[]store.Owned](t)(b.UnsentOwn(t.Context(), 7, 1)); len(page) != 1 || page[0].Conversation != 9 {
		t.Errorf("page: %+v", page)
	}
	err := b.ChangeOwn(t.Context(), 2, []uint64{7}, func(uint64, *store.OwnState) {})
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("another epoch: %v", err)
	}
	if err := b.ChangeOwn(t.Context(), 1, []uint64{store.MaxID + 99}, nil); !errors.Is(err, store.ErrNoConversation) {
		t.Errorf("of nowhere: %v", err)
	}
}

// concurrent uses handles the way two processes with several goroutines do.
func concurrent(t *testing.T, open func() store.Store) {
	t.Helper()
	handles := []store.Store{open(), open(), open()}
	got[store.State](t)(handles[0].Begin(t.Context(), 1))
	const each = 20
	var wg sync.WaitGroup
	for h, s := range handles {
		wg.Go(func() {
			for n := range each {
				m := store.Outgoing{ID: store.MessageID{byte(h + 1), byte(n)}, Conversation: 1, At: time.Now()}
				_, err := s.Enqueue(t.Context(), 1, m)
				if err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for n := range uint64(each) {
				if _, err := s.Append(t.Context(), 1, run(3, n+1, n+1)); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range each {
				if _, err := s.Queued(t.Context(), 0, 1000); err != nil {
					t.Error(err)
				}
				if _, err := s.Changed(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	queued := got[[]store.Outgoing](t)(handles[1].Queued(t.Context(), 0, 1000))
	next := map[byte]byte{}
	for _, o := range queued {
		if o.ID[1] != next[o.ID[0]] {
			t.Fatalf("handle %d: message %d where %d was due", o.ID[0], o.ID[1], next[o.ID[0]])
		}
		next[o.ID[0]]++
	}
	if len(queued) != each*len(handles) {
		t.Errorf("%d queued, want %d", len(queued), each*len(handles))
	}
	if n := len(got[[]store.Message](t)(handles[2].Messages(t.Context(), 3, 0, 100))); n != each {
		t.Errorf("%d messages stored, want %d", n, each)
	}
}
