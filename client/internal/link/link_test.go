package link_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/internal/link"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/wire"
)

// dial connects to a server that lets the client in and then does what then
// says; the link ends with the test.
func dial(t *testing.T, then func(conn net.Conn)) *link.Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := frame.Read(conn, 1<<16, nil, &chatv1.ClientFrame{}); err != nil {
			t.Errorf("wait for Hello: %v", err)
		}
		write(t, conn, &chatv1.ServerFrame{RequestId: 1, Body: &chatv1.ServerFrame_Welcome{
			Welcome: &chatv1.Welcome{UserId: 1, HeartbeatMs: 60_000},
		}})
		then(conn)
	}()
	l, err := link.Dial(t.Context(), &chatv1.Endpoint{Address: listener.Addr().String()}, wire.Login{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		_ = listener.Close()
		<-done
	})
	return l
}

func write(t *testing.T, conn net.Conn, frames ...*chatv1.ServerFrame) {
	t.Helper()
	var out []byte
	for _, f := range frames {
		var err error
		if out, err = frame.Append(out, f); err != nil {
			t.Error(err)
		}
	}
	if _, err := conn.Write(out); err != nil {
		t.Logf("write: %v", err) // the client may be gone by now
	}
}

// patience bounds every wait.
const patience = 20 * time.Second

// until polls a condition.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !done(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// end waits for a link's end.
func end(t *testing.T, l *link.Link) error {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-l.Frames():
			if !ok {
				return l.Err()
			}
		case <-timeout:
			t.Fatal("the link does not end")
		}
	}
}

func request(id uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{RequestId: id, Body: &chatv1.ClientFrame_ListConversations{}}
}

func pong() *chatv1.ServerFrame {
	return &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Pong{Pong: &chatv1.Pong{}}}
}

func TestFramesComeUntilGoodbye(t *testing.T) {
	looked := make(chan struct{})
	l := dial(t, func(conn net.Conn) {
		write(t, conn, pong(), &chatv1.ServerFrame{RequestId: 7}, &chatv1.ServerFrame{RequestId: 8})
		<-looked
		write(t, conn, &chatv1.ServerFrame{Body: &chatv1.ServerFrame_Goodbye{Goodbye: &chatv1.Goodbye{}}})
		_, _ = io.Copy(io.Discard, conn)
	})
	if l.Err() != nil || l.Heartbeat != time.Minute || l.Welcome.GetUserId() != 1 {
		t.Errorf("alive: %v, heartbeat %v, welcome %v", l.Err(), l.Heartbeat, l.Welcome)
	}
	for want := uint64(7); want <= 8; want++ {
		if f := <-l.Frames(); f.GetRequestId() != want {
			t.Errorf("frame %v, want number %d", f, want)
		}
	}
	close(looked)
	if err := end(t, l); !errors.As(err, new(*wire.GoodbyeError)) {
		t.Errorf("ended with %v", err)
	}
	if l.Send(request(1)) {
		t.Error("an ended link took a frame")
	}
}

func TestFramesLeaveInOrder(t *testing.T) {
	const n = 300 // more than fit into a batch
	got := make(chan uint64, n)
	l := dial(t, func(conn net.Conn) {
		for range n {
			f := &chatv1.ClientFrame{}
			if _, err := frame.Read(conn, 1<<20, nil, f); err != nil {
				break
			}
			got <- f.GetRequestId()
		}
		close(got)
		_, _ = io.Copy(io.Discard, conn)
	})
	for i := range uint64(n) {
		send := &chatv1.Send{Body: make([]byte, 1000)}
		f := &chatv1.ClientFrame{RequestId: i + 1, Body: &chatv1.ClientFrame_Send{Send: send}}
		if !l.Send(f) {
			t.Fatalf("frame %d was not taken: %v", i+1, l.Err())
		}
	}
	want := uint64(0)
	for id := range got {
		if want++; id != want {
			t.Fatalf("frame %d arrived where %d was due", id, want)
		}
	}
	if want != n {
		t.Errorf("%d of %d frames arrived", want, n)
	}
}

func TestAPingIsASignOfLife(t *testing.T) {
	l := dial(t, func(conn net.Conn) {
		f := &chatv1.ClientFrame{}
		for {
			if _, err := frame.Read(conn, 1<<20, nil, f); err != nil {
				return
			}
			if f.GetPing() != nil {
				write(t, conn, pong())
			}
		}
	})
	before := l.LastFrame()
	if !l.Ping() {
		t.Error("a ping was not taken")
	}
	until(t, "the answer is noticed", func() bool { return l.LastFrame().After(before) })
}

func TestAServerThatDoesNotReadIsLeft(t *testing.T) {
	l := dial(t, func(net.Conn) { <-t.Context().Done() })
	f := &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{Body: make([]byte, 16<<10)}}}
	n := 0
	for l.Send(f) {
		if n++; n > 100_000 {
			t.Fatal("the queue has no end")
		}
	}
	if err := l.Err(); !errors.Is(err, wire.ErrStuck) {
		t.Errorf("ended with %v", err)
	}
}

// An owner that reads nothing holds up the server, and a bounded number of frames.
func TestALinkWhoseFramesAreNotReadCanBeClosed(t *testing.T) {
	written := make(chan struct{})
	l := dial(t, func(conn net.Conn) {
		for range 1000 {
			write(t, conn, &chatv1.ServerFrame{RequestId: 7})
		}
		close(written)
		_, _ = io.Copy(io.Discard, conn)
	})
	<-written
	until(t, "the queue is full", func() bool { return len(l.Frames()) == cap(l.Frames()) })
	l.Close()
	if err := end(t, l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

// Nothing is sent behind a frame that the server would not take.
func TestAFrameThatCannotBeSentEndsTheLink(t *testing.T) {
	l := dial(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	l.Send(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{OpenDirect: &chatv1.OpenDirect{PeerName: "\xff"}}})
	if err := end(t, l); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}
