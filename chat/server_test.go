package chat_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

func TestTwoPeopleOnTwoServers(t *testing.T) {
	f := newFleet(t, false)
	a, b := f.start("a"), f.start("b")
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	annA, annB, bobB, bobA := login(t, a, ann), login(t, b, ann), login(t, b, bob), login(t, a, bob)
	if annA.welcome.GetUserId() != ann.id || annA.welcome.GetInstance() != "a" || annA.welcome.GetLogEpoch() == 0 {
		t.Errorf("welcome %v", annA.welcome)
	}
	c := annA.openDirect(bob.name)
	if c.GetPeer().GetName() != bob.name || c.GetHead() != 0 {
		t.Errorf("the conversation is %v", c)
	}
	if same := bobB.openDirect(strings.ToUpper(ann.name)); same.GetId() != c.GetId() {
		t.Errorf("the two see different conversations: %v and %v", c, same)
	}
	texts := []string{"hello", "你好，北京", "こんにちは 안녕 👨‍👩‍👧", strings.Repeat("长", 4000)}
	for i, s := range texts {
		if got := annA.send(c.GetId(), s); got.GetSeq() != uint64(i+1) {
			t.Errorf("message %d got number %d", i+1, got.GetSeq())
		}
		for _, w := range []*wire{bobB, bobA, annB} { // every device, the sender's other one too
			if e := w.event(s); e.GetSeq() != uint64(i+1) || e.GetSenderId() != ann.id {
				t.Errorf("event %v", e)
			}
		}
	}
	if got := bobB.send(c.GetId(), "answer"); got.GetSeq() != 5 {
		t.Errorf("the answer got number %d", got.GetSeq())
	}
	// The connection that sent has the acknowledgements, which say the same.
	pushed := annA.await("an event", func(f *chatv1.ServerFrame) bool { return f.GetEvent() != nil }).GetEvent()
	if string(pushed.GetBody()) != "answer" {
		t.Errorf("the sending connection was pushed %q", pushed.GetBody())
	}
	page := bobB.history(c.GetId(), 1)
	if page.GetHead() != 5 || len(page.GetEvents()) != 4 || string(page.GetEvents()[0].GetBody()) != texts[1] {
		t.Errorf("history from 2 has %d events, head %d", len(page.GetEvents()), page.GetHead())
	}
	all := bobB.call(listFrame()).GetConversationList().GetConversations()
	if len(all) != 1 || all[0].GetPeer().GetName() != ann.name || all[0].GetHead() != 5 {
		t.Errorf("bob's conversations: %v", all)
	}
	late := login(t, b, ann)
	late.head(c.GetId(), 5)
}

// Events that no server of today would store hide no others of their page, forwards or
// backwards, and people write on.
func TestABadEventInTheLogHidesNoPage(t *testing.T) {
	f := newFleet(t, false)
	a := f.start("a")
	ann, bob := f.person(), f.person()
	w, other := login(t, a, ann), login(t, a, bob)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "before")
	for n, bad := range []struct {
		kind   int
		sender uint64
		body   string
	}{
		{1, ann.id, "\xff\xfe"},
		{1, bob.id, "\x1b[2J\u202e"},
		{0, ann.id, ""},
		{255, ann.id, "x"},
		{1, 1 << 62, "of nobody"},
		{1, ann.id, strings.Repeat("x", 16_000)},
	} {
		_, err := f.sql.ExecContext(t.Context(), "INSERT INTO events"+
			" (conversation_id, seq, sender_id, client_msg_id, kind, body, created_at) VALUES (?, ?, ?, ?, ?, ?, 1)",
			c.GetId(), n+2, bad.sender, append(make([]byte, 15), byte(n+1)), bad.kind, bad.body)
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.send(c.GetId(), "after"); got.GetSeq() != 8 {
		t.Errorf("the next message got number %d, want 8", got.GetSeq())
	}
	other.event("after")
	forwards := other.history(c.GetId(), 0)
	backwards := other.call(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
		History: &chatv1.History{ConversationId: c.GetId(), Before: 9},
	}}).GetHistoryPage()
	for _, page := range []*chatv1.HistoryPage{forwards, backwards} {
		events := page.GetEvents()
		if len(events) != 8 || page.GetHead() != 8 ||
			string(events[0].GetBody()) != "before" || string(events[7].GetBody()) != "after" {
			t.Errorf("a page has %d events of 8, head %d", len(events), page.GetHead())
		}
	}
}

func TestARetryIsAnsweredLikeTheFirst(t *testing.T) {
	f := newFleet(t, false)
	a, b := f.start("a"), f.start("b")
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	w := login(t, a, ann)
	c := w.openDirect(bob.name)
	m := message(c.GetId(), "once")
	first := w.call(m).GetSent()
	elsewhere := login(t, b, ann)
	again := elsewhere.call(m).GetSent()
	if first.GetSeq() != 1 || again.GetSeq() != 1 || !again.GetExisting() {
		t.Errorf("first %v, again %v", first, again)
	}
	if again.GetCreatedAtMs() != first.GetCreatedAtMs() {
		t.Errorf("created at %d, again %d", first.GetCreatedAtMs(), again.GetCreatedAtMs())
	}
	m.GetSend().Body = []byte("something else")
	if got := elsewhere.call(m).GetFailure(); got.GetCode() != "conflict" {
		t.Errorf("the same id with another text: %v", got)
	}
	// One connection's messages are logged in the order sent, however they are batched.
	const n = 200
	for i := range n {
		m := message(c.GetId(), fmt.Sprint(i))
		m.RequestId = uint64(1000 + i)
		w.write(m)
	}
	for range n {
		w.await("an answer", func(f *chatv1.ServerFrame) bool { return f.GetRequestId() >= 1000 })
	}
	for i, e := range w.history(c.GetId(), 1).GetEvents() {
		if string(e.GetBody()) != fmt.Sprint(i) || e.GetSeq() != uint64(i+2) {
			t.Fatalf("event %d is %q", e.GetSeq(), e.GetBody())
		}
	}
}

func TestBadInputCostsOnlyItsSender(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	s := f.start("a")
	ann, bob, eve := f.person(), f.person(), f.person()
	bystander := login(t, s, ann)
	c := bystander.openDirect(bob.name)
	if err := f.sessions.Revoke(t.Context(), eve.sess.ID); err != nil {
		t.Fatal(err)
	}
	write := func(m *chatv1.ClientFrame) func(w *wire) { return func(w *wire) { w.write(m) } }
	raw := func(b ...byte) func(w *wire) { return func(w *wire) { w.raw(b) } }
	garbage := make([]byte, 4096)
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	const (
		protocol = chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL
		unknown  = chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED
	)
	for _, c := range []struct {
		name string
		do   func(*wire)
		want chatv1.GoodbyeCode
	}{
		{"empty frame", raw(0, 0, 0, 0), protocol},
		{"oversized frame", raw(0xff, 0xff, 0xff, 0xff), protocol},
		{"oversized by one", raw(binary.BigEndian.AppendUint32(nil, 4*text.MaxMessageRunes+4<<10+1)...), protocol},
		{"random bytes", raw(append([]byte{0, 0, 16, 0}, garbage...)...), protocol},
		{"before Hello", write(message(1, "hi")), protocol},
		{"wrong version", write(helloFrame(99, ann.token)), chatv1.GoodbyeCode_GOODBYE_CODE_VERSION},
		{"made-up token", write(helloFrame(1, make([]byte, 32))), unknown},
		{"short token", write(helloFrame(1, []byte("x"))), unknown},
		{"revoked token", write(helloFrame(1, eve.token)), unknown},
		{"truncated frame, then silence", raw(0, 0, 0, 9, 1), chatv1.GoodbyeCode_GOODBYE_CODE_SILENT},
		{"silence", func(*wire) {}, chatv1.GoodbyeCode_GOODBYE_CODE_SILENT},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dial(t, s.ClientAddr())
			c.do(w)
			if g := w.goodbye(); g.GetCode() != c.want || g.GetText() == "" {
				t.Errorf("got %v, want %v", g, c.want)
			}
			if _, err := w.next(patience); err == nil {
				t.Error("a frame after Goodbye")
			}
		})
	}
	t.Run("requests", func(t *testing.T) {
		shortID := message(1, "hi")
		shortID.GetSend().ClientMsgId = []byte("x")
		tooFar := &chatv1.SetOwnState{ConversationId: c.GetId(), ReadSeq: 1 << 40}
		others := c.GetId() + 999
		for _, c := range []struct {
			name string
			f    *chatv1.ClientFrame
			want string
		}{
			{"control characters", message(c.GetId(), "a\x1b[2J"), "invalid"},
			{"right-to-left override", message(c.GetId(), "a\u202eb"), "invalid"},
			{"10,000 characters", message(c.GetId(), strings.Repeat("x", 10_000)), "too_large"},
			{"blank", message(c.GetId(), " \n "), "invalid"},
			{"invalid UTF-8", message(c.GetId(), "\xff\xfe"), "invalid"},
			{"unknown kind", kindOf(200, message(c.GetId(), "hi")), "invalid"},
			{"read beyond the head", ownState(tooFar), "invalid"},
			{"others' own state", ownState(&chatv1.SetOwnState{ConversationId: others, ReadSeq: 1}), "not_found"},
			{"others' conversation", message(others, "hi"), "not_found"},
			{"others' history", historyFrame(others, 0), "not_found"},
			{"short id", shortID, "invalid"},
			{"nobody", openDirectFrame("nobody"), "not_found"},
			{"oneself", openDirectFrame(ann.name), "invalid"},
			{"a bad name", openDirectFrame("a\x00"), "invalid"},
			{"nothing", &chatv1.ClientFrame{}, "invalid"},
		} {
			if got := bystander.call(c.f).GetFailure(); got.GetCode() != c.want || got.GetText() == "" {
				t.Errorf("%s: got %v, want %s", c.name, got, c.want)
			}
		}
		// A protobuf string, such as a name, cannot hold invalid UTF-8: the frame cannot
		// be decoded.
		w := login(t, s, bob)
		w.raw([]byte{0, 0, 0, 8, 8, 9, 0x2a, 4, 0x0a, 2, 0xff, 0xfe})
		if g := w.goodbye(); g.GetCode() != protocol {
			t.Errorf("invalid UTF-8: %v", g)
		}
	})
	if got := bystander.send(c.GetId(), "still here"); got.GetSeq() != 1 {
		t.Errorf("the bystander's message got %v", got)
	}
	metrics := get(t, "http://"+s.HTTPAddr()+"/metrics")
	for _, want := range []string{
		`msrchat_chat_goodbyes_total{code="GOODBYE_CODE_PROTOCOL"}`,
		`msrchat_chat_goodbyes_total{code="GOODBYE_CODE_SILENT"} 2`,
		`msrchat_chat_goodbyes_total{code="GOODBYE_CODE_UNAUTHENTICATED"} 3`,
		`msrchat_chat_refused_total{code="invalid"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func kindOf(kind uint32, f *chatv1.ClientFrame) *chatv1.ClientFrame {
	f.GetSend().Kind = kind
	return f
}

func ownState(s *chatv1.SetOwnState) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_SetOwnState{SetOwnState: s}}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheLastPushIsDropped(t *testing.T) {
	f := newFleet(t, false)
	var drop atomic.Bool
	hook := func(c *chat.Config) {
		c.Hooks.DropPush = func(*chatv1.Event) bool { return drop.Load() }
	}
	a, b := f.start("a", hook), f.start("b", hook)
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	w, r := login(t, a, ann), login(t, b, bob)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "seen")
	r.event("seen")
	for i, what := range []string{"alone", "with Redis flushed"} {
		t.Run(what, func(t *testing.T) {
			drop.Store(true)
			sent := w.send(c.GetId(), "dropped")
			if i == 1 {
				testenv.EmptyRedis(t, f.redis)
			}
			at := time.Now()
			r.head(c.GetId(), sent.GetSeq())
			if took := time.Since(at); took > heartbeat {
				t.Errorf("the head came after %v, a heartbeat is %v", took, heartbeat)
			}
			drop.Store(false)
		})
	}
	// After the flush pushes work again, through routes that were written anew.
	w.send(c.GetId(), "after")
	r.event("after")
}

func TestDrainMovesEverybodyAndLosesNothing(t *testing.T) {
	f := newFleet(t, false)
	a, b := f.start("a"), f.start("b")
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	w, r := login(t, a, ann), login(t, b, bob)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "before")
	r.event("before") // the link is up
	var ids []uint64
	for i := range 50 {
		m := message(c.GetId(), fmt.Sprint("under way ", i))
		m.RequestId = uint64(1000 + i)
		ids = append(ids, m.GetRequestId())
		w.write(m)
	}
	stopped := make(chan struct{})
	go func() {
		a.stop()
		close(stopped)
	}()
	g := w.goodbye()
	acked := 0
	for _, f := range w.pushes { // the frames before the Goodbye
		if f.GetSent() != nil && f.GetRequestId() >= ids[0] {
			acked++
		}
	}
	if g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING || !g.GetReconnect() {
		t.Errorf("goodbye %v", g)
	}
	if to := g.GetAlternates(); len(to) != 1 || to[0].GetInstance() != "b" {
		t.Errorf("alternates %v", to)
	}
	_ = w.nc.Close()
	<-stopped
	// What was acknowledged is in the log and reached the other server.
	again := login(t, b, ann)
	page := again.history(c.GetId(), 1)
	if len(page.GetEvents()) < acked {
		t.Errorf("%d in the log, %d acknowledged", len(page.GetEvents()), acked)
	}
	if n := len(page.GetEvents()); n > 0 {
		r.head(c.GetId(), page.GetHead())
	}
	if sent := again.send(c.GetId(), "after"); sent.GetSeq() != page.GetHead()+1 {
		t.Errorf("after the drain: %v, head was %d", sent, page.GetHead())
	}
	if _, err := net.Dial("tcp", a.ClientAddr()); err == nil {
		t.Error("the drained server still listens")
	}
}

func TestARevokedSessionIsEnded(t *testing.T) {
	f := newFleet(t, false)
	s := f.start("a")
	ann, bob := f.person(), f.person()
	w, other := login(t, s, ann), login(t, s, bob)
	if err := f.sessions.Revoke(t.Context(), ann.sess.ID); err != nil {
		t.Fatal(err)
	}
	if g := w.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED || g.GetReconnect() {
		t.Errorf("goodbye %v", g)
	}
	other.openDirect(ann.name) // undisturbed
}

func TestAFullServerSendsElsewhere(t *testing.T) {
	f := newFleet(t, false)
	s := f.start("a", func(c *chat.Config) { c.Capacity = 1 })
	ann, bob := f.person(), f.person()
	login(t, s, ann)
	w := dial(t, s.ClientAddr())
	w.write(helloFrame(1, bob.token))
	g := w.goodbye()
	if g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_FULL || !g.GetReconnect() || g.GetReconnectAfterMs() == 0 {
		t.Errorf("goodbye %v", g)
	}
}

func TestTheDatabaseIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	f := newFleet(t, true)
	s := f.start("a")
	ann, bob := f.person(), f.person()
	w, r := login(t, s, ann), login(t, s, bob)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "before")
	f.maria.Kill()
	m := message(c.GetId(), "held")
	m.RequestId = 77
	w.write(m)
	f.maria.Start(t)
	got := w.await("the answer", func(f *chatv1.ServerFrame) bool { return f.GetRequestId() == 77 })
	if got.GetSent().GetSeq() != 2 {
		t.Errorf("the held message got %v", got)
	}
	r.event("held")
}

func TestAServerThatIsCutOffSendsItsUsersAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, true)
	s := f.start("a", func(c *chat.Config) { c.FencePatience = time.Second })
	ann := f.person()
	w := login(t, s, ann)
	f.maria.Signal(t, syscall.SIGSTOP) // it hangs, as behind a broken network
	f.consul.Signal(t, syscall.SIGSTOP)
	if g := w.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE || !g.GetReconnect() {
		t.Errorf("goodbye %v", g)
	}
	again := dial(t, s.ClientAddr())
	again.write(helloFrame(1, ann.token))
	if g := again.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE {
		t.Errorf("a new client got %v", g)
	}
	f.maria.Signal(t, syscall.SIGCONT)
	f.consul.Signal(t, syscall.SIGCONT)
	testenv.Until(t, "ready after the cut has healed", func() bool {
		return strings.Contains(get(t, "http://"+s.HTTPAddr()+"/readyz"), "ok")
	})
	login(t, s, ann)
}
