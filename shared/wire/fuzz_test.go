package wire_test

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire"
)

// stream is a connection on which a server has sent all that it will.
type stream struct{ *bytes.Reader }

func (stream) Write(b []byte) (int, error)      { return len(b), nil }
func (stream) Close() error                     { return nil }
func (stream) LocalAddr() net.Addr              { return nil }
func (stream) RemoteAddr() net.Addr             { return nil }
func (stream) SetDeadline(time.Time) error      { return nil }
func (stream) SetReadDeadline(time.Time) error  { return nil }
func (stream) SetWriteDeadline(time.Time) error { return nil }

// FuzzServer feeds what a server may send, Welcome included.
func FuzzServer(f *testing.F) {
	let := encode(welcome(time.Second))
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add(let)
	f.Add(encode(goodbye(draining)))
	f.Add(append(let, encode(event(1, "a"), pong(), event(2, "b"), goodbye(draining), event(3, "c"))...))
	f.Add(append(let, 0, 0, 0, 0))
	f.Add(append(let, 0, 0x80, 0, 0, 1))
	f.Fuzz(func(t *testing.T, sent []byte) {
		d := wire.Dialer{Connect: func(context.Context, string) (net.Conn, error) {
			return stream{bytes.NewReader(sent)}, nil
		}}
		c, w, err := d.Dial(t.Context(), &chatv1.Endpoint{}, login)
		if (err == nil) != (w != nil) {
			t.Fatalf("Dial gave %v and %v", w, err)
		}
		if err != nil {
			return
		}
		if h := c.Heartbeat(); h < 10*time.Millisecond || h > 10*time.Minute {
			t.Errorf("the heartbeat is %v", h)
		}
		var got collector
		if err := c.Serve(&got); err == nil {
			t.Error("Serve ended without an error")
		}
		if 5*len(got.frames) > len(sent) { // a frame has five bytes at least
			t.Errorf("%d frames out of %d bytes", len(got.frames), len(sent))
		}
	})
}
