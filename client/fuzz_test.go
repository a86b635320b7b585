package client_test

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/frame"
)

// liar is a server that speaks the bytes of a fuzzer.
type liar struct {
	listener net.Listener
	// answer makes the whole answer to a frame; nil ends the connection.
	answer func(f *chatv1.ClientFrame) []byte
	wg     sync.WaitGroup
}

func newLiar(t testing.TB, answer func(f *chatv1.ClientFrame) []byte) *liar {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{listener: listener, answer: answer}
	l.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(conn) })
		}
	})
	return l
}

func (l *liar) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	for {
		var f chatv1.ClientFrame
		if _, err := frame.Read(conn, 1<<20, nil, &f); err != nil {
			return
		}
		wire := l.answer(&f)
		if wire == nil {
			return
		}
		if _, err := conn.Write(wire); err != nil {
			return
		}
	}
}

func (l *liar) close() {
	_ = l.listener.Close()
	l.wg.Wait()
}

// fixed always assigns the same server.
type fixed string

func (f fixed) Assign(ctxT, client.Token, []string) (client.Assignment, error) {
	return client.Assignment{Server: client.Endpoint{Instance: "liar", Address: string(f)}}, nil
}

func encode(f *chatv1.ServerFrame) []byte {
	wire, err := frame.Append(nil, f)
	if err != nil {
		return []byte{}
	}
	return wire
}

func body(f *chatv1.ServerFrame) []byte {
	raw, err := proto.Marshal(f)
	if err != nil {
		panic(err)
	}
	return raw
}

// welcome is an honest beginning.
func welcome() *chatv1.ServerFrame {
	return &chatv1.ServerFrame{RequestId: 1, Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
		UserId: 101, UserName: "alice", Instance: "liar", HeartbeatMs: 1000, LogEpoch: 1, Revision: 1,
	}}}
}

// FuzzServer feeds a client whatever a server may send: as raw bytes after
// Welcome, as the answer to each of its requests, or in place of Welcome. The
// client must neither panic nor hang, and must end when it is closed.
func FuzzServer(f *testing.F) {
	const big = ^uint64(0)
	ev := func(conv, seq uint64) *chatv1.Event {
		return &chatv1.Event{ConversationId: conv, Seq: seq, Ordinal: seq, Body: []byte("hi"), SenderId: 7, Kind: 1}
	}
	for _, seed := range []*chatv1.ServerFrame{
		welcome(),
		{Body: &chatv1.ServerFrame_Event{Event: ev(44, 1)}},
		{Body: &chatv1.ServerFrame_Event{Event: ev(big, big)}},
		{Body: &chatv1.ServerFrame_Event{}},
		{Body: &chatv1.ServerFrame_Heads{Heads: &chatv1.Heads{Heads: []*chatv1.Head{
			{ConversationId: 44, Seq: 9},
			{ConversationId: big, Seq: big},
			{},
			nil,
		}}}},
		{Body: &chatv1.ServerFrame_HistoryPage{HistoryPage: &chatv1.HistoryPage{
			ConversationId: 44, Head: 3,
			Events: []*chatv1.Event{ev(44, 1), ev(44, 3)},
		}}},
		{Body: &chatv1.ServerFrame_HistoryPage{HistoryPage: &chatv1.HistoryPage{
			ConversationId: 44, Head: 3,
			Events: []*chatv1.Event{ev(44, 2), ev(44, 1)},
		}}},
		{Body: &chatv1.ServerFrame_HistoryPage{HistoryPage: &chatv1.HistoryPage{ConversationId: 44, Head: big}}},
		{Body: &chatv1.ServerFrame_ConversationList{ConversationList: &chatv1.ConversationList{More: true}}},
		{Body: &chatv1.ServerFrame_ConversationList{ConversationList: &chatv1.ConversationList{
			More:          true,
			Conversations: []*chatv1.Conversation{{Id: 44, Head: 5}},
		}}},
		{Body: &chatv1.ServerFrame_ConversationList{ConversationList: &chatv1.ConversationList{
			Conversations: []*chatv1.Conversation{{Id: big, Head: big}},
		}}},
		{Body: &chatv1.ServerFrame_Conversation{Conversation: &chatv1.Conversation{
			Id: 44, Head: big,
			Peer: &chatv1.User{Id: 7, Name: "bob\x1b[2J"},
		}}},
		{Body: &chatv1.ServerFrame_Conversation{Conversation: &chatv1.Conversation{
			Id:   44,
			Peer: &chatv1.User{Id: 7, Name: "bob"},
		}}},
		{Body: &chatv1.ServerFrame_Sent{Sent: &chatv1.Sent{ConversationId: 44, Seq: 1, CreatedAtMs: -1 << 63}}},
		{Body: &chatv1.ServerFrame_Sent{Sent: &chatv1.Sent{ConversationId: 44, Seq: big}}},
		{Body: &chatv1.ServerFrame_Heads{Heads: &chatv1.Heads{Heads: []*chatv1.Head{
			{ConversationId: 44, OwnState: 3},
			{ConversationId: big, OwnState: big},
		}}}},
		{Body: &chatv1.ServerFrame_OwnState{OwnState: &chatv1.OwnState{
			ConversationId: 44, Number: 7, ReadSeq: 3,
			ReadOrdinal: big, Draft: &chatv1.Draft{Text: "x", EditedAtMs: -1 << 63},
		}}},
		{Body: &chatv1.ServerFrame_OwnState{OwnState: &chatv1.OwnState{
			ConversationId: big, Number: big,
			ReadSeq: big,
		}}},
		{Body: &chatv1.ServerFrame_OwnState{}},
		{Body: &chatv1.ServerFrame_OwnStates{OwnStates: &chatv1.OwnStates{
			States: []*chatv1.OwnState{{ConversationId: 44, Number: 3}},
		}}},
		{Body: &chatv1.ServerFrame_OwnStates{OwnStates: &chatv1.OwnStates{
			States: []*chatv1.OwnState{{ConversationId: 45}, {}},
		}}},
		{Body: &chatv1.ServerFrame_OwnStates{}},
		{Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{Code: "no such code", RetryAfterMs: 1<<32 - 1}}},
		{Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{Code: "not_found", Text: "\x00"}}},
		{Body: &chatv1.ServerFrame_Goodbye{Goodbye: &chatv1.Goodbye{
			Reconnect: true, ReconnectAfterMs: 1<<32 - 1,
			Alternates: []*chatv1.Endpoint{{Address: "not an address"}, nil},
		}}},
		{Body: &chatv1.ServerFrame_Goodbye{}},
	} {
		for mode := range byte(3) {
			f.Add(mode, body(seed))
		}
		f.Add(byte(0), encode(seed))
	}
	f.Add(byte(0), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(byte(0), []byte{0, 0, 0, 0})
	f.Add(byte(0), []byte{0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, mode byte, data []byte) {
		server := newLiar(t, func(f *chatv1.ClientFrame) []byte { return lie(mode%3, data, f) })
		defer server.close()
		c, err := client.Open(t.Context(), client.Options{
			Gate: fixed(server.listener.Addr().String()), Store: store.NewMemory(100), EventBuffer: 4, Backoff: quick,
			Session: client.Session{Token: make([]byte, 32), User: client.User{ID: 101, Name: "alice"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		bob, err := c.Contact(t.Context(), "bob")
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []uint64{44, bob.ID} {
			_, err := c.Send(t.Context(), to, "hi")
			if err = errors.Join(err, c.SetDraft(t.Context(), to, "h")); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := contextWithTimeout(t, 15*time.Millisecond)
		defer cancel()
		_, _ = c.Conversations(ctx)
		_, _ = c.History(ctx, 44, client.Range{})
		_, _ = c.OpenDirect(ctx, "bob")
		_, _ = c.OwnStates(ctx, []uint64{44, 45})
		closed := make(chan struct{})
		go func() {
			c.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Fatal("the client hangs")
		}
	})
}

// lie is what the server answers in a mode.
func lie(mode byte, data []byte, f *chatv1.ClientFrame) []byte {
	hello := f.GetHello() != nil
	switch {
	case mode == 0 && hello:
		return append(encode(welcome()), data...)
	case mode == 0:
		return nil
	case mode == 1 && hello:
		return encode(welcome())
	}
	var answer chatv1.ServerFrame
	if proto.Unmarshal(data, &answer) != nil {
		return nil
	}
	answer.RequestId = f.GetRequestId()
	return encode(&answer)
}
