package peer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/testenv"
)

// counting is a context that never ends and counts what waits for its end.
type counting struct {
	context.Context
	done    chan struct{}
	waiting atomic.Int64
}

func (c *counting) Done() <-chan struct{} { return c.done }

func (c *counting) AfterFunc(func()) func() bool {
	c.waiting.Add(1)
	return sync.OnceValue(func() bool {
		c.waiting.Add(-1)
		return true
	})
}

// A peer may be away for days: an attempt to reach it must leave nothing behind.
func TestAnAttemptLeavesNothingBehind(t *testing.T) {
	p := New(Options{
		Instance: "a", Logger: slog.New(slog.DiscardHandler),
		Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
	})
	l := newLink(p, "b", fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)))
	parent := &counting{Context: context.Background(), done: make(chan struct{})}
	for range 3 {
		if err := l.serve(parent); err == nil {
			t.Fatal("linked with nobody")
		}
	}
	if n := parent.waiting.Load(); n != 0 {
		t.Errorf("%d contexts are left", n)
	}
}

// A peer that is listed again just when its link gives up keeps the link, whose goroutine
// goes on: nobody else would make another one.
func TestALinkThatIsListedAgainStays(t *testing.T) {
	p := New(Options{Instance: "a", Logger: slog.New(slog.DiscardHandler)})
	l := newLink(p, "b", "127.0.0.1:1")
	p.links["b"] = l
	p.listed = map[string]discovery.Instance{"b": {ID: "b"}}
	if p.drop(l) || p.links["b"] != l || l.gone {
		t.Error("the link of a listed peer was dropped")
	}
	p.listed = nil
	if !p.drop(l) || p.links["b"] != nil || !l.gone {
		t.Error("the link of a peer that is not listed was kept")
	}
}
