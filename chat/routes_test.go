package chat_test

import (
	"fmt"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/chat"
)

// Servers remember for a moment where people are. Somebody who comes to another server in
// that moment, in the middle of a conversation, learns of every message at once: long before
// the repair of a silent conversation, half a heartbeat later, would tell.
func TestWhoComesInTheMiddleLearnsOfEveryMessage(t *testing.T) {
	f := newFleet(t, false)
	slow := func(c *chat.Config) { c.Heartbeat = time.Minute }
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
