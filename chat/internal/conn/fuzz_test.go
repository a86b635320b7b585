package conn_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/conn"
)

// FuzzServer throws bytes at a server, before and after Hello. Whatever they are,
// the answers are whole frames, nothing follows a Goodbye, the connection ends
// when its client leaves, and another client is not disturbed.
func FuzzServer(f *testing.F) {
	for _, frames := range [][]*chatv1.ClientFrame{
		{hello(3)},
		{ping()},
		{text(1, 1, "你好")},
		{hello(3), text(1, 1, "x"), ping()},
		{{}},
		{{RequestId: 2, Body: &chatv1.ClientFrame_History{
			History: &chatv1.History{ConversationId: 1, After: 1, Limit: 1 << 31},
		}}},
		{{RequestId: 2, Body: &chatv1.ClientFrame_History{
			History: &chatv1.History{ConversationId: 1, Before: 1 << 63},
		}}},
		{{RequestId: 2, Body: &chatv1.ClientFrame_ListConversations{
			ListConversations: &chatv1.ListConversations{AfterId: 1 << 63},
		}}},
		{{RequestId: 2, Body: &chatv1.ClientFrame_OpenDirect{
			OpenDirect: &chatv1.OpenDirect{PeerName: "\x00"},
		}}},
	} {
		var b []byte
		for _, m := range frames {
			b = append(b, encoded(f, m)...)
		}
		f.Add(b)
	}
	for _, b := range [][]byte{
		{},
		{0, 0, 0, 0},
		{0xff, 0xff, 0xff, 0xff},
		{0, 0, 0, 9, 1},
		[]byte("GET / HTTP/1.1\r\n\r\n"),
		{0, 0, 0, 2, 0x22, 0},
	} {
		f.Add(b)
	}
	w := newWorld(f, func(w *world, o *conn.Options) { o.Heartbeat = time.Hour })
	bystander := w.login(f, 1)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, connect := range []func() *client{
			func() *client { return w.dial(t) },
			func() *client { return w.login(t, 2) },
		} {
			connect().throw(t, b)
			testenv.Until(t, "only the bystander is left", func() bool { return w.hub.Len() == 1 })
		}
		bystander.t = t
		bystander.pong()
	})
}

// throw writes bytes while it reads what comes, then leaves.
func (c *client) throw(t *testing.T, b []byte) {
	t.Helper()
	read := make(chan struct{})
	var left atomic.Bool
	go func() {
		defer close(read)
		for ended := false; ; {
			f, err := c.next()
			var timeout net.Error
			switch {
			case err == nil && ended:
				t.Errorf("%v after Goodbye", f)
			case err == nil:
				ended = f.GetGoodbye() != nil
				continue
			case errors.As(err, &timeout):
				t.Error("nothing happened")
			case left.Load(): // the end may cut a frame
			case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe):
				t.Errorf("the answer is no frame: %v", err)
			}
			return
		}
	}()
	_ = c.nc.SetWriteDeadline(time.Now().Add(testenv.Patience))
	// Behind the bytes comes a frame that is never valid. It ends the connection,
	// unless the server takes it for the rest of a frame.
	if _, err := c.nc.Write(append(b[:len(b):len(b)], 0, 0, 0, 0)); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	left.Store(true)
	_ = c.nc.Close()
	<-read
}
