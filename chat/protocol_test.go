package chat_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"
)

// A client written from chat.proto alone: TCP, a length prefix, and the generated
// messages. Where it and the server disagree, one of the two or a sentence of
// chat.proto is wrong.

// caller is one connection of that client.
type caller struct {
	t       *testing.T
	nc      net.Conn
	lastID  uint64
	welcome *chatv1.Welcome
	waiting []*chatv1.ServerFrame // read, and not taken yet
}

func newCaller(t *testing.T, address string) *caller {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &caller{t: t, nc: nc}
}

// write sends a frame with some bytes behind its known fields.
func (c *caller) write(f *chatv1.ClientFrame, behind ...byte) {
	c.t.Helper()
	body, err := proto.Marshal(f)
	if err != nil {
		c.t.Fatal(err)
	}
	body = append(body, behind...)
	if _, err := c.nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
		c.t.Fatal(err)
	}
}

// request sends a request under the next id.
func (c *caller) request(f *chatv1.ClientFrame, behind ...byte) (id uint64) {
	c.t.Helper()
	c.lastID++
	f.RequestId = c.lastID
	c.write(f, behind...)
	return c.lastID
}

// read reads one frame.
func (c *caller) read() (*chatv1.ServerFrame, error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(c.nc, length[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return nil, err
	}
	f := &chatv1.ServerFrame{}
	return f, proto.Unmarshal(body, f)
}

// take returns the first frame that is wanted; the others wait.
func (c *caller) take(what string, wanted func(f *chatv1.ServerFrame) bool) *chatv1.ServerFrame {
	c.t.Helper()
	for i := 0; ; i++ {
		if i == len(c.waiting) {
			f, err := c.read()
			if err != nil {
				c.t.Fatalf("waiting for %s: %v", what, err)
			}
			c.waiting = append(c.waiting, f)
		}
		if f := c.waiting[i]; wanted(f) {
			c.waiting = slices.Delete(c.waiting, i, i+1)
			return f
		}
	}
}

// answer waits for the answer to a request. Whatever comes meanwhile is a push, or
// the answer to an earlier request.
func (c *caller) answer(id uint64) *chatv1.ServerFrame {
	c.t.Helper()
	return c.take(fmt.Sprintf("the answer to request %d", id), func(f *chatv1.ServerFrame) bool {
		if f.GetGoodbye() != nil {
			c.t.Fatalf("request %d was answered with %v", id, f)
		}
		return f.GetRequestId() == id
	})
}

func (c *caller) ask(f *chatv1.ClientFrame, behind ...byte) *chatv1.ServerFrame {
	c.t.Helper()
	return c.answer(c.request(f, behind...))
}

// refused makes a request that gets a Failure, and shows that the connection lives
// on.
func (c *caller) refused(f *chatv1.ClientFrame, code, field string) *chatv1.Failure {
	c.t.Helper()
	got := c.ask(f).GetFailure()
	if got.GetCode() != code || got.GetText() == "" || got.GetField() != field {
		c.t.Errorf("%v got %v, want code %q and field %q", f, got, code, field)
	}
	c.ping()
	return got
}

// ping shows that all that was sent before has been worked on, but for sends.
func (c *caller) ping() {
	c.t.Helper()
	if f := c.ask(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}); f.GetPong() == nil {
		c.t.Errorf("a ping got %v", f)
	}
}

// pushes takes what has been pushed so far and is wanted.
func (c *caller) pushes(wanted func(f *chatv1.ServerFrame) bool) (out []*chatv1.ServerFrame) {
	c.t.Helper()
	c.ping()
	c.waiting = slices.DeleteFunc(c.waiting, func(f *chatv1.ServerFrame) bool {
		if f.GetRequestId() != 0 || !wanted(f) {
			return false
		}
		out = append(out, f)
		return true
	})
	return out
}

// ended waits for Goodbye, which carries id 0 and is the last frame.
func (c *caller) ended(code chatv1.GoodbyeCode, reconnect bool) *chatv1.Goodbye {
	c.t.Helper()
	f := c.take("Goodbye", func(f *chatv1.ServerFrame) bool { return f.GetGoodbye() != nil })
	g := f.GetGoodbye()
	if g.GetCode() != code || g.GetReconnect() != reconnect || g.GetText() == "" || f.GetRequestId() != 0 {
		c.t.Errorf("the connection ended with %v, want %v and reconnect %v", f, code, reconnect)
	}
	if f, err := c.read(); err == nil {
		c.t.Errorf("behind Goodbye came %v", f)
	}
	return g
}

func hello(p person) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Hello{Hello: &chatv1.Hello{
		Protocol: 1, Token: p.token, Client: "protocol test", AssignmentId: "none",
	}}}
}

// enter logs a user in and returns the heads that are pushed first.
func enter(t *testing.T, s *running, p person) (*caller, []*chatv1.Head) {
	t.Helper()
	c := newCaller(t, s.ClientAddr())
	c.lastID = 40 // the id of Hello is as free as any
	if c.welcome = c.ask(hello(p)).GetWelcome(); c.welcome == nil {
		t.Fatal("Hello was not answered with Welcome")
	}
	f := c.take("the heads at connect", func(f *chatv1.ServerFrame) bool { return f.GetHeads() != nil })
	if f.GetRequestId() != 0 {
		t.Errorf("a push has request id %d", f.GetRequestId())
	}
	return c, f.GetHeads().GetHeads()
}

func open(name string) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{OpenDirect: &chatv1.OpenDirect{PeerName: name}}}
}

// with returns the direct conversation with a user.
func (c *caller) with(p person) uint64 {
	c.t.Helper()
	conversation := c.ask(open(p.name)).GetConversation()
	if conversation.GetId() == 0 {
		c.t.Fatalf("no conversation with %s", p.name)
	}
	return conversation.GetId()
}

func send(conversation uint64, id byte, kind uint32, body string) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
		ConversationId: conversation, ClientMsgId: bytes.Repeat([]byte{id}, 16), Kind: kind, Body: []byte(body),
	}}}
}

func page(conversation, after, before uint64, limit uint32) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{History: &chatv1.History{
		ConversationId: conversation, After: after, Before: before, Limit: limit,
	}}}
}

func set(s *chatv1.SetOwnState) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_SetOwnState{SetOwnState: s}}
}

func readStates(ids ...uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ReadOwnStates{
		ReadOwnStates: &chatv1.ReadOwnStates{ConversationIds: ids},
	}}
}

func list(after uint64, limit uint32) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ListConversations{
		ListConversations: &chatv1.ListConversations{AfterId: after, Limit: limit},
	}}
}

// TestProtocol goes through chat.proto from top to bottom.
func TestProtocol(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	slow := func(c *chat.Config) { c.Heartbeat = 30 * time.Second } // a caller sends no pings by itself
	a, b := f.start("a", slow), f.start("b", slow)
	linked(t, a, b)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, f *fleet, a, b *running)
	}{
		{"Hello comes first and is answered with Welcome or Goodbye", testHello},
		{"answers carry the request's id and unknown things are ignored or refused", testFrames},
		{"Limits are what the server refuses to exceed", testLimits},
		{"Send appends an event once", testSend},
		{"events and heads are pushed", testPushes},
		{"OpenDirect and ListConversations describe conversations", testConversations},
		{"History returns pages", testHistory},
		{"a read mark never falls", testReadMark},
		{"the newest draft wins", testDrafts},
		{"own states keep their contract", testOwnStates},
		{"own states are read in the order asked", testReadOwnStates},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, f, a, b) })
	}
}

func testHello(t *testing.T, f *fleet, a, b *running) {
	t.Helper()
	ann := f.person()
	c, heads := enter(t, a, ann)
	w := c.welcome
	if w.GetUserId() != ann.id || w.GetUserName() != ann.name || w.GetInstance() != "a" || w.GetRelease() != "test" ||
		w.GetLogEpoch() == 0 || w.GetRevision() < 1 || w.GetHeartbeatMs() != 30_000 {
		t.Errorf("welcome is %v", w)
	}
	if l := w.GetLimits(); l.GetMaxFrameBytes() == 0 || l.GetMaxTextRunes() == 0 || l.GetMaxTextBytes() == 0 ||
		l.GetMaxPage() == 0 || l.GetMaxUnacknowledged() == 0 {
		t.Errorf("the limits are %v", l)
	}
	if len(heads) != 0 {
		t.Errorf("a user without conversations got the heads %v", heads)
	}
	if len(w.GetAlternates()) != 1 || w.GetAlternates()[0].GetInstance() != "b" ||
		w.GetAlternates()[0].GetAddress() != b.ClientAddr() || w.GetAlternates()[0].GetTlsServerName() != "" {
		t.Errorf("the alternates are %v", w.GetAlternates())
	}
	c.request(hello(ann)) // a second one
	c.ended(chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, false)

	first := func(f *chatv1.ClientFrame) *caller {
		c := newCaller(t, a.ClientAddr())
		c.request(f)
		return c
	}
	first(send(1, 1, 1, "hi")).ended(chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, false)
	version := hello(ann)
	version.GetHello().Protocol = 2
	first(version).ended(chatv1.GoodbyeCode_GOODBYE_CODE_VERSION, false)
	first(hello(person{token: make([]byte, 32)})).ended(chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, false)
	first(hello(person{token: []byte("short")})).ended(chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, false)
}

func TestAConnectionWithoutHelloEndsAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	c := newCaller(t, f.start("a").ClientAddr())
	started := time.Now()
	c.ended(chatv1.GoodbyeCode_GOODBYE_CODE_SILENT, true)
	if took := time.Since(started); took < 5*time.Second {
		t.Errorf("after %v", took)
	}
}

func TestBothSidesSaySomethingOnceAHeartbeat(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	s := f.start("a")
	c, _ := enter(t, s, f.person())
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for range 4 { // a client that pings is not gone
		<-ticker.C
		c.ping()
	}
	started := time.Now() // a moment after the last ping arrived
	c.ended(chatv1.GoodbyeCode_GOODBYE_CODE_SILENT, true)
	if took := time.Since(started); took < 2*heartbeat*9/10 {
		t.Errorf("a client that is silent for %v is gone", took)
	}
}

func testFrames(t *testing.T, f *fleet, a, _ *running) {
	t.Helper()
	c, _ := enter(t, a, f.person())
	bob := f.person()
	id := c.with(bob)
	c.lastID = 1 << 63 // any number but 0
	c.ping()
	c.write(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	c.take("a Pong with id 0", func(f *chatv1.ServerFrame) bool { return f.GetPong() != nil && f.GetRequestId() == 0 })

	// A request of a later revision, and none at all.
	later := protowire.AppendTag(nil, 4000, protowire.BytesType)
	for _, behind := range [][]byte{protowire.AppendString(later, "?"), nil} {
		got := c.ask(&chatv1.ClientFrame{}, behind...).GetFailure()
		if got.GetCode() != "invalid" || got.GetText() == "" {
			t.Errorf("an unknown request got %v", got)
		}
	}
	// A field of a later revision, in the frame and in the request.
	m := send(id, 1, 0, "with more fields")
	m.GetSend().ProtoReflect().SetUnknown(protowire.AppendString(later, "?"))
	if got := c.ask(m, protowire.AppendString(later, "?")...).GetSent(); got.GetSeq() != 1 {
		t.Errorf("a send with unknown fields got %v", got)
	}
	// A request without an id is against the protocol.
	c.write(list(0, 1))
	c.ended(chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, false)
}

func testLimits(t *testing.T, f *fleet, a, _ *running) {
	t.Helper()
	ann, bob := f.person(), f.person()
	c, _ := enter(t, a, ann)
	limits, id := c.welcome.GetLimits(), c.with(bob)

	// The largest text is of characters that are four bytes long.
	longest := strings.Repeat("😀", int(limits.GetMaxTextRunes()))
	if len(longest) != int(limits.GetMaxTextBytes()) {
		t.Errorf("%d runes may have %d bytes", limits.GetMaxTextRunes(), limits.GetMaxTextBytes())
	}
	if got := c.ask(send(id, 1, 1, longest)).GetSent(); got.GetSeq() != 1 {
		t.Errorf("the longest text got %v", got)
	}
	for _, text := range []string{longest + "x", strings.Repeat("x", int(limits.GetMaxTextRunes())+1)} {
		if got := c.ask(send(id, 2, 1, text)).GetFailure(); got.GetCode() != "too_large" {
			t.Errorf("a longer text got %v", got)
		}
	}

	// A frame is filled up by a field that nobody knows.
	fill := func(f *chatv1.ClientFrame, size int) []byte {
		tag := protowire.AppendTag(nil, 4000, protowire.BytesType)
		rest := size - proto.Size(f) - len(tag)
		return protowire.AppendBytes(tag, make([]byte, rest-protowire.SizeVarint(uint64(rest))))
	}
	most := int(limits.GetMaxFrameBytes())
	f99 := &chatv1.ClientFrame{RequestId: 99, Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}
	c.write(f99, fill(f99, most)...)
	if got := c.answer(99); got.GetPong() == nil {
		t.Errorf("the largest frame got %v", got)
	}
	large, _ := enter(t, a, ann)
	large.write(f99, fill(f99, most+1)...)
	large.ended(chatv1.GoodbyeCode_GOODBYE_CODE_PROTOCOL, false)

	testUnacknowledged(t, f, c, id)

	// One page holds max_page events at most, whatever is asked for.
	for _, limit := range []uint32{0, limits.GetMaxPage() + 1, 1 << 31} {
		got := c.ask(page(id, 1, 0, limit)).GetHistoryPage() // behind the longest text
		if n := len(got.GetEvents()); n != int(limits.GetMaxPage()) {
			t.Errorf("a page of at most %d has %d events", limit, n)
		}
	}
}

// testUnacknowledged lets the database wait, so that sends do.
func testUnacknowledged(t *testing.T, f *fleet, c *caller, id uint64) {
	t.Helper()
	ctx := t.Context()
	lock, err := f.sql.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := lock.ExecContext(ctx, "LOCK TABLES events WRITE"); err != nil {
		t.Fatal(err)
	}
	unlock := func() {
		if _, err := lock.ExecContext(context.WithoutCancel(ctx), "UNLOCK TABLES"); err != nil {
			t.Error(err)
		}
	}
	most := int(c.welcome.GetLimits().GetMaxUnacknowledged())
	var ids []uint64
	for i := range most + 1 {
		m := send(id, 3, 1, fmt.Sprint(i))
		binary.BigEndian.PutUint64(m.GetSend().ClientMsgId, uint64(i+1))
		ids = append(ids, c.request(m))
	}
	// Answers overtake one another: all before this one still wait.
	got := c.answer(ids[most]).GetFailure()
	if got.GetCode() != "rate_limited" || got.GetRetryAfterMs() == 0 {
		t.Errorf("send %d at once got %v", most+1, got)
	}
	c.ping()
	unlock()
	for i, request := range ids[:most] {
		if got := c.answer(request).GetSent(); got.GetSeq() != uint64(i+2) {
			t.Fatalf("send %d got %v", i, got)
		}
	}
}

func TestGoodbyesSayWhetherAndWhenToComeBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	slow := func(c *chat.Config) { c.Heartbeat = 30 * time.Second }
	a := f.start("a", slow, func(c *chat.Config) { c.Capacity = 2 })
	b := f.start("b", slow)
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	c, _ := enter(t, a, ann)
	reader, _ := enter(t, a, bob)

	full := newCaller(t, a.ClientAddr())
	full.request(hello(ann))
	g := full.ended(chatv1.GoodbyeCode_GOODBYE_CODE_FULL, true)
	if g.GetReconnectAfterMs() == 0 || len(g.GetAlternates()) == 0 {
		t.Errorf("a full server says %v", g)
	}

	// A client that gets much and reads nothing.
	if err := reader.nc.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	id := c.with(bob)
	long := strings.Repeat("x", int(c.welcome.GetLimits().GetMaxTextRunes()))
	testenv.Until(t, "the server gives the reader up", func() bool {
		for range 64 {
			message := send(id, 0, 1, long)
			_, _ = rand.Read(message.GetSend().GetClientMsgId())
			c.ask(message)
		}
		return strings.Contains(get(t, "http://"+a.HTTPAddr()+"/metrics"),
			`msrchat_chat_goodbyes_total{code="GOODBYE_CODE_SLOW"} 1`)
	})
	reader.ended(chatv1.GoodbyeCode_GOODBYE_CODE_SLOW, true)

	go a.stop()
	g = c.ended(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING, true)
	if len(g.GetAlternates()) != 1 || g.GetAlternates()[0].GetInstance() != "b" {
		t.Errorf("a server that drains says %v", g)
	}
	again := newCaller(t, g.GetAlternates()[0].GetAddress())
	if w := again.ask(hello(ann)).GetWelcome(); w.GetInstance() != "b" {
		t.Errorf("at the alternate: %v", w)
	}
}
