package ownstate_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/ownstate"
)

// ann and bob are users.
const ann, bob = 1, 2

// world is a store on a real database. Its conversation, of ann and bob, has ten
// events.
type world struct {
	*ownstate.Store
	t  *testing.T
	db *sql.DB
	id uint64
}

func open(t *testing.T) *world {
	t.Helper()
	db := testenv.Open(t, testenv.MariaDB(t))
	w := &world{ownstate.New(db), t, db, 0}
	w.id = w.conversation(ann, bob)
	for seq := range 10 {
		ordinal := sql.NullInt64{Int64: int64(seq), Valid: seq > 4} // older servers wrote none
		w.exec("INSERT INTO events (conversation_id, seq, ordinal, sender_id, client_msg_id, kind, body, created_at)"+
			" VALUES (?, ?, ?, ?, ?, 1, 'x', 1)", w.id, seq+1, ordinal, bob, fmt.Sprintf("%016d", seq))
	}
	return w
}

func (w *world) conversation(a, b uint64) uint64 {
	w.t.Helper()
	ids, err := conversation.Direct(w.t.Context(), w.db, conversation.Pair{A: a, B: b})
	if err != nil {
		w.t.Fatal(err)
	}
	return ids[0]
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatal(err)
	}
}

// set changes ann's state and says whether that changed anything.
func (w *world) set(s *chatv1.SetOwnState) (*chatv1.OwnState, bool) {
	w.t.Helper()
	s.ConversationId = w.id
	state, changed, err := w.Set(w.t.Context(), ann, s)
	if err != nil {
		w.t.Fatal(err)
	}
	return state, changed
}

// stored is ann's state as the database has it.
func (w *world) stored() *chatv1.OwnState {
	w.t.Helper()
	states, err := w.Read(w.t.Context(), ann, []uint64{w.id})
	if err != nil || len(states) != 1 {
		w.t.Fatalf("read %v, %v", states, err)
	}
	return states[0]
}

func draft(text string, edited int64) *chatv1.Draft {
	return &chatv1.Draft{Text: text, EditedAtMs: edited}
}

func TestTheReadMarkRisesAndNeverFalls(t *testing.T) {
	w := open(t)
	if s := w.stored(); s.GetNumber() != 0 || s.GetReadSeq() != 0 || s.GetConversationId() != w.id {
		t.Fatalf("at first %v", s)
	}
	s, changed := w.set(&chatv1.SetOwnState{ReadSeq: 4})
	if !changed || s.GetNumber() != 1 || s.GetReadSeq() != 4 || s.GetReadOrdinal() != 4 {
		t.Errorf("read up to 4: %v, changed %v", s, changed)
	}
	s, changed = w.set(&chatv1.SetOwnState{ReadSeq: 8})
	if !changed || s.GetNumber() != 2 || s.GetReadSeq() != 8 || s.GetReadOrdinal() != 7 {
		t.Errorf("read up to 8: %v, changed %v", s, changed)
	}
	s, changed = w.set(&chatv1.SetOwnState{ReadSeq: 5})
	if changed || s.GetNumber() != 2 || s.GetReadSeq() != 8 {
		t.Errorf("back to 5: %v, changed %v", s, changed)
	}
	if diff := cmp.Diff(s, w.stored(), protocmp.Transform()); diff != "" {
		t.Error("stored:", diff)
	}
}

func TestADraftReplacesTheOneThatItsDeviceHadSeenOrAnOlderOne(t *testing.T) {
	w := open(t)
	now := time.Now().UnixMilli()
	for _, step := range []struct {
		name  string
		base  uint64
		draft *chatv1.Draft
		want  string
	}{
		{"the first", 0, draft("one", now-1000), "one"},
		{"its own next, by a clock that went back", 1, draft("one more", now-5000), "one more"},
		{"another device's, which had seen none, earlier", 0, draft("early", now-6000), "one more"},
		{"another device's, which had seen none, later", 0, draft("late", now-4000), "late"},
		{"the same text again", 0, draft("late", now), "late"},
		{"by a clock an hour ahead", 3, draft("ahead", now+3_600_000), "ahead"},
		{"the right clock after that", 0, draft("right", now+3_600_000), "right"},
		{"sent: empty", 5, draft("", now), ""},
		{"older than the emptying", 4, draft("back again", now-1), ""},
	} {
		// A device's clock that is ahead counts as the server's. Wait until that has
		// moved on.
		before := w.stored().GetDraft().GetEditedAtMs()
		testenv.Until(t, "the clock moves", func() bool { return time.Now().UnixMilli() > before })
		s, _ := w.set(&chatv1.SetOwnState{BaseNumber: step.base, Draft: step.draft})
		if s.GetDraft().GetText() != step.want {
			t.Errorf("%s: the draft is %q, want %q", step.name, s.GetDraft().GetText(), step.want)
		}
		if late := s.GetDraft().GetEditedAtMs() - time.Now().UnixMilli(); late > 0 {
			t.Errorf("%s: edited %d ms ahead", step.name, late)
		}
		if diff := cmp.Diff(s, w.stored(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: stored %s", step.name, diff)
		}
	}
}

func TestReadMarkAndDraftTogetherOrAlone(t *testing.T) {
	w := open(t)
	const text = "你好 'x' \\ 👋"
	s, _ := w.set(&chatv1.SetOwnState{ReadSeq: 3, Draft: draft(text, 5)})
	if s.GetNumber() != 1 || s.GetReadSeq() != 3 || s.GetDraft().GetText() != text || s.GetDraft().GetNumber() != 1 {
		t.Errorf("both at once: %v", s)
	}
	s, _ = w.set(&chatv1.SetOwnState{ReadSeq: 6})
	if s.GetNumber() != 2 || s.GetDraft().GetText() == "" || s.GetDraft().GetNumber() != 1 {
		t.Errorf("the draft after a read mark: %v", s)
	}
	states, err := w.Read(t.Context(), bob, []uint64{w.id})
	if err != nil || states[0].GetNumber() != 0 || states[0].GetDraft() != nil {
		t.Errorf("the other member's: %v, %v", states, err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	w := open(t)
	tooLong := draft(strings.Repeat("x", ownstate.MaxDraft+1), 1)
	for _, tc := range []struct {
		name string
		user uint64
		set  *chatv1.SetOwnState
		want errs.Code
	}{
		{"read beyond the head", ann, &chatv1.SetOwnState{ConversationId: w.id, ReadSeq: 11}, errs.CodeInvalid},
		{"no member", 3, &chatv1.SetOwnState{ConversationId: w.id, ReadSeq: 1}, errs.CodeNotFound},
		{"no such conversation", ann, &chatv1.SetOwnState{ConversationId: 1 << 40, ReadSeq: 1}, errs.CodeNotFound},
		{"too long", ann, &chatv1.SetOwnState{ConversationId: w.id, Draft: tooLong}, errs.CodeTooLarge},
		{"an escape", ann, &chatv1.SetOwnState{ConversationId: w.id, Draft: draft("\x1b[2J", 1)}, errs.CodeInvalid},
	} {
		if _, changed, err := w.Set(t.Context(), tc.user, tc.set); errs.CodeOf(err) != tc.want || changed {
			t.Errorf("%s: %v, changed %v, want %s", tc.name, err, changed, tc.want)
		}
	}
	if s := w.stored(); s.GetNumber() != 0 {
		t.Errorf("the state is %v", s)
	}
}

func TestStatesAreReadInTheOrderAskedAsManyAsFit(t *testing.T) {
	w := open(t)
	long := strings.Repeat("x", ownstate.MaxDraft)
	ids := []uint64{w.conversation(ann, 50), w.id}
	for peer := range uint64(30) {
		id := w.conversation(ann, peer+100)
		ids = append(ids, id)
		_, _, err := w.Set(t.Context(), ann, &chatv1.SetOwnState{ConversationId: id, Draft: draft(long, 1)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for rest := ids; len(rest) > 0; {
		states, err := w.Read(t.Context(), ann, rest)
		if err != nil || len(states) == 0 {
			t.Fatalf("of %d: %d, %v", len(rest), len(states), err)
		}
		size := 0
		for i, s := range states {
			if s.GetConversationId() != rest[i] {
				t.Fatalf("state %d is of conversation %d, want %d", i, s.GetConversationId(), rest[i])
			}
			size += proto.Size(s)
		}
		if size > 300<<10 {
			t.Errorf("an answer of %d bytes", size)
		}
		rest = rest[len(states):]
	}
}

// Many devices make changes over two servers at once: every change has a number of
// its own, and the last one is stored.
func TestChangesAtOnceGetNumbersOfTheirOwn(t *testing.T) {
	w := open(t)
	servers := []*ownstate.Store{w.Store, ownstate.New(w.db)}
	const devices, each = 8, 20
	var mu sync.Mutex // owns seen
	seen := make(map[uint64]*chatv1.OwnState)
	var all sync.WaitGroup
	for device := range devices {
		all.Go(func() {
			for n := range each {
				written := draft(fmt.Sprintf("%d/%d", device, n), 1)
				set := &chatv1.SetOwnState{ConversationId: w.id, BaseNumber: 1 << 40, Draft: written}
				if rand.N(4) == 0 {
					set = &chatv1.SetOwnState{ConversationId: w.id, ReadSeq: rand.N[uint64](10) + 1}
				}
				s, changed, err := servers[device%2].Set(t.Context(), ann, set)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if changed && seen[s.GetNumber()] != nil {
					t.Errorf("two changes have the number %d", s.GetNumber())
				}
				if changed {
					seen[s.GetNumber()] = s
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	last := uint64(len(seen))
	if diff := cmp.Diff(seen[last], w.stored(), protocmp.Transform()); diff != "" || last < devices*each/2 {
		t.Errorf("%d changes; the last one differs from what is stored: %s", last, diff)
	}
}

func TestWithoutTheDatabase(t *testing.T) {
	w := open(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, set := w.Set(ended, ann, &chatv1.SetOwnState{ConversationId: w.id, ReadSeq: 1})
	_, read := w.Read(ended, ann, []uint64{w.id})
	for what, err := range map[string]error{"set": set, "read": read} {
		if e := errs.From(err); e == nil || e.Code != errs.CodeUnavailable || e.RetryAfter == 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
}
