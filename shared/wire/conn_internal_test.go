package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"
)

// pipes returns a dialer whose servers let everybody in, over pipes that hold
// nothing; behind Welcome a server does what then says.
func pipes(t *testing.T, k *Keeper, heartbeat time.Duration, then func(server net.Conn)) *Dialer {
	t.Helper()
	return &Dialer{Keeper: k, Connect: func(context.Context, string) (net.Conn, error) {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = server.Close() })
		go func() {
			if _, err := frame.Read(server, maxFrame, nil, &chatv1.ClientFrame{}); err != nil {
				return
			}
			b, err := frame.Append(nil, &chatv1.ServerFrame{RequestId: helloID, Body: &chatv1.ServerFrame_Welcome{
				Welcome: &chatv1.Welcome{HeartbeatMs: uint32(heartbeat.Milliseconds())},
			}})
			if err == nil {
				_, err = server.Write(b)
			}
			if err != nil {
				t.Error(err)
			}
			then(server)
		}()
		return client, nil
	}}
}

// stuck reads nothing, silent answers nothing.
func stuck(net.Conn)         {}
func silent(server net.Conn) { _, _ = io.Copy(io.Discard, server) }

func dial(t *testing.T, d *Dialer) *Conn {
	t.Helper()
	c, _, err := d.Dial(t.Context(), &chatv1.Endpoint{}, Login{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

type ignore struct{}

func (ignore) Frame(*chatv1.ServerFrame) {}
func (ignore) Drained()                  {}

func TestAServerThatDoesNotReadIsLeft(t *testing.T) {
	c := dial(t, pipes(t, nil, time.Minute, stuck))
	served := make(chan error, 1)
	go func() { served <- c.Serve(ignore{}) }()
	if err := c.write(make([]byte, 10), 10*time.Millisecond); !errors.Is(err, ErrStuck) {
		t.Errorf("the write ended with %v", err)
	}
	if err := <-served; !errors.Is(err, ErrStuck) {
		t.Errorf("Serve ended with %v", err)
	}
	if err := c.Write([]byte("more")); !errors.Is(err, ErrStuck) {
		t.Errorf("behind a part of a frame: %v", err)
	}
}

// A heartbeat is believed within reason, and the shortest sets a keeper's pace
// also when it waits for a long one.
func TestAKeeperFollowsTheShortestHeartbeat(t *testing.T) {
	k := NewKeeper()
	defer k.Close()
	for told, want := range map[time.Duration]time.Duration{
		0: defaultHeartbeat, time.Millisecond: minHeartbeat, time.Hour: maxHeartbeat, time.Second: time.Second,
	} {
		c := dial(t, pipes(t, nil, told, silent))
		if c.Heartbeat() != want {
			t.Errorf("a heartbeat of %v is taken as %v, want %v", told, c.Heartbeat(), want)
		}
	}
	long, short := dial(t, pipes(t, k, time.Hour, silent)), dial(t, pipes(t, k, minHeartbeat, silent))
	if err := short.Serve(ignore{}); !errors.Is(err, ErrSilent) {
		t.Errorf("Serve ended with %v", err)
	}
	long.Close()
	for slot := range slots {
		if n := len(k.in(slot, nil)); n > 0 {
			t.Errorf("%d connections that have ended are still kept", n)
		}
	}
}

func TestATimerEndsWithItsConnection(t *testing.T) {
	c := dial(t, pipes(t, nil, minHeartbeat, silent))
	if err := c.Serve(ignore{}); !errors.Is(err, ErrSilent) {
		t.Errorf("Serve ended with %v", err)
	}
	testenv.Until(t, "the timer rests", func() bool { return !c.timer.Stop() })
}

// Each check finds whether something was written since the one before, and whether
// the server has been silent for a heartbeat.
func TestOnlyAnIdleConnectionIsPinged(t *testing.T) {
	frames := make(chan *chatv1.ClientFrame, 10)
	c := dial(t, pipes(t, nil, time.Minute, func(server net.Conn) {
		for {
			f := &chatv1.ClientFrame{}
			if _, err := frame.Read(server, maxFrame, nil, f); err != nil {
				close(frames)
				return
			}
			frames <- f
		}
	}))
	c.wrote.Store(false) // Hello
	request, err := c.Append(nil, &chatv1.ClientFrame{RequestId: 2, Body: &chatv1.ClientFrame_ListConversations{}})
	if err != nil {
		t.Fatal(err)
	}
	c.check() // pings
	c.check()
	if err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	c.check()
	if err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	c.check()
	if err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	c.waiting.Store(clock() - int64(c.heartbeat)) // as if Serve had waited since then
	c.check()                                     // pings
	c.check()                                     // pings
	c.waiting.Store(0)
	c.check()
	c.check() // pings
	c.Close()
	var got []uint64 // pings have id 0
	for f := range frames {
		if f.GetPing() == nil && f.GetRequestId() == 0 {
			t.Errorf("the client sent %v", f)
		}
		got = append(got, f.GetRequestId())
	}
	if want := []uint64{0, 2, 2, 2, 0, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("the client sent requests %v, want %v", got, want)
	}
}
