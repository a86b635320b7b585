package chat_test

import (
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// Two servers that stop together share the rate at which they ask connections to
// leave.
func TestServersThatStopTogetherShareTheRate(t *testing.T) {
	t.Parallel()
	const each, rate = 30, 30
	f := newFleet(t, false)
	paced := func(c *chat.Config) { c.Drain, c.DrainRate = 20*time.Second, rate }
	a, b, c := f.start("a", paced), f.start("b", paced), f.start("c")
	linked(t, a, b, c)
	ann := f.person()
	var leave, stopped sync.WaitGroup
	var mu sync.Mutex // owns asked
	var asked []time.Time
	for _, s := range []*running{a, b} {
		for range each {
			w := login(t, s, ann)
			leave.Go(func() {
				g := w.goodbye()
				_ = w.nc.Close()
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, time.Now())
				if g.GetCode() != chatv1.GoodbyeCode_GOODBYE_CODE_DRAINING {
					t.Errorf("goodbye %v", g)
				}
			})
		}
	}
	started := time.Now()
	stopped.Go(a.stop)
	stopped.Go(b.stop)
	leave.Wait()
	took := time.Since(started)
	stopped.Wait()
	// 60 connections at 30 a second. A busy machine takes longer. The first waves may
	// come before either server has seen that the other left the catalog.
	if least := 1500 * time.Millisecond; took < least {
		t.Errorf("%d connections left within %v, want at least %v", len(asked), took, least)
	}
	if took > 15*time.Second {
		t.Errorf("the rate was not used: %v", took)
	}
}
