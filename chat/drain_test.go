package chat_test

import (
	"strings"
	"testing"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"
)

// A server that stops while the database is away cannot store the messages that it
// holds. It refuses them, and the Goodbye follows.
func TestDrainWithTheDatabaseAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, true)
	s := f.start("a")
	ann, bob := f.person(), f.person()
	w := login(t, s, ann)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "before")
	f.maria.Kill()
	m := message(c.GetId(), "held")
	m.RequestId = 77
	w.write(m)
	testenv.Until(t, "it is held", func() bool {
		return strings.Contains(get(t, "http://"+s.HTTPAddr()+"/metrics"), "msrchat_chat_sends_waiting 1\n")
	})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	answer := w.await("the answer", func(f *chatv1.ServerFrame) bool { return f.GetRequestId() == 77 })
	if answer.GetFailure().GetCode() != "unavailable" {
		t.Errorf("the held message got %v", answer)
	}
	if g := w.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING || !g.GetReconnect() {
		t.Errorf("goodbye %v", g)
	}
	_ = w.nc.Close()
	f.maria.Start(t)
	<-stopped
	again := login(t, f.start("b"), ann) // the log has a message with one id once
	if got := again.call(m); got.GetSent().GetSeq() != 2 {
		t.Errorf("again: %v", got)
	}
}
