package crowd_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/crowd"
	"github.com/msrchat/msrchat/bench/dial"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/users"
)

const size = 20

// start runs a relay, which lets everybody in, until stop.
func start(t *testing.T, dialer *wire.Dialer) (u users.Floor, stop func()) {
	t.Helper()
	s, err := floor.NewServer(t.Context(), floor.Relay, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	var once atomic.Bool
	stop = func() {
		if cancel(); once.CompareAndSwap(false, true) {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return users.Floor{Address: l.Addr().String(), Dialer: dialer}, stop
}

func newDialer(t *testing.T) *wire.Dialer {
	t.Helper()
	d := dial.New(nil)
	t.Cleanup(d.Keeper.Close)
	return d
}

func goodbye(code chatv1.GoodbyeCode, reconnect bool) error {
	return &wire.GoodbyeError{Goodbye: &chatv1.Goodbye{Code: code, Reconnect: reconnect, ReconnectAfterMs: 1}}
}

func TestUsersWhoAreRefusedForATimeComeAgain(t *testing.T) {
	relay, _ := start(t, newDialer(t))
	var attempts [size]atomic.Int32
	c := crowd.New(size, func(ctx context.Context, i int) (*wire.Conn, error) {
		if attempts[i].Add(1) <= 2 {
			return nil, goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_FULL, true)
		}
		return relay.Connect(ctx, i)
	})
	defer c.Close()
	if err := c.Enter(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if s := c.State(); s.Connected != size || s.Attempts != 3*size || c.Errors()["goodbye full"] != 2*size {
		t.Errorf("%+v, errors %v", s, c.Errors())
	}
	if n := c.Entered().Count; n != size {
		t.Errorf("the times of %d users were recorded", n)
	}
}

func TestAUserWhoCannotComeBackGivesUp(t *testing.T) {
	c := crowd.New(size, func(context.Context, int) (*wire.Conn, error) {
		return nil, goodbye(chatv1.GoodbyeCode_GOODBYE_CODE_UNAUTHENTICATED, true)
	})
	defer c.Close()
	var bye *wire.GoodbyeError
	if err := c.Enter(t.Context(), 0); !errors.As(err, &bye) || !bye.LoggedOut() {
		t.Errorf("Enter gave %v", err)
	}
	if s := c.State(); s.Connected != 0 || s.Attempts != size {
		t.Errorf("%+v", s)
	}
}

func TestUsersReconnectAfterTheirServersDeath(t *testing.T) {
	d := newDialer(t)
	first, kill := start(t, d)
	second, _ := start(t, d)
	var dead atomic.Bool
	c := crowd.New(size, func(ctx context.Context, i int) (*wire.Conn, error) {
		if dead.Load() {
			return second.Connect(ctx, i)
		}
		return first.Connect(ctx, i)
	})
	defer c.Close()
	if err := c.Enter(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	dead.Store(true)
	kill()
	testenv.Until(t, "all are back", func() bool {
		s := c.State()
		return s.Lost == size && s.Connected == size
	})
	if s := c.State(); s.Attempts != 2*size || s.FirstLoss.IsZero() || c.Errors()["connection lost"] != size {
		t.Errorf("%+v, errors %v", s, c.Errors())
	}
}

func TestClosingACrowdEndsItsAttempts(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var once atomic.Bool
	c := crowd.New(size, func(context.Context, int) (*wire.Conn, error) {
		if once.CompareAndSwap(false, true) {
			time.AfterFunc(time.Millisecond, cancel)
		}
		return nil, errors.New("nothing listens")
	})
	defer c.Close()
	if err := c.Enter(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Enter gave %v", err)
	}
}
