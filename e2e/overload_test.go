package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

// Every chat server is full: a client that comes is told so with a time to
// retry, waits by itself, and gets in when there is room.
func TestEverybodyIsFull(t *testing.T) {
	t.Parallel()
	const capacity, servers = 2, 2
	c := cluster.Run(t, cluster.Config{
		Chats: servers, Status: 1, Chat: func(cfg *chat.Config) { cfg.Capacity = capacity },
	})
	quick := func(o *client.Options) {
		o.Backoff = client.Backoff{Base: 100 * time.Millisecond, Cap: 500 * time.Millisecond}
	}
	var inside []*client.Client
	for n := range capacity * servers {
		cl := c.Register(fmt.Sprintf("early%d", n)).Connect(quick)
		if _, err := cl.WaitOnline(t.Context()); err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		inside = append(inside, cl)
	}
	late := c.Register("late").Connect(quick)
	testenv.Until(t, "the late one knows why and when", func() bool {
		link := late.Link()
		return link.State == client.Offline && errs.CodeOf(link.Cause) == errs.CodeExhausted &&
			time.Until(link.RetryAt) > 0
	})
	for n, cl := range inside {
		if link := cl.Link(); link.State != client.Online {
			t.Errorf("client %d is %v: %v", n, link.State, link.Cause)
		}
	}
	inside[0].Close()
	if _, err := late.WaitOnline(t.Context()); err != nil {
		t.Fatal(err)
	}
	// And there it is served like anybody.
	if _, err := late.OpenDirect(t.Context(), "early1"); err != nil {
		t.Error(err)
	}
}
