package chat_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat"
)

// One server alone cannot reach the database. It owns conversations of users on all
// servers, and has users of its own. Their messages are appended by other servers.
func TestOneServerAloneLosesTheDatabase(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	first, _, _ := strings.Cut(f.db.Addr, ",") // of a cluster's nodes
	address, cut, mend := cuttable(t, first)
	slow := func(c *chat.Config) { c.Heartbeat = 30 * time.Second } // longer than the test
	a := f.start("a", slow, func(c *chat.Config) { c.Database.Addr = address })
	b := f.start("b", slow)
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	annA, bobB := login(t, a, ann), login(t, b, bob)
	var conversations []uint64
	for range 8 { // conversations of each, of which a owns some
		peer := f.person()
		conversations = append(conversations, annA.openDirect(peer.name).GetId(), bobB.openDirect(peer.name).GetId())
	}
	send := func(text string) {
		for i, id := range conversations {
			m := message(id, text)
			m.RequestId = 1000
			[]*wire{annA, bobB}[i%2].write(m)
		}
		for i := range conversations {
			w := []*wire{annA, bobB}[i%2]
			w.await("an acknowledgement", func(f *chatv1.ServerFrame) bool { return f.GetSent() != nil })
		}
	}
	send("before")
	cut()
	send("those under way wait some seconds")
	started := time.Now()
	for i := range 3 {
		send(fmt.Sprint("and then none ", i))
	}
	t.Logf("three times %d messages took %v", len(conversations), time.Since(started))
	mend()
	send("afterwards")
	for i, id := range conversations {
		page := []*wire{annA, bobB}[i%2].history(id, 0)
		if len(page.GetEvents()) != 6 || page.GetHead() != 6 {
			t.Errorf("conversation %d has %d messages up to %d, want 6", id, len(page.GetEvents()), page.GetHead())
		}
	}
}

// cuttable is a proxy to target through which nothing passes between cut and mend.
func cuttable(t *testing.T, target string) (address string, cut, mend func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.RWMutex // locked while cut
	pass := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			passing.RLock()
			passing.RUnlock() //nolint:staticcheck // waits while the proxy is cut
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
	heal := sync.OnceFunc(passing.Unlock)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String(), func() {
		passing.Lock()
		t.Cleanup(heal) // before the servers stop
	}, heal
}
