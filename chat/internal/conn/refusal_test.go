package conn_test

import (
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

func history1(request uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{RequestId: request, Body: &chatv1.ClientFrame_History{
		History: &chatv1.History{ConversationId: 1},
	}}
}

func openDirect(request uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{RequestId: request, Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: "x"},
	}}
}

// ask sends a request and returns its answer.
func (c *client) ask(f *chatv1.ClientFrame) *chatv1.ServerFrame {
	c.t.Helper()
	c.write(f)
	for {
		if got := c.read(); got.GetRequestId() == f.GetRequestId() {
			return got
		}
	}
}

// untilRefused asks again and again, and returns how often it was answered before a failure.
// That takes a second: nothing is read meanwhile.
func (c *client) untilRefused(f *chatv1.ClientFrame, want errs.Code) (answered int) {
	c.t.Helper()
	for ; answered < 1000; answered++ {
		began := time.Now()
		failure := c.ask(f).GetFailure()
		if failure == nil {
			continue
		}
		if failure.GetCode() != string(want) || failure.GetRetryAfterMs() == 0 {
			c.t.Errorf("answered %v, want %s with a time to retry", failure, want)
		}
		if took := time.Since(began); took < time.Second {
			c.t.Errorf("refused after %v", took)
		}
		return answered
	}
	c.t.Error("never refused")
	return answered
}

// A user reads so many pages at once, on whichever connection, and other people read theirs.
func TestPagesAreCountedForEachUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world, _ *conn.Options) { w.events = page(16) }) // a quarter of a MiB
	first, second, other := w.login(t, 1), w.login(t, 1), w.login(t, 2)
	began := time.Now()
	back := func() int { return int(time.Since(began).Seconds()) + 1 } // one a second
	if n := first.untilRefused(history1(7), errs.CodeRateLimited); n < 31 || n > 32+back() {
		t.Errorf("%d pages were read, want 32 and what came back", n)
	}
	if n := second.untilRefused(history1(7), errs.CodeRateLimited); n > back() {
		t.Errorf("%d more pages were read on another connection", n)
	}
	if f := other.ask(history1(7)); f.GetHistoryPage() == nil {
		t.Errorf("somebody else is answered %v", f)
	}
}

// What has no room in memory is not begun: pages first, then all that may wait for the
// database.
func TestWhatHasNoRoomIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		memory  int64
		refused *chatv1.ClientFrame
		made    *chatv1.ClientFrame
	}{
		{"a page", 128 << 10, history1(7), openDirect(8)},
		{"any request", 16 << 10, openDirect(7), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world, o *conn.Options) { w.events, o.Memory = page(1), c.memory })
			who := w.login(t, 1)
			if n := who.untilRefused(c.refused, errs.CodeExhausted); n > 0 {
				t.Errorf("%d were answered", n)
			}
			if c.made != nil {
				if f := who.ask(c.made); f.GetFailure() != nil {
					t.Errorf("what has room is answered %v", f)
				}
			}
			who.pong()
		})
	}
}
