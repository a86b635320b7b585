package peer

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/msrchat/msrchat/shared/testenv"
)

// counting is a context that counts what was registered at it and not removed.
type counting struct {
	context.Context
	registered atomic.Int64
}

func (c *counting) AfterFunc(f func()) func() bool {
	c.registered.Add(1)
	stop := context.AfterFunc(c.Context, f)
	return func() bool {
		c.registered.Add(-1)
		return stop()
	}
}

// A peer may be away for days: an attempt to reach it must leave nothing behind.
func TestAnAttemptLeavesNothingBehind(t *testing.T) {
	p := New(Options{
		Instance: "a", Logger: slog.New(slog.DiscardHandler),
		Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
	})
	l := newLink(p, "b", fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)))
	parent := &counting{Context: t.Context()}
	for range 3 {
		if err := l.serve(parent); err == nil {
			t.Fatal("linked with nobody")
		}
	}
	if n := parent.registered.Load(); n != 0 {
		t.Errorf("%d registrations are left", n)
	}
}
