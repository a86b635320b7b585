package chat_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire/wiretest"
)

// The requests of chat.proto, by the client of protocol_test.go.

func testSend(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann, bob, eve := f.person(), f.person(), f.person()
	c, _ := enter(t, a, ann)
	id := c.with(bob)
	first := c.ask(send(id, 1, 0, "一")).GetSent() // kind 0 is a text
	now := time.Now().UnixMilli()
	if first.GetConversationId() != id || first.GetSeq() != 1 || first.GetOrdinal() != 1 || first.GetExisting() ||
		first.GetCreatedAtMs() > now || first.GetCreatedAtMs() < now-patience.Milliseconds() {
		t.Errorf("sent %v", first)
	}
	// Durable, so any server has it.
	other, _ := enter(t, b, ann)
	events := other.ask(page(id, 0, 0, 10)).GetHistoryPage().GetEvents()
	if len(events) != 1 || events[0].GetSenderId() != ann.id || string(events[0].GetBody()) != "一" ||
		events[0].GetKind() != 1 || !bytes.Equal(events[0].GetClientMsgId(), bytes.Repeat([]byte{1}, 16)) ||
		events[0].GetCreatedAtMs() != first.GetCreatedAtMs() || events[0].GetOrdinal() != 1 {
		t.Errorf("the log has %v", events)
	}
	// Sending it again is safe, on every connection and also behind others.
	if got := c.ask(send(id, 2, 1, "二")).GetSent(); got.GetSeq() != 2 || got.GetOrdinal() != 2 {
		t.Errorf("the second is %v", got)
	}
	for _, again := range []*caller{c, other} {
		got := again.ask(send(id, 1, 1, "一")).GetSent()
		if !got.GetExisting() || got.GetSeq() != 1 || got.GetOrdinal() != 1 ||
			got.GetCreatedAtMs() != first.GetCreatedAtMs() {
			t.Errorf("sent again it is %v", got)
		}
	}
	// The body is stored as it came.
	const exact = " \tnot trimmed, not normalised: e\u0301\n"
	c.ask(send(id, 3, 1, exact))
	got := c.ask(page(id, 2, 0, 1)).GetHistoryPage().GetEvents()
	if len(got) != 1 || string(got[0].GetBody()) != exact {
		t.Errorf("the log has %q", got)
	}

	c.refused(send(id, 4, 200, "?"), "invalid", "kind")
	c.refused(send(id, 4, 1<<20, "?"), "invalid", "kind")
	short := send(id, 4, 1, "?")
	short.GetSend().ClientMsgId = []byte("short")
	c.refused(short, "invalid", "client_msg_id")
	for _, text := range []string{"\xff\xfe", "a\xc3", "", " \n\t "} {
		if got := c.ask(send(id, 4, 1, text)).GetFailure(); got.GetCode() != "invalid" {
			t.Errorf("the text %q got %v", text, got)
		}
	}
	c.refused(send(1<<40, 4, 1, "?"), "not_found", "")
	outsider, _ := enter(t, a, eve)
	outsider.refused(send(id, 4, 1, "?"), "not_found", "")
	if got := c.ask(page(id, 3, 0, 10)).GetHistoryPage(); len(got.GetEvents()) != 0 || got.GetHead() != 3 {
		t.Errorf("what was refused is in the log: %v", got)
	}
}

func testPushes(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann, bob := f.person(), f.person()
	sender, _ := enter(t, a, ann)
	id := sender.with(bob)
	var readers []*caller
	for _, s := range []*running{a, b} {
		for _, p := range []person{ann, bob} {
			c, _ := enter(t, s, p)
			readers = append(readers, c)
		}
	}
	for i := byte(1); i <= 3; i++ {
		sent := sender.ask(send(id, i, 1, fmt.Sprint(i))).GetSent()
		for _, c := range readers {
			f := c.take("the event", func(f *chatv1.ServerFrame) bool { return f.GetEvent().GetSeq() == uint64(i) })
			e := f.GetEvent()
			if f.GetRequestId() != 0 || e.GetConversationId() != id || e.GetSenderId() != ann.id || e.GetKind() != 1 ||
				string(e.GetBody()) != fmt.Sprint(i) || e.GetOrdinal() != sent.GetOrdinal() ||
				e.GetCreatedAtMs() != sent.GetCreatedAtMs() ||
				!bytes.Equal(e.GetClientMsgId(), bytes.Repeat([]byte{i}, 16)) {
				t.Errorf("pushed %v", f)
			}
		}
	}
	for _, p := range []person{ann, bob} {
		_, heads := enter(t, b, p)
		if len(heads) != 1 || heads[0].GetConversationId() != id || heads[0].GetSeq() != 3 ||
			heads[0].GetOrdinal() != 3 || heads[0].GetOwnState() != 0 {
			t.Errorf("the heads at connect are %v", heads)
		}
	}
}

func testConversations(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann := f.person()
	c, _ := enter(t, a, ann)
	var ids []uint64
	peers := map[uint64]person{}
	for range 5 {
		peer := f.person()
		got := c.ask(open(peer.name)).GetConversation()
		if got.GetPeer().GetId() != peer.id || got.GetPeer().GetName() != peer.name ||
			got.GetHead() != 0 || got.GetOrdinal() != 0 {
			t.Errorf("a new conversation is %v", got)
		}
		other, _ := enter(t, b, peer)
		back := other.ask(open(ann.name)).GetConversation()
		if back.GetId() != got.GetId() || back.GetPeer().GetId() != ann.id || back.GetPeer().GetName() != ann.name {
			t.Errorf("from the other side it is %v", back)
		}
		ids = append(ids, got.GetId())
		peers[got.GetId()] = peer
	}
	c.ask(send(ids[2], 1, 1, "hi"))
	if got := c.ask(open(peers[ids[2]].name)).GetConversation(); got.GetHead() != 1 || got.GetOrdinal() != 1 {
		t.Errorf("with an event it is %v", got)
	}
	c.refused(open("nobody"), "not_found", "peer_name")

	slices.Sort(ids)
	var got []uint64
	for after := uint64(0); ; after = got[len(got)-1] {
		l := c.ask(list(after, 2)).GetConversationList()
		for _, one := range l.GetConversations() {
			got = append(got, one.GetId())
			if one.GetPeer().GetName() != peers[one.GetId()].name {
				t.Errorf("listed as %v", one)
			}
		}
		n, left := len(l.GetConversations()), len(ids)-len(got)
		if l.GetMore() != (left > 0) || n > 2 || n == 0 {
			t.Fatalf("%v after %d, %d are left", l, after, left)
		}
		if !l.GetMore() {
			break
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("listed %v, want %v", got, ids)
	}
	if l := c.ask(list(0, 0)).GetConversationList(); len(l.GetConversations()) != len(ids) || l.GetMore() {
		t.Errorf("without a limit %v", l)
	}
	if l := c.ask(list(ids[4], 2)).GetConversationList(); len(l.GetConversations()) != 0 || l.GetMore() {
		t.Errorf("behind the last %v", l)
	}
}

func testHistory(t *testing.T, f *fleet, a, _ *running) {
	t.Helper()
	ann, bob, eve := f.person(), f.person(), f.person()
	c, _ := enter(t, a, ann)
	id := c.with(bob)
	empty := c.ask(page(id, 0, 0, 5)).GetHistoryPage()
	if empty.GetConversationId() != id || len(empty.GetEvents()) != 0 || empty.GetHead() != 0 {
		t.Errorf("an empty log is %v", empty)
	}
	for i := byte(1); i <= 6; i++ {
		c.ask(send(id, i, 1, fmt.Sprint(i)))
	}
	for _, test := range []struct {
		after, before uint64
		limit         uint32
		want          []uint64
	}{
		{0, 0, 2, []uint64{1, 2}},
		{2, 0, 3, []uint64{3, 4, 5}},
		{4, 0, 10, []uint64{5, 6}},
		{6, 0, 10, nil},
		{99, 0, 10, nil},
		{0, 5, 2, []uint64{3, 4}},
		{0, 3, 10, []uint64{1, 2}},
		{0, 1, 10, nil},
		{0, 99, 2, []uint64{5, 6}},
		{5, 4, 2, []uint64{2, 3}}, // with before set, after says nothing
	} {
		got := c.ask(page(id, test.after, test.before, test.limit)).GetHistoryPage()
		var seqs []uint64
		for _, e := range got.GetEvents() {
			seqs = append(seqs, e.GetSeq())
			if string(e.GetBody()) != fmt.Sprint(e.GetSeq()) || e.GetConversationId() != id {
				t.Errorf("in the page stands %v", e)
			}
		}
		if !slices.Equal(seqs, test.want) || got.GetHead() != 6 || got.GetConversationId() != id {
			t.Errorf("after %d, before %d, limit %d: %v with head %d, want %v",
				test.after, test.before, test.limit, seqs, got.GetHead(), test.want)
		}
	}
	outsider, _ := enter(t, a, eve)
	outsider.refused(page(id, 0, 0, 5), "not_found", "")
}

// own takes the own states that were pushed to a connection so far.
func (c *caller) own() (out []*chatv1.OwnState) {
	c.t.Helper()
	for _, f := range c.pushes(func(f *chatv1.ServerFrame) bool { return f.GetOwnState() != nil }) {
		out = append(out, f.GetOwnState())
	}
	return out
}

// ownPush waits for the push of an own state.
func (c *caller) ownPush(number uint64) *chatv1.OwnState {
	c.t.Helper()
	return c.take(fmt.Sprintf("the push of own state %d", number), func(f *chatv1.ServerFrame) bool {
		return f.GetRequestId() == 0 && f.GetOwnState().GetNumber() == number
	}).GetOwnState()
}

func testReadMark(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann, bob, eve := f.person(), f.person(), f.person()
	c, _ := enter(t, a, ann)
	id := c.with(bob)
	for i := byte(1); i <= 4; i++ {
		c.ask(send(id, i, 1, fmt.Sprint(i)))
	}
	here, _ := enter(t, a, ann)
	elsewhere, _ := enter(t, b, ann)
	peer, _ := enter(t, a, bob)
	number := uint64(0)
	for _, test := range []struct{ set, want, number uint64 }{
		{2, 2, 1}, {1, 2, 1}, {0, 2, 1}, {2, 2, 1}, {3, 3, 2}, {4, 4, 3},
	} {
		got := c.ask(set(&chatv1.SetOwnState{ConversationId: id, ReadSeq: test.set})).GetOwnState()
		if got.GetConversationId() != id || got.GetNumber() != test.number || got.GetReadSeq() != test.want ||
			got.GetReadOrdinal() != test.want || got.GetDraft().GetText() != "" {
			t.Errorf("read up to %d: %v, want %d with number %d", test.set, got, test.want, test.number)
		}
		if test.number == number {
			continue // nothing changed
		}
		number = test.number
		for _, other := range []*caller{here, elsewhere} {
			if push := other.ownPush(number); !proto.Equal(push, got) {
				t.Errorf("pushed %v, answered %v", push, got)
			}
		}
	}
	c.refused(set(&chatv1.SetOwnState{ConversationId: id, ReadSeq: 5}), "invalid", "read_seq")
	outsider, _ := enter(t, a, eve)
	outsider.refused(set(&chatv1.SetOwnState{ConversationId: id, ReadSeq: 1}), "not_found", "")
	outsider.refused(set(&chatv1.SetOwnState{ConversationId: 1 << 40, ReadSeq: 1}), "not_found", "")
	// Neither the connection that set it nor another user gets the push.
	if got := c.own(); len(got) != 0 {
		t.Errorf("the connection that set it was pushed %v", got)
	}
	if got := peer.own(); len(got) != 0 {
		t.Errorf("the other user was pushed %v", got)
	}
	if got := peer.ask(readStates(id)).GetOwnStates().GetStates(); len(got) != 1 || got[0].GetNumber() != 0 {
		t.Errorf("the other user's own state is %v", got)
	}
	// The number is told with the heads.
	if _, heads := enter(t, b, ann); len(heads) != 1 || heads[0].GetOwnState() != number || heads[0].GetSeq() != 4 {
		t.Errorf("the heads at connect are %v", heads)
	}
}

// The rules of own states are those that the fake server of the client's tests keeps.
func testOwnStates(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann := f.person()
	c, _ := enter(t, a, ann)
	id := c.with(f.person())
	for i := byte(1); i <= 5; i++ {
		c.ask(send(id, i, 1, fmt.Sprint(i)))
	}
	device := func(s *running) wiretest.Device {
		return wiretest.Device{Endpoint: &chatv1.Endpoint{Address: s.ClientAddr()}, Token: ann.token}
	}
	wiretest.OwnStates(t, device(a), device(b), id)
}

func testDrafts(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann, bob := f.person(), f.person()
	c, _ := enter(t, a, ann)
	other, _ := enter(t, b, ann)
	id := c.with(bob)
	now := time.Now().UnixMilli()
	draft := func(on *caller, base uint64, text string, at int64) *chatv1.OwnState {
		t.Helper()
		return on.ask(set(&chatv1.SetOwnState{
			ConversationId: id, BaseNumber: base, Draft: &chatv1.Draft{Text: text, EditedAtMs: at, Number: 77},
		})).GetOwnState()
	}
	is := func(what string, got *chatv1.OwnState, number uint64, text string, at int64, by uint64) {
		t.Helper()
		d := got.GetDraft()
		if got.GetNumber() != number || d.GetText() != text || d.GetEditedAtMs() != at || d.GetNumber() != by {
			t.Errorf("%s: %v, want number %d, draft %q of %d by %d", what, got, number, text, at, by)
		}
	}
	is("the first", draft(c, 0, "one", now-1000), 1, "one", now-1000, 1)
	is("by a device that knew it", draft(other, 1, "two", now-5000), 2, "two", now-5000, 2)
	is("by one that did not, earlier", draft(c, 1, "lost", now-6000), 2, "two", now-5000, 2)
	is("by one that did not, later", draft(c, 1, "three", now-4000), 3, "three", now-4000, 3)
	// Never later than the server's clock when it arrived.
	got := draft(c, 3, "of tomorrow", now+24*time.Hour.Milliseconds())
	at := got.GetDraft().GetEditedAtMs()
	if at < now || at > time.Now().UnixMilli() {
		t.Errorf("a draft of tomorrow was edited at %d, now is %d", at, now)
	}
	is("of tomorrow", got, 4, "of tomorrow", at, 4)
	// A read mark leaves the draft, and a draft the read mark.
	c.ask(send(id, 1, 1, "hi"))
	got = c.ask(set(&chatv1.SetOwnState{ConversationId: id, ReadSeq: 1, BaseNumber: 4})).GetOwnState()
	is("read", got, 5, "of tomorrow", at, 4)
	got = draft(other, 4, "", now-9000) // the device knew the draft, not the read mark
	is("removed", got, 6, "", now-9000, 6)
	if got.GetReadSeq() != 1 || got.GetReadOrdinal() != 1 {
		t.Errorf("with the draft the read mark became %v", got)
	}
	for i, to := range []*caller{other, c, other, other, other, c} { // each time the one that did not set it
		if push := to.ownPush(uint64(i + 1)); push.GetConversationId() != id {
			t.Errorf("pushed %v", push)
		}
	}
	if got := append(c.own(), other.own()...); len(got) != 0 {
		t.Errorf("pushed besides: %v", got)
	}
	bad := &chatv1.SetOwnState{ConversationId: id, ReadSeq: 99, Draft: &chatv1.Draft{Text: "half", EditedAtMs: now}}
	c.refused(set(bad), "invalid", "read_seq")
	states := c.ask(readStates(id)).GetOwnStates().GetStates()
	if len(states) != 1 {
		t.Fatalf("own states %v", states)
	}
	is("a refused change changes nothing", states[0], 6, "", now-9000, 6)
}

func testReadOwnStates(t *testing.T, f *fleet, a, _ *running) {
	t.Helper()
	c, _ := enter(t, a, f.person())
	most := int(c.welcome.GetLimits().GetMaxPage())
	long := strings.Repeat("x", int(c.welcome.GetLimits().GetMaxTextBytes()))
	var ids []uint64
	for i := range 24 {
		ids = append(ids, c.with(f.person()))
		if i%6 != 5 { // some have no own state
			c.ask(set(&chatv1.SetOwnState{ConversationId: ids[i], Draft: &chatv1.Draft{Text: long, EditedAtMs: 1}}))
		}
	}
	slices.Reverse(ids)
	asked := append(ids[:len(ids):len(ids)], 1<<40) // the last one is nobody's
	answers := 0
	for rest := asked; len(rest) > 0; answers++ {
		got := c.ask(readStates(rest...)).GetOwnStates().GetStates()
		if len(got) == 0 || len(got) > len(rest) {
			t.Fatalf("%d own states for %d conversations", len(got), len(rest))
		}
		for i, s := range got {
			at := len(asked) - len(rest) + i
			set := at < len(ids) && (len(ids)-1-at)%6 != 5
			if s.GetConversationId() != rest[i] || (s.GetNumber() == 1) != set ||
				(s.GetDraft().GetText() == long) != set {
				t.Errorf("own state %d is of conversation %d with number %d", at, s.GetConversationId(), s.GetNumber())
			}
		}
		rest = rest[len(got):]
	}
	if answers < 2 {
		t.Error("all fitted into a frame: more is needed to see that they are split")
	}
	c.refused(readStates(make([]uint64, most+1)...), "too_large", "conversation_ids")
	if got := c.ask(readStates()).GetOwnStates(); got == nil || len(got.GetStates()) != 0 {
		t.Errorf("for no conversation %v", got)
	}
}
