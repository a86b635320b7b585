// Package wiretest holds contract tests of the chat protocol. The chat server passes
// them, and so does the fake one that the client's tests use.
package wiretest

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
	"github.com/msrchat/msrchat/shared/wire"
)

// Device is a connection of the user whose own state is tested.
type Device struct {
	Endpoint *chatv1.Endpoint
	Token    []byte
}

// setting is a request to set the own state, and what it leads to.
type setting struct {
	name string
	set  *chatv1.SetOwnState
	// The state afterwards; where code is set, the request is refused and the state
	// is as before.
	number, read, ordinal uint64
	draft                 string
	code                  errs.Code
	field                 string
}

// OwnStates tests the rules of own states: of the read mark, of drafts, and of the
// number. The two devices belong to one user, who is a member of the conversation
// and has set nothing there. The conversation has five texts.
func OwnStates(t *testing.T, one, two Device, conversation uint64) {
	t.Helper()
	a, b := one.dial(t), two.dial(t)
	now := time.Now().UnixMilli()
	draft := func(base uint64, text string, edited int64) *chatv1.SetOwnState {
		return &chatv1.SetOwnState{BaseNumber: base, Draft: &chatv1.Draft{Text: text, EditedAtMs: edited}}
	}
	long := strings.Repeat("x", text.MaxMessageBytes)
	for i, s := range []setting{
		{name: "the mark rises", set: &chatv1.SetOwnState{ReadSeq: 2}, number: 1, read: 2, ordinal: 2},
		{name: "the mark never falls", set: &chatv1.SetOwnState{ReadSeq: 1}, number: 1, read: 2, ordinal: 2},
		{name: "the same mark", set: &chatv1.SetOwnState{ReadSeq: 2}, number: 1, read: 2, ordinal: 2},
		{name: "nothing is set", set: &chatv1.SetOwnState{}, number: 1, read: 2, ordinal: 2},
		{name: "beyond the log", set: &chatv1.SetOwnState{ReadSeq: 6}, code: errs.CodeInvalid, field: "read_seq"},
		{name: "no member", set: &chatv1.SetOwnState{ConversationId: 1 << 40, ReadSeq: 1}, code: errs.CodeNotFound},
		{name: "a draft", set: draft(1, "dear", now-9000), number: 2, read: 2, ordinal: 2, draft: "dear"},
		{
			name: "a draft by a device that had seen the present one", set: draft(2, "dear 波", now-9500),
			number: 3, read: 2, ordinal: 2, draft: "dear 波",
		},
		{
			name: "not seen, edited before", set: draft(2, "old", now-9900),
			number: 3, read: 2, ordinal: 2, draft: "dear 波",
		},
		{
			name: "not seen, edited later", set: draft(0, "later", now-9000),
			number: 4, read: 2, ordinal: 2, draft: "later",
		},
		{name: "the same text", set: draft(4, "later", now-8000), number: 4, read: 2, ordinal: 2, draft: "later"},
		{
			name: "a mark alone leaves the draft", set: &chatv1.SetOwnState{ReadSeq: 3},
			number: 5, read: 3, ordinal: 3, draft: "later",
		},
		{name: "a draft too long", set: draft(5, long+"x", now-7000), code: errs.CodeTooLarge, field: "draft"},
		{
			name: "a good draft with a wrong mark is not set", code: errs.CodeInvalid, field: "read_seq",
			set: &chatv1.SetOwnState{ReadSeq: 9, BaseNumber: 5, Draft: &chatv1.Draft{Text: "half", EditedAtMs: now}},
		},
		{name: "the longest draft", set: draft(5, long, now-7000), number: 6, read: 3, ordinal: 3, draft: long},
		{
			name: "both, by a clock an hour ahead", number: 7, read: 5, ordinal: 5, draft: "ahead",
			set: &chatv1.SetOwnState{
				ReadSeq: 5, BaseNumber: 6, Draft: &chatv1.Draft{Text: "ahead", EditedAtMs: now + 3_600_000},
			},
		},
		{name: "empty, because it was sent", set: draft(7, "", now-6000), number: 8, read: 5, ordinal: 5},
	} {
		from, other := a, b
		if i%2 == 1 {
			from, other = b, a
		}
		s.try(t, from, other, conversation)
	}
}

func (d Device) dial(t *testing.T) *wire.Conn {
	t.Helper()
	c, _, err := new(wire.Dialer).Dial(t.Context(), d.Endpoint, wire.Login{Token: d.Token, Program: "wiretest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// try makes the setting on one connection and compares the answer with what it must
// be, and with what another connection reads.
func (s setting) try(t *testing.T, from, other *wire.Conn, conversation uint64) {
	t.Helper()
	set := s.set
	if set.GetConversationId() == 0 {
		set.ConversationId = conversation
	}
	before := read(t, other, conversation)
	f, err := from.Call(t.Context(), &chatv1.ClientFrame{
		RequestId: 1, Body: &chatv1.ClientFrame_SetOwnState{SetOwnState: set},
	})
	after := read(t, other, conversation)
	if s.code != "" {
		var field string
		if e := errs.From(err); e != nil {
			field = e.Field
		}
		if errs.CodeOf(err) != s.code || field != s.field {
			t.Errorf("%s: %v (field %q), want a refusal %q (field %q)", s.name, err, field, s.code, s.field)
		}
		if !proto.Equal(before, after) {
			t.Errorf("%s: the refusal changed %v to %v", s.name, before, after)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	got := f.GetOwnState()
	if got.GetConversationId() != conversation || got.GetNumber() != s.number || got.GetReadSeq() != s.read ||
		got.GetReadOrdinal() != s.ordinal || got.GetDraft().GetText() != s.draft {
		t.Errorf("%s: the answer is %.200v, want number %d, read %d (%d), draft %.20q",
			s.name, got, s.number, s.read, s.ordinal, s.draft)
	}
	if late := got.GetDraft().GetEditedAtMs() - time.Now().UnixMilli(); late > 0 {
		t.Errorf("%s: edited %d ms in the future", s.name, late)
	}
	if !proto.Equal(got, after) {
		t.Errorf("%s: the answer is %.200v, the other device reads %.200v", s.name, got, after)
	}
}

func read(t *testing.T, c *wire.Conn, conversation uint64) *chatv1.OwnState {
	t.Helper()
	f, err := c.Call(t.Context(), &chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_ReadOwnStates{
		ReadOwnStates: &chatv1.ReadOwnStates{ConversationIds: []uint64{conversation}},
	}})
	states := f.GetOwnStates().GetStates()
	if err != nil || len(states) != 1 {
		t.Fatalf("read the own state: %v, %v", f, err)
	}
	return states[0]
}
