package chat_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat"
)

// A server that alone cannot reach the database owns conversations of people on
// all servers, and has people of its own: their messages find another way.
func TestOneServerAloneLosesTheDatabase(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	address, cut, mend := cuttable(t, f.db.Addr)
	calm := func(c *chat.Config) { c.Heartbeat = 30 * time.Second } // nobody here sends pings
	a := f.start("a", calm, func(c *chat.Config) { c.Database.Addr = address })
	b := f.start("b", calm)
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	annA, bobB := login(t, a, ann), login(t, b, bob)
	var conversations []uint64
	for range 8 { // of each person, of which a owns some
		peer := f.person()
		conversations = append(conversations, annA.openDirect(peer.name).GetId(), bobB.openDirect(peer.name).GetId())
	}
	say := func(text string) {
		for i, id := range conversations {
			m := message(id, text)
			m.RequestId = 1000
			[]*wire{annA, bobB}[i%2].write(m)
		}
		for i := range conversations {
			[]*wire{annA, bobB}[i%2].await("an acknowledgement", func(f *chatv1.ServerFrame) bool { return f.GetSent() != nil })
		}
	}
	say("before")
	cut()
	say("those under way wait some seconds")
	started := time.Now()
	for i := range 3 {
		say(fmt.Sprint("and then none ", i))
	}
	t.Logf("three times %d messages took %v", len(conversations), time.Since(started))
	mend()
	say("afterwards")
	for i, id := range conversations {
		page := []*wire{annA, bobB}[i%2].history(id, 0)
		if len(page.GetEvents()) != 6 || page.GetHead() != 6 {
			t.Errorf("conversation %d has %d messages up to %d, want 6", id, len(page.GetEvents()), page.GetHead())
		}
	}
}

// cuttable is a way to target on which nothing passes between cut and mend.
func cuttable(t *testing.T, target string) (address string, cut, mend func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var gate sync.RWMutex // locked while cut
	pass := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			gate.RLock()
			gate.RUnlock() //nolint:staticcheck // waits while the way is cut
			if err != nil {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				_ = from.Close()
				continue
			}
			go pass(to, from)
			go pass(from, to)
		}
	}()
	heal := sync.OnceFunc(gate.Unlock)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String(), func() {
		gate.Lock()
		t.Cleanup(heal) // before the servers stop
	}, heal
}
