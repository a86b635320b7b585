package chat_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat"
)

// Servers remember for a moment where people are. Somebody who comes to another server in
// that moment, in the middle of a conversation, learns of every message at once: long before
// the repair of a silent conversation, half a heartbeat later, would tell.
func TestWhoComesInTheMiddleLearnsOfEveryMessage(t *testing.T) {
	f := newFleet(t, false)
	slow := func(c *chat.Config) { c.Heartbeat = 40 * time.Second }
	a, b, c := f.start("a", slow), f.start("b", slow), f.start("c", slow)
	linked(t, a, b, c)
	ann, bob := f.person(), f.person()
	annA, bobB := login(t, a, ann), login(t, b, bob)
	id := annA.openDirect(bob.name).GetId()
	annA.send(id, "hello")
	bobB.event("hello")
	for round := range 20 {
		last := make(chan uint64)
		go func() {
			var seq uint64
			for i := range 10 {
				seq = annA.send(id, fmt.Sprint(round, "/", i)).GetSeq()
			}
			last <- seq
		}()
		late := login(t, []*running{b, c}[round%2], bob)
		seq, began := <-last, time.Now()
		known(late, id, seq)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("round %d: learnt of %d after %v", round, seq, took)
		}
		_ = late.nc.Close()
	}
}

// The same where the news of the connection is on its way for some time: the server that
// did not know has pushed by the routes that it remembers, and says so when the news comes.
func TestWhoComesUnknownLearnsOfEveryMessage(t *testing.T) {
	f := newFleet(t, false)
	slow := func(c *chat.Config) { c.Heartbeat = 40 * time.Second }
	a := f.start("a", slow, func(c *chat.Config) {
		c.Relay.Bind = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
		c.Relay.Advertise = delayed(t, c.Relay.Bind, 400*time.Millisecond)
	})
	b, c := f.start("b", slow), f.start("c", slow)
	linked(t, a, b, c)
	ann, bob := f.person(), f.person()
	annA, bobB := login(t, a, ann), login(t, b, bob)
	id := annA.openDirect(bob.name).GetId()
	for round := range 3 {
		before := fmt.Sprint("before ", round)
		annA.send(id, before)
		bobB.event(before)
		late := login(t, c, bob)
		seq, began := annA.send(id, fmt.Sprint("after ", round)).GetSeq(), time.Now()
		known(late, id, seq)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("round %d: learnt of %d after %v", round, seq, took)
		}
		_ = late.nc.Close()
	}
}

// delayed is an address that leads to another one, where what is sent there arrives later.
func delayed(t *testing.T, to string, delay time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go later(near, to, delay)
		}
	}()
	return l.Addr().String()
}

// later carries a connection until one of its sides ends.
func later(near net.Conn, to string, delay time.Duration) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		defer near.Close()
		_, _ = io.Copy(near, far)
	}()
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			text := make([]byte, 4<<10)
			n, err := near.Read(text)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(delay), text[:n]}
		}
	}()
	for p := range pieces {
		<-time.After(time.Until(p.due))
		if _, err := far.Write(p.text); err != nil {
			return
		}
	}
}

// known waits until a client was told of an event, or of a head that is at least as high.
func known(w *wire, conversation, seq uint64) {
	w.t.Helper()
	w.await(fmt.Sprintf("event or head %d", seq), func(f *chatv1.ServerFrame) bool {
		for _, h := range f.GetHeads().GetHeads() {
			if h.GetConversationId() == conversation && h.GetSeq() >= seq {
				return true
			}
		}
		return f.GetEvent().GetConversationId() == conversation && f.GetEvent().GetSeq() >= seq
	})
}
