package wire_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/bench/wire"
)

// server accepts one connection and runs a script on it.
func server(t *testing.T, script func(t *testing.T, nc net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		script(t, nc)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// expect reads one frame; what ends the connection ends the script.
func expect(t *testing.T, nc net.Conn) *chatv1.ClientFrame {
	t.Helper()
	f := &chatv1.ClientFrame{}
	if _, err := frame.Read(nc, 1<<20, nil, f); err != nil {
		t.Errorf("the client was expected to send: %v", err)
	}
	return f
}

func encode(t *testing.T, frames ...*chatv1.ServerFrame) []byte {
	t.Helper()
	var out []byte
	for _, f := range frames {
		var err error
		if out, err = frame.Append(out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func send(t *testing.T, nc net.Conn, raw []byte) {
	t.Helper()
	if _, err := nc.Write(raw); err != nil {
		t.Errorf("the script cannot write: %v", err)
	}
}

func welcome(heartbeat uint32) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{RequestId: 1, Body: &chatv1.ServerFrame_Welcome{Welcome: &chatv1.Welcome{
		UserId: 7, Instance: "chat-1", HeartbeatMs: heartbeat,
	}}}
}

func goodbye(code chatv1.GoodbyeCode) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Goodbye{Goodbye: &chatv1.Goodbye{Code: code, Text: "so long"}}}
}

func event(seq uint64, text string) *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Event{Event: &chatv1.Event{ConversationId: 1, Seq: seq, Text: text}}}
}

func dialer(t *testing.T) *wire.Dialer {
	t.Helper()
	d := wire.NewDialer("wire test")
	t.Cleanup(d.Close)
	return d
}

// seen collects what arrives.
type seen struct {
	seqs    []uint64
	texts   int
	drained func()
}

func (s *seen) Frame(f *chatv1.ServerFrame) {
	s.seqs = append(s.seqs, f.GetEvent().GetSeq())
	s.texts += len(f.GetEvent().GetText())
}

func (s *seen) Drained() {
	if s.drained != nil {
		s.drained()
	}
}

func login(address string) wire.Login {
	return wire.Login{Address: address, Token: make([]byte, 32), Assignment: "a-1"}
}

func TestEvents(t *testing.T) {
	long := strings.Repeat("x", 100_000) // longer than the reader's buffer
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		hello := expect(t, nc).GetHello()
		if hello.GetProtocol() != 1 || hello.GetAssignmentId() != "a-1" || hello.GetClient() != "wire test" || len(hello.GetToken()) != 32 {
			t.Errorf("hello is %v", hello)
		}
		// Everything at once: what follows Welcome must not get lost.
		send(t, nc, encode(t, welcome(60_000), event(1, "a"), event(2, long), event(3, "c")))
		raw := encode(t, event(4, "slow"), goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING))
		for _, b := range raw {
			send(t, nc, []byte{b}) // byte by byte
		}
	})
	c, err := dialer(t).Dial(t.Context(), login(address))
	if err != nil {
		t.Fatal(err)
	}
	if c.UserID != 7 || c.Instance != "chat-1" || c.Address() != address {
		t.Errorf("the connection is %d, %q, %s", c.UserID, c.Instance, c.Address())
	}
	var got seen
	err = c.Serve(&got)
	var bye *wire.GoodbyeError
	if !errors.As(err, &bye) || wire.Kind(err) != "goodbye draining" {
		t.Errorf("Serve ended with %v", err)
	}
	if len(got.seqs) != 4 || got.seqs[3] != 4 || got.texts != 1+len(long)+1+4 {
		t.Errorf("got events %v with %d bytes of text", got.seqs, got.texts)
	}
}

// What came of a burst is written when all of it was handed out.
func TestDrained(t *testing.T) {
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		expect(t, nc)
		send(t, nc, encode(t, welcome(60_000), event(1, "a"), event(2, "b")))
		if f := expect(t, nc); f.GetRequestId() != 42 {
			t.Errorf("the client sent %v", f)
		}
		send(t, nc, encode(t, goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING)))
	})
	c, err := dialer(t).Dial(t.Context(), login(address))
	if err != nil {
		t.Fatal(err)
	}
	got := &seen{}
	got.drained = func() {
		if len(got.seqs) < 2 {
			return // the burst came in two
		}
		request, err := frame.Append(nil, &chatv1.ClientFrame{RequestId: 42, Body: &chatv1.ClientFrame_ListConversations{}})
		if err == nil {
			err = c.Write(request)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := c.Serve(got); wire.Kind(err) != "goodbye draining" {
		t.Errorf("Serve ended with %v", err)
	}
}

func TestCall(t *testing.T) {
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		expect(t, nc)
		send(t, nc, encode(t, welcome(60_000)))
		ask := expect(t, nc)
		send(t, nc, encode(t, event(1, "a push between"), &chatv1.ServerFrame{
			RequestId: ask.GetRequestId(), Body: &chatv1.ServerFrame_Conversation{Conversation: &chatv1.Conversation{Id: 5}},
		}))
		ask = expect(t, nc)
		send(t, nc, encode(t, &chatv1.ServerFrame{
			RequestId: ask.GetRequestId(), Body: &chatv1.ServerFrame_Failure{Failure: &chatv1.Failure{Code: "not_found", Text: "nobody"}},
		}))
	})
	c, err := dialer(t).Dial(t.Context(), login(address))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	open := &chatv1.ClientFrame{RequestId: 9, Body: &chatv1.ClientFrame_OpenDirect{OpenDirect: &chatv1.OpenDirect{PeerName: "bob"}}}
	f, err := c.Call(t.Context(), open)
	if err != nil || f.GetConversation().GetId() != 5 {
		t.Fatalf("got %v, %v", f, err)
	}
	if _, err = c.Call(t.Context(), open); wire.Kind(err) != "not_found" {
		t.Errorf("a failure is %v", err)
	}
}

func TestNotLetIn(t *testing.T) {
	whole := encode(t, welcome(1000))
	for name, test := range map[string]struct {
		answer []byte
		kind   string
	}{
		"refused":           {encode(t, goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_FULL)), "goodbye full"},
		"closed":            {nil, "connection lost"},
		"cut in the header": {[]byte{0, 0}, "connection lost"},
		"cut in the body":   {whole[:len(whole)-3], "connection lost"},
		"too large":         {[]byte{0xff, 0xff, 0xff, 0xff}, ""},
		"no protobuf":       {[]byte{0, 0, 0, 1, 0xff}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			address := server(t, func(t *testing.T, nc net.Conn) {
				t.Helper()
				expect(t, nc)
				send(t, nc, test.answer)
			})
			_, err := dialer(t).Dial(t.Context(), login(address))
			if err == nil {
				t.Fatal("the client believes to be let in")
			}
			if kind := wire.Kind(err); test.kind != "" && kind != test.kind {
				t.Errorf("kind is %q of %v, want %q", kind, err, test.kind)
			}
		})
	}
}

// A server that accepts and says nothing holds nobody up whose context ends.
func TestSlowServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		expect(t, nc)
		cancel()
		_, _ = nc.Read(make([]byte, 1)) // until the client gives up
	})
	if _, err := dialer(t).Dial(ctx, login(address)); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial gave %v", err)
	}
}

func TestBrokenStream(t *testing.T) {
	for name, tail := range map[string][]byte{
		"cut frame":   {0, 0, 0, 9, 1, 2},
		"too large":   {0xff, 0, 0, 0},
		"empty frame": {0, 0, 0, 0},
		"no protobuf": {0, 0, 0, 1, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			address := server(t, func(t *testing.T, nc net.Conn) {
				t.Helper()
				expect(t, nc)
				send(t, nc, append(encode(t, welcome(60_000), event(1, "good")), tail...))
			})
			c, err := dialer(t).Dial(t.Context(), login(address))
			if err != nil {
				t.Fatal(err)
			}
			var got seen
			if err := c.Serve(&got); err == nil {
				t.Error("Serve ended without an error")
			}
			if len(got.seqs) != 1 {
				t.Errorf("got %v before the break", got.seqs)
			}
		})
	}
}

// The client says something twice a heartbeat, and leaves a server that does not.
func TestHeartbeat(t *testing.T) {
	var pings atomic.Int32
	var once sync.Once
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		expect(t, nc)
		send(t, nc, encode(t, welcome(200)))
		f := &chatv1.ClientFrame{}
		for {
			if _, err := frame.Read(nc, 1<<20, nil, f); err != nil {
				return
			}
			if f.GetPing() == nil {
				t.Errorf("the client sent %v", f)
			}
			pings.Add(1)
			once.Do(func() {
				send(t, nc, encode(t, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}}))
			})
		}
	})
	c, err := dialer(t).Dial(t.Context(), login(address))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Serve(&seen{}); err == nil || !strings.Contains(err.Error(), "silent") {
		t.Errorf("Serve ended with %v", err)
	}
	if pings.Load() < 2 {
		t.Errorf("%d pings in two heartbeats", pings.Load())
	}
}

func TestClose(t *testing.T) {
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		expect(t, nc)
		send(t, nc, encode(t, welcome(60_000)))
		_, _ = nc.Read(make([]byte, 1))
	})
	c, err := dialer(t).Dial(t.Context(), login(address))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- c.Serve(&seen{}) }()
	c.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve ended with %v", err)
	}
	if err := c.Write([]byte("x")); err == nil {
		t.Error("a closed connection takes more")
	}
}

// Servers under a load that stops reading: the write ends, and nobody waits for
// ever.
func TestCloseFreesWriter(t *testing.T) {
	address := server(t, func(t *testing.T, nc net.Conn) {
		t.Helper()
		expect(t, nc)
		send(t, nc, encode(t, welcome(60_000)))
		<-t.Context().Done() // reads nothing
	})
	c, err := dialer(t).Dial(t.Context(), login(address))
	if err != nil {
		t.Fatal(err)
	}
	var wrote atomic.Int64
	failed := make(chan struct{})
	go func() {
		defer close(failed)
		for c.Write(make([]byte, 64<<10)) == nil {
			wrote.Add(1)
		}
	}()
	testenv.Until(t, "something is written", func() bool { return wrote.Load() > 0 })
	c.Close()
	<-failed
}
