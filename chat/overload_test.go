package chat_test

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/text"
)

// metric reads one of a server's metrics, 0 if it is not there yet.
func metric(t *testing.T, s *running, name string) float64 {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`)
	found := line.FindStringSubmatch(get(t, "http://"+s.HTTPAddr()+"/metrics"))
	if found == nil {
		return 0
	}
	v, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// burst is a sender of many messages at once.
type burst struct {
	*wire
	conversation uint64
	frames       []*chatv1.ClientFrame
	refused      []int // indexes in frames
}

// send writes some of the messages.
func (b *burst) send(indexes []int) {
	b.t.Helper()
	var bytes []byte
	for _, i := range indexes {
		var err error
		if bytes, err = frame.Append(bytes, b.frames[i]); err != nil {
			b.t.Fatal(err)
		}
	}
	b.raw(bytes)
}

// answers waits for n answers and notes which messages were refused for a reason
// that passes.
func (b *burst) answers(n int) {
	b.t.Helper()
	b.refused = nil
	for n > 0 {
		f := b.read()
		if f.GetRequestId() < 1000 {
			continue
		}
		n--
		switch fail := f.GetFailure(); {
		case f.GetSent() != nil:
		case fail.GetCode() == "exhausted" && fail.GetRetryAfterMs() > 0:
			b.refused = append(b.refused, int(f.GetRequestId()-1000))
		default:
			b.t.Fatalf("got %v", f)
		}
	}
}

// More is sent than the database takes. The server holds what it has room for and
// refuses the rest with a time to retry. When the database is back the queue is
// emptied. A client that repeats what was refused has it logged in the order typed.
func TestSendsAboveWhatTheDatabaseTakes(t *testing.T) {
	t.Parallel()
	const senders, each, room = 9, 256, 2000
	f := newFleet(t, true)
	s := f.start("a", func(c *chat.Config) { c.MaxSends = room })
	bob := f.person()
	all := make([]*burst, senders)
	every := make([]int, each)
	for i := range every {
		every[i] = i
	}
	for n := range all {
		w := login(t, s, f.person())
		b := &burst{wire: w, conversation: w.openDirect(bob.name).GetId()}
		for i := range each {
			m := message(b.conversation, fmt.Sprint(i))
			m.RequestId = uint64(1000 + i)
			b.frames = append(b.frames, m)
		}
		all[n] = b
	}
	f.maria.Signal(t, syscall.SIGSTOP)
	for _, b := range all {
		b.send(every)
	}
	refused := `msrchat_chat_refused_total{code="exhausted"}`
	testenv.Until(t, "the server is full", func() bool {
		waiting := metric(t, s, "msrchat_chat_sends_waiting")
		if waiting > room {
			t.Fatalf("%v wait, the bound is %d", waiting, room)
		}
		return waiting == room && metric(t, s, refused) == senders*each-room
	})
	f.maria.Signal(t, syscall.SIGCONT)
	total := 0
	for _, b := range all {
		b.answers(each)
		total += len(b.refused)
		slices.Sort(b.refused)
	}
	if total != senders*each-room {
		t.Errorf("%d were refused, want %d", total, senders*each-room)
	}
	testenv.Until(t, "the queue is empty", func() bool { return metric(t, s, "msrchat_chat_sends_waiting") == 0 })
	for _, b := range all {
		for len(b.refused) > 0 { // repeated, as a client does
			again := b.refused
			b.send(again)
			b.answers(len(again))
		}
		after := uint64(0)
		for i := 0; i < each; {
			page := b.history(b.conversation, after)
			for _, e := range page.GetEvents() {
				if string(e.GetBody()) != fmt.Sprint(i) || e.GetSeq() != after+1 {
					t.Fatalf("event %d is %q", e.GetSeq(), e.GetBody())
				}
				after = e.GetSeq()
				i++
			}
			if len(page.GetEvents()) == 0 {
				t.Fatalf("the log ends at %d of %d", i, each)
			}
		}
	}
}

// A client that never reads has a bounded queue and is then dropped. Those who chat
// with its user do not notice.
func TestAReaderThatNeverReads(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false)
	a, b := f.start("a"), f.start("b", func(c *chat.Config) { c.Capacity = 10 })
	linked(t, a, b)
	ann, bob := f.person(), f.person()
	w := login(t, a, ann)
	c := w.openDirect(bob.name)
	w.send(c.GetId(), "before")
	silent := login(t, b, bob) // and is not read any more
	if err := silent.nc.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", text.MaxMessageRunes)
	for sent := 0; metric(t, b, "msrchat_chat_slow_consumers_total") == 0; sent += 100 {
		if sent > 10_000 {
			t.Fatal("a client that never reads is still served")
		}
		for i := range 100 {
			m := message(c.GetId(), long)
			m.RequestId = uint64(1000 + i)
			w.write(m)
		}
		for range 100 {
			w.await("an answer", func(f *chatv1.ServerFrame) bool { return f.GetSent() != nil })
		}
		w.pushes = nil
		if n := metric(t, b, "msrchat_chat_held_bytes"); n > 2<<20 { // 1 MB is being written
			t.Fatalf("%v bytes wait for one client", n)
		}
	}
	testenv.Until(t, "it is dropped", func() bool { return metric(t, b, "msrchat_chat_connections") == 0 })
	if n := metric(t, b, "msrchat_chat_held_bytes"); n != 0 {
		t.Errorf("%v bytes are left", n)
	}
	back := login(t, b, bob)
	if got := w.send(c.GetId(), "after"); back.event("after").GetSeq() != got.GetSeq() {
		t.Error("after the reconnect pushes are lost")
	}
}
