package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/status"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// A third server that is added under load has its share of the sixty connections
// within a minute (testenv.Patience). Each connection moves at most once, and the
// people who chat meanwhile notice nothing.
func TestAnAddedServerGetsItsShare(t *testing.T) {
	c := cluster.Run(t, cluster.Config{
		Chat:    func(cfg *chat.Config) { cfg.Settled = time.Second },
		Replica: func(cfg *status.Config) { cfg.StableFor = 2 * time.Second },
	})
	const pairs, devices, share = 6, 5, 2 * 6 * 5 / 3
	var talkers, all []*cluster.Talker
	for i := range pairs {
		names := []string{fmt.Sprintf("ann%d", i), fmt.Sprintf("bob%d", i)}
		for side, name := range names {
			person := c.Register(name)
			for device := range devices {
				talker := cluster.NewTalker(person.Connect(), name, names[1-side])
				all = append(all, talker)
				if device == 0 {
					talkers = append(talkers, talker)
				}
			}
		}
	}
	for _, talker := range talkers {
		talker.Begin(t)
	}
	load := func() (loads []uint32, sum uint32) {
		for _, s := range cluster.Fleet(t, c.Status[0].Server.GRPCAddr()).GetServers() {
			loads = append(loads, s.GetLoad().GetConnections())
			sum += s.GetLoad().GetConnections()
		}
		return loads, sum
	}
	testenv.Until(t, "all are connected", func() bool { _, sum := load(); return sum == uint32(len(all)) })
	before, _ := load()

	added := c.AddChat()
	messages, polls := 0, 0
	chatting := func() {
		if polls++; polls%40 != 0 {
			return
		}
		for _, talker := range talkers {
			talker.Send(t, fmt.Sprintf("message %d", messages))
		}
		messages++
	}
	start := time.Now()
	testenv.Until(t, "the added server has its share", func() bool {
		chatting()
		loads, sum := load()
		for _, n := range loads {
			if n < share-2 || n > share+2 {
				return false
			}
		}
		return len(loads) == 3 && sum == uint32(len(all))
	})
	after, _ := load()
	t.Logf("from %v to %v, %.1f s after %s was added", before, after, time.Since(start).Seconds(), added.Name)
	moves := 0
	for _, talker := range all {
		on := talker.Instances()
		if len(on) > 2 {
			t.Errorf("a device of %s moved more than once: %v", talker.Name, on)
		}
		moves += len(on) - 1
	}
	if moves < share-2 || moves > share+6 {
		t.Errorf("%d moves to give a server its %d", moves, share)
	}
	for i := 0; i < len(talkers); i += 2 {
		cluster.Check(t, 2*messages, talkers[i], talkers[i+1])
	}
	t.Logf("%d connections moved once, %d messages meanwhile", moves, messages*len(talkers))
}
