package chat_test

import (
	"fmt"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

func (w *wire) set(s *chatv1.SetOwnState) *chatv1.OwnState {
	w.t.Helper()
	answer := w.call(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_SetOwnState{SetOwnState: s}})
	if answer.GetOwnState() == nil {
		w.t.Fatalf("set own state: %v", answer)
	}
	return answer.GetOwnState()
}

// number waits until the own state of a conversation is announced with a number.
func (w *wire) number(conversation, number uint64) {
	w.t.Helper()
	w.await(fmt.Sprintf("own state %d", number), func(f *chatv1.ServerFrame) bool {
		for _, h := range f.GetHeads().GetHeads() {
			if h.GetConversationId() == conversation && h.GetOwnState() >= number {
				return true
			}
		}
		return false
	})
}

// What a user sets on one device reaches the user's other devices at once, on all
// servers, and nobody else. Its number is announced when the state has not changed
// for a while, and at the next log-in.
func TestAnOwnStateReachesTheOtherDevices(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	a, b := f.start("a"), f.start("b")
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	desk, phone, tablet, other := login(t, a, ann), login(t, b, ann), login(t, a, ann), login(t, b, bob)
	id := desk.openDirect(bob.name).GetId()
	other.openDirect(ann.name)
	other.send(id, "one")
	other.send(id, "two")
	const begun = "an answ"
	set := desk.set(&chatv1.SetOwnState{
		ConversationId: id,
		ReadSeq:        2,
		Draft:          &chatv1.Draft{Text: begun, EditedAtMs: 1},
	})
	if set.GetNumber() != 1 || set.GetReadSeq() != 2 || set.GetReadOrdinal() != 2 {
		t.Fatalf("set %v", set)
	}
	for _, device := range []*wire{phone, tablet} {
		got := device.await("the own state", func(f *chatv1.ServerFrame) bool {
			return f.GetOwnState() != nil
		}).GetOwnState()
		if got.GetConversationId() != id || got.GetNumber() != 1 || got.GetReadSeq() != 2 ||
			got.GetDraft().GetText() != begun {
			t.Errorf("pushed %v", got)
		}
	}
	for _, device := range []*wire{desk, phone, tablet} {
		device.number(id, 1)
	}
	other.head(id, 2) // repair has announced this conversation
	for _, w := range []*wire{desk, other} {
		for _, push := range w.pushes {
			if push.GetOwnState() != nil {
				t.Errorf("pushed to the device that set it, or to another user: %v", push)
			}
		}
	}
	if again := desk.set(&chatv1.SetOwnState{ConversationId: id, ReadSeq: 1}); again.GetNumber() != 1 {
		t.Errorf("a read mark that is lower changed the state: %v", again)
	}
	late := login(t, b, ann)
	late.number(id, 1)
	answer := late.call(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_ReadOwnStates{
		ReadOwnStates: &chatv1.ReadOwnStates{ConversationIds: []uint64{id, id + 999}},
	}})
	states := answer.GetOwnStates().GetStates()
	if len(states) != 2 || states[0].GetNumber() != 1 || states[0].GetReadSeq() != 2 || states[1].GetNumber() != 0 {
		t.Errorf("read %v", answer)
	}
}
