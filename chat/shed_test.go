package chat_test

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/testenv"
)

// statusReplica is a fake status server that answers every report with one order.
type statusReplica struct {
	statusv1.UnimplementedStatusServiceServer
	keep    atomic.Uint32
	reports atomic.Int32
}

func (s *statusReplica) Report(stream grpc.BidiStreamingServer[statusv1.ReportRequest, statusv1.ReportResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		s.reports.Add(1)
		if err := stream.Send(&statusv1.ReportResponse{KeepAtMost: s.keep.Load()}); err != nil {
			return err
		}
	}
}

// obeyed waits until the present orders were obeyed: until three further reports.
func (s *statusReplica) obeyed(t *testing.T) {
	t.Helper()
	before := s.reports.Load()
	testenv.Until(t, "further reports", func() bool { return s.reports.Load() >= before+3 })
}

func (f *fleet) statusReplica(instance string) *statusReplica {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	s := &statusReplica{}
	server := grpc.NewServer()
	statusv1.RegisterStatusServiceServer(server, s)
	go func() { _ = server.Serve(l) }() // nil after Stop
	f.t.Cleanup(server.Stop)
	_, err = f.catalog().Register(f.t.Context(), discovery.Registration{
		Service:  "status",
		Instance: instance,
		Address:  l.Addr().String(),
		Checks:   []discovery.Check{{TCP: l.Addr().String()}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// Two replicas repeat their orders every second. As many connections leave as are
// above the lower order, the oldest first.
func TestOrdersToShed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	one, two := f.statusReplica("one"), f.statusReplica("two")
	server := f.start("a", func(c *chat.Config) { c.Settled = time.Nanosecond })
	patient := f.start("b")
	var here []*wire
	for range 6 {
		here = append(here, login(t, server, f.person()))
	}
	single := login(t, patient, f.person())
	one.keep.Store(5)
	two.keep.Store(3)
	for _, w := range here[:3] {
		g := w.goodbye()
		if g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE || !g.GetReconnect() {
			t.Errorf("goodbye %v", g)
		}
		if g.GetReconnectAfterMs() > 1000 || len(g.GetAlternates()) == 0 {
			t.Errorf("come back after %d ms to one of %v", g.GetReconnectAfterMs(), g.GetAlternates())
		}
	}
	one.keep.Store(1) // also an order for b, which has one
	one.obeyed(t)
	for _, w := range here[3:5] {
		w.goodbye()
	}
	one.obeyed(t)
	two.obeyed(t)
	for _, w := range []*wire{here[5], single} {
		if w.call(listFrame()).GetConversationList() == nil {
			t.Error("a connection that may stay is not served")
		}
	}
	if n := metric(t, server, "msrchat_chat_shed_total"); n != 5 {
		t.Errorf("the metric says %v, want 5", n)
	}
}

// A connection that is not settled yet is not asked to leave.
func TestYoungConnectionsAreNotShed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	status := f.statusReplica("one")
	s := f.start("a")
	status.keep.Store(1)
	first, second := login(t, s, f.person()), login(t, s, f.person())
	status.obeyed(t)
	for _, w := range []*wire{first, second} {
		if w.call(listFrame()).GetConversationList() == nil {
			t.Error("it is not served")
		}
	}
}

// A message under way is answered before its connection ends.
func TestASenderIsShedAfterTheAnswer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, true)
	status := f.statusReplica("one")
	s := f.start("a", func(c *chat.Config) { c.Settled = time.Nanosecond })
	ann, bob := f.person(), f.person()
	w := login(t, s, ann)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "before")
	login(t, s, bob)
	f.maria.Kill()
	m := message(c.GetId(), "held")
	m.RequestId = 77
	w.write(m)
	testenv.Until(t, "it is held", func() bool {
		return strings.Contains(get(t, "http://"+s.HTTPAddr()+"/metrics"), "msrchat_chat_sends_waiting 1\n")
	})
	status.keep.Store(1)
	testenv.Until(t, "it is asked to leave", func() bool {
		return strings.Contains(get(t, "http://"+s.HTTPAddr()+"/metrics"), "msrchat_chat_shed_total 1\n")
	})
	f.maria.Start(t)
	answer := w.await("the answer", func(f *chatv1.ServerFrame) bool {
		return f.GetRequestId() == 77 || f.GetGoodbye() != nil
	})
	if answer.GetSent().GetSeq() != 2 {
		t.Errorf("the held message got %v", answer)
	}
	if g := w.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_REBALANCE {
		t.Errorf("goodbye %v", g)
	}
}
