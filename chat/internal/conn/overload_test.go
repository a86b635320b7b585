package conn_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// value reads a metric; a label's value, if not empty, selects one of several.
func value(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func page(n int) []msglog.Event {
	events := make([]msglog.Event, n)
	for i := range events {
		events[i] = msglog.Event{Conversation: 1, Seq: uint64(i + 1), Body: bytes.Repeat([]byte("x"), 16<<10)}
	}
	return events
}

// A client that reads, however slowly, gets a page that takes longer than a client
// may read nothing.
func TestAClientThatReadsSlowlyIsNotDropped(t *testing.T) {
	t.Parallel()
	const patience = 2 * time.Second
	w := newWorld(t, func(w *world, o *conn.Options) {
		w.events, o.WriteTimeout = page(16), patience
	})
	c := w.login(t, 1)
	c.write(&chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_History{
		History: &chatv1.History{ConversationId: 1},
	}})
	var got bytes.Buffer
	began := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for got.Len() < 16*16<<10 {
		<-ticker.C
		if n, err := io.CopyN(&got, c.nc, 4<<10); err != nil {
			t.Fatalf("after %d bytes: %v", got.Len()+int(n), err)
		}
	}
	if took := time.Since(began); took < patience {
		t.Fatalf("the page took %v: too quick to show anything", took)
	}
	f := &chatv1.ServerFrame{}
	_, err := frame.Read(io.MultiReader(&got, c.nc), 4<<20, nil, f)
	if n := len(f.GetHistoryPage().GetEvents()); err != nil || n != 16 {
		t.Errorf("got %d events, %v", n, err)
	}
	c.pong()
}

// A client that reads nothing is dropped and does not hold up others.
func TestAClientThatNeverReadsIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *world, o *conn.Options) { o.WriteTimeout = 300 * time.Millisecond })
	w.login(t, 1)
	other := w.login(t, 2)
	event := encode.AppendEvent(nil, &chatv1.Event{ConversationId: 1, Seq: 1, Body: []byte("hi")})
	w.hub.Deliver([]uint64{1, 2}, 0, event)
	if string(other.read().GetEvent().GetBody()) != "hi" {
		t.Error("the other one was held up")
	}
	testenv.Until(t, "the silent one is dropped", func() bool { return w.hub.Len() == 1 })
	other.pong()
}

// However many clients read nothing, what waits for all of them is bounded, and a
// client that reads is served.
func TestWhatWaitsForAllSlowReadersIsBounded(t *testing.T) {
	t.Parallel()
	const most, slow = 4 << 20, 50 // all of one network
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(_ *world, o *conn.Options) {
		o.Memory, o.Registerer = most, reg
	})
	var users []uint64
	var silent []*client
	for n := range byte(slow) {
		silent = append(silent, w.login(t, n+10))
		users = append(users, uint64(n+10))
	}
	good := w.login(t, 1)
	event := encode.AppendEvent(nil, &chatv1.Event{ConversationId: 1, Body: bytes.Repeat([]byte("x"), 16<<10)})
	for range 20 { // 16 MB, of which 4 MB may wait
		w.hub.Deliver(users, 0, event)
		if n := value(t, reg, "msrchat_chat_held_bytes", ""); n > most+16<<10 {
			t.Fatalf("%v bytes wait, the bound is %d", n, most)
		}
		w.hub.Deliver([]uint64{1}, 0, event)
		if good.read().GetEvent() == nil {
			t.Fatal("the reader got something else")
		}
	}
	if n := value(t, reg, "msrchat_chat_slow_consumers_total", ""); n < slow/2 {
		t.Errorf("%v of %d were dropped", n, slow)
	}
	for _, c := range silent {
		_ = c.nc.Close()
	}
	testenv.Until(t, "the slow ones have ended", func() bool { return w.hub.Len() == 1 })
	testenv.Until(t, "no bytes of theirs are counted", func() bool {
		return value(t, reg, "msrchat_chat_held_bytes", "") == 0
	})
	good.pong()
}

// Connections that send nothing keep nobody out.
func TestAFloodWithoutHelloKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	const capacity, handshaking, flood = 5, 3, 100
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(_ *world, o *conn.Options) {
		o.Capacity, o.Handshaking, o.Registerer = capacity, handshaking, reg
	})
	evicted := func() float64 { return value(t, reg, "msrchat_chat_accepts_total", "evicted") }
	oldest := w.dial(t)
	for range flood {
		w.dial(t)
	}
	if _, err := oldest.next(); err == nil {
		t.Error("the oldest got a frame")
	}
	testenv.Until(t, "the oldest ones are evicted", func() bool {
		return evicted() == flood+1-capacity-handshaking
	})
	admitted := make([]*client, capacity)
	for i := range admitted {
		admitted[i] = w.login(t, byte(i+1)) // amid the flood
		w.dial(t)
	}
	for range flood {
		w.dial(t)
	}
	for _, c := range admitted {
		c.pong()
	}
	last := w.dial(t) // a full server still has room for handshakes
	last.write(hello(9))
	if g := last.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_FULL {
		t.Errorf("got %v", g)
	}
	if n := value(t, reg, "msrchat_chat_accepts_total", "overflow"); n != 0 {
		t.Errorf("%v connections were closed though others were silent", n)
	}
}

func TestOneUserCannotFillAServer(t *testing.T) {
	t.Parallel()
	const most = 128
	w := newWorld(t, func(_ *world, o *conn.Options) { o.Capacity = 10 * most })
	first := w.login(t, 1)
	for range most - 1 {
		w.login(t, 1)
	}
	over := w.dial(t)
	over.write(hello(1))
	g := over.goodbye()
	if g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_FULL || !g.GetReconnect() || g.GetReconnectAfterMs() == 0 {
		t.Errorf("got %v", g)
	}
	w.login(t, 2).pong()
	_ = first.nc.Close()
	testenv.Until(t, "one has ended", func() bool { return len(w.hub.Of(1)) == most-1 })
	w.login(t, 1).pong()
}

// The id of a client's assignment is passed on to status, and so has a limit.
func TestAnAssignmentThatIsNoneIsNotPassedOn(t *testing.T) {
	t.Parallel()
	used := make(chan string, 2)
	w := newWorld(t, func(_ *world, o *conn.Options) { o.Used = func(id string) { used <- id } })
	for _, id := range []string{strings.Repeat("x", 65), "", "26 characters or so"} {
		h := hello(1)
		h.GetHello().AssignmentId = id
		c := w.dial(t)
		c.write(h)
		if c.read().GetWelcome() == nil {
			t.Fatal("not admitted")
		}
	}
	if got := <-used; got != "26 characters or so" || len(used) != 0 {
		t.Errorf("%q was passed on", got)
	}
}
