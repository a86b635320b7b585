package conn_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/hub"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// byeAll ends all connections with a Goodbye.
func (w *world) byeAll(code chatv1.GoodbyeCode) {
	w.hub.Each(func(_ uint64, c hub.Conn) { c.Bye(&chatv1.Goodbye{Code: code, Text: "x"}) })
}

// Messages behind one that is refused for a reason that passes are refused too.
func TestNoMessageOvertakesARefusedOne(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	w := newWorld(t, func(w *world, _ *conn.Options) {
		w.member = func(conversation uint64) error {
			switch {
			case conversation == 404:
				return errs.New(errs.CodeNotFound, "no")
			case conversation == 1 && calls.Add(1) == 1:
				return errs.New(errs.CodeUnavailable, "just now")
			}
			return nil
		}
	})
	c := w.login(t, 1)
	refused := func(f *chatv1.ClientFrame, code errs.Code) {
		t.Helper()
		c.write(f)
		if got := c.read(); got.GetFailure().GetCode() != string(code) || got.GetRequestId() != f.GetRequestId() {
			t.Fatalf("got %v, want %s", got, code)
		}
	}
	refused(text(1, 1, "one"), errs.CodeUnavailable)
	refused(text(2, 1, "two"), errs.CodeUnavailable)
	refused(text(3, 1, "three"), errs.CodeUnavailable)
	c.write(text(4, 2, "elsewhere"))              // another conversation goes on
	refused(text(5, 404, "x"), errs.CodeNotFound) // refused for good, so that it
	refused(text(6, 404, "y"), errs.CodeNotFound) // holds nothing back
	c.write(text(1, 1, "one"), text(2, 1, "two"), text(3, 1, "three"))
	c.pong()
	got := ""
	for _, s := range w.sent() {
		got += fmt.Sprintf("%d %s, ", s.conversation, s.text)
	}
	if want := "2 elsewhere, 1 one, 1 two, 1 three, "; got != want {
		t.Errorf("the lanes got %s, want %s", got, want)
	}
}

func TestAClientThatStaysAfterGoodbyeIsNotServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.login(t, 1)
	w.byeAll(chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED)
	if g := c.read().GetGoodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED {
		t.Fatalf("goodbye %v", g)
	}
	at := time.Now()
	for n := byte(1); ; n++ { // it ignores the Goodbye
		_ = c.nc.SetWriteDeadline(time.Now().Add(testenv.Patience))
		if _, err := c.nc.Write(encoded(t, text(n, 1, "still here"))); err != nil {
			break
		}
		if time.Since(at) > 20*time.Second {
			t.Fatal("the connection stays as long as its client likes")
		}
	}
	if n := len(w.sent()); n != 0 {
		t.Errorf("%d messages were taken after Goodbye", n)
	}
	testenv.Until(t, "the connection has ended", func() bool { return w.hub.Len() == 0 })
}

func TestASlowReaderIsDroppedWithGoodbyeLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow, other := w.login(t, 1), w.login(t, 2)
	big := encode.AppendEvent(nil, &chatv1.Event{ConversationId: 1, Body: bytes.Repeat([]byte("x"), 16<<10)})
	for range 1000 { // 16 MB, of which one may wait
		w.hub.Deliver([]uint64{1}, 0, big)
	}
	events := 0
	var last *chatv1.ServerFrame
	for {
		f, err := slow.next()
		if err != nil {
			break
		}
		if last = f; f.GetEvent() != nil {
			events++
		}
	}
	if g := last.GetGoodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_SLOW || !g.GetReconnect() {
		t.Errorf("the last frame is %v", last)
	}
	if events > 130 { // what was being written, and what waited behind it
		t.Errorf("%d events of 16 KB waited for the slow reader", events)
	}
	other.pong()
}

func TestNothingFollowsGoodbye(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.login(t, 1)
	w.hub.Deliver([]uint64{1}, 0, encode.HeadsFrames(nil))
	w.byeAll(chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING)
	w.hub.Deliver([]uint64{1}, 0, encode.HeadsFrames(nil))
	w.byeAll(chatv1.GoodbyeCode_GOODBYE_CODE_SLOW) // the first one counts
	if f := c.read(); f.GetHeads() == nil {
		t.Errorf("the push before the Goodbye is lost: %v", f)
	}
	if g := c.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING {
		t.Errorf("goodbye %v", g)
	}
}

func TestDrainWaitsForAcknowledgements(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.login(t, 1)
	c.write(text(1, 1, "a"), text(2, 1, "b"))
	testenv.Until(t, "both are under way", func() bool { return len(w.sent()) == 2 })
	w.hub.Each(func(_ uint64, c hub.Conn) {
		c.(*conn.Conn).Drain(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING})
	})
	c.write(text(3, 1, "too late"))
	for i, s := range w.sent() {
		s.done(msglog.Result{Seq: uint64(i + 1)})
		if f := c.read(); f.GetSent().GetSeq() != uint64(i+1) {
			t.Fatalf("got %v, want the answer to %d", f, i+1)
		}
	}
	if g := c.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING {
		t.Errorf("goodbye %v", g)
	}
	if len(w.sent()) != 2 {
		t.Error("a message was taken while leaving")
	}
}

func TestTooManyMessagesUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.login(t, 1)
	for n := range conn.MaxUnacknowledged {
		m := text(byte(n), 1, "x")
		m.RequestId = uint64(n + 1)
		m.GetSend().ClientMsgId[1] = 1
		c.write(m)
	}
	over := text(1, 1, "over")
	c.write(over)
	if f := c.read().GetFailure(); f.GetCode() != string(errs.CodeRateLimited) || f.GetRetryAfterMs() == 0 {
		t.Fatalf("got %v", f)
	}
	w.sent()[0].done(msglog.Result{Seq: 1})
	if c.read().GetSent() == nil {
		t.Fatal("no answer")
	}
	c.write(over)
	c.pong()
	if n := len(w.sent()); n != conn.MaxUnacknowledged+1 {
		t.Errorf("%d were taken", n)
	}
}

func TestNeverMoreThanTheCapacity(t *testing.T) {
	t.Parallel()
	const capacity, storm = 5, 40
	var verifying atomic.Int64
	together := make(chan struct{})
	w := newWorld(t, func(w *world, o *conn.Options) {
		o.Capacity = capacity
		w.verify = func(context.Context) error { // all at once
			if verifying.Add(1) == storm {
				close(together)
			}
			<-together
			return nil
		}
	})
	var welcome, full atomic.Int64
	var wg sync.WaitGroup
	for n := range byte(storm) {
		c := w.dial(t)
		wg.Go(func() {
			c.write(hello(n))
			switch f, err := c.next(); {
			case err != nil:
				t.Error(err)
			case f.GetWelcome() != nil:
				welcome.Add(1)
			case f.GetGoodbye().GetCode() == chatv1.GoodbyeCode_GOODBYE_CODE_FULL:
				full.Add(1)
				_ = c.nc.Close()
			}
		})
	}
	wg.Wait()
	if welcome.Load() != capacity || full.Load() != storm-capacity {
		t.Errorf("%d welcome, %d full", welcome.Load(), full.Load())
	}
}

// A client in its handshake when the server begins to refuse everybody is asked to
// leave like the others.
func TestRefusedInTheHandshake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world, _ *conn.Options) {
		w.verify = func(context.Context) error {
			w.refuse.Store(&chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING})
			return nil
		}
	})
	c := w.dial(t)
	c.write(hello(1))
	if g := c.goodbye(); g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING {
		t.Errorf("goodbye %v", g)
	}
}

func TestCloseAllEndsHandshakes(t *testing.T) {
	t.Parallel()
	var verifying atomic.Int64
	w := newWorld(t, func(w *world, _ *conn.Options) {
		w.verify = func(ctx context.Context) error { // a database that hangs
			verifying.Add(1)
			<-ctx.Done()
			return errs.Wrap(errs.CodeUnavailable, ctx.Err(), "x")
		}
	})
	w.dial(t) // sends nothing
	w.dial(t).write(hello(1))
	testenv.Until(t, "one is verified", func() bool { return verifying.Load() == 1 })
	at := time.Now()
	if err := w.CloseAll(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(at); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if f, err := w.dial(t).next(); err == nil { // the listener is still open
		t.Errorf("admitted after the end: %v", f)
	}
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world, _ *conn.Options) {
		for n := range uint64(100) {
			body := bytes.Repeat([]byte("x"), 16<<10)
			w.events = append(w.events, msglog.Event{Conversation: 1, Seq: n + 1, Body: body})
		}
	})
	c := w.login(t, 1)
	for _, ask := range []struct {
		name        string
		h           *chatv1.History
		first, last uint64
	}{
		{"from the start", &chatv1.History{ConversationId: 1}, 1, 16},
		{"from the middle", &chatv1.History{ConversationId: 1, After: 50}, 51, 66},
		{"a few", &chatv1.History{ConversationId: 1, After: 50, Limit: 3}, 51, 53},
		{"backwards", &chatv1.History{ConversationId: 1, Before: 50}, 34, 49},
		{"backwards, a few", &chatv1.History{ConversationId: 1, Before: 50, Limit: 2}, 48, 49},
	} {
		c.write(&chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_History{History: ask.h}})
		page := c.read().GetHistoryPage().GetEvents()
		var got []uint64
		for _, e := range page {
			got = append(got, e.GetSeq())
		}
		var want []uint64
		for seq := ask.first; seq <= ask.last; seq++ {
			want = append(want, seq)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %d, want %d", ask.name, got, want)
		}
	}
}

// hanging is a directory whose database accepts queries and answers none until
// answer is closed, as behind a network that is cut.
type hanging struct {
	*world
	answer chan struct{}
}

func (h hanging) OpenDirect(ctx context.Context, _ uint64, _ string) (*chatv1.Conversation, bool, error) {
	select {
	case <-h.answer:
	case <-ctx.Done():
	}
	return &chatv1.Conversation{Id: 7}, false, ctx.Err()
}

// A server whose database hangs does not look like one that hangs: it sends Pongs
// while it works on a request, and none afterwards.
func TestAHangingDatabaseDoesNotSilenceTheServer(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	w := newWorld(t, func(w *world, o *conn.Options) {
		o.Directory, o.Heartbeat = hanging{w, answer}, 200*time.Millisecond
	})
	c := w.login(t, 1)
	c.write(&chatv1.ClientFrame{RequestId: 5, Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: "x"},
	}})
	for range 5 { // that is more than two heartbeats
		if f := c.read(); f.GetPong() == nil || f.GetRequestId() != 0 {
			t.Fatalf("no Pong but %v", f)
		}
	}
	close(answer)
	for {
		f := c.read()
		if f.GetPong() != nil {
			continue // one was on its way
		}
		if f.GetRequestId() != 5 || f.GetConversation().GetId() != 7 {
			t.Fatalf("the answer is %v", f)
		}
		break
	}
	c.pong()
}

// spoiled is a directory that names a peer by bytes that are not UTF-8.
type spoiled struct{ *world }

func (spoiled) OpenDirect(context.Context, uint64, string) (*chatv1.Conversation, bool, error) {
	return &chatv1.Conversation{Id: 7, Peer: &chatv1.User{Id: 2, Name: "\xff"}}, false, nil
}

func TestAnAnswerThatCannotBeEncodedIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world, o *conn.Options) { o.Directory = spoiled{w} })
	c := w.login(t, 1)
	c.write(&chatv1.ClientFrame{RequestId: 5, Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: "x"},
	}})
	if f := c.read(); f.GetRequestId() != 5 || f.GetFailure().GetCode() != string(errs.CodeInternal) {
		t.Errorf("the answer is %v", f)
	}
	c.pong()
}
