package engines_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/testenv"
)

// A Redis Cluster loses a shard's data or a node, while half of the people talk and
// the others are silent but for one message at that moment. Every message is shown
// within a heartbeat, the last one of a silent conversation, too.
func TestRedisCluster(t *testing.T) {
	r := testenv.StartRedisCluster(t, time.Second)
	cfg := r.Config()
	s := &suite{
		redis:   r,
		cluster: cluster.Run(t, cluster.Config{Chats: 3, Redis: &cfg}),
		watch:   newWatch(),
	}
	all := pairs(t, s.cluster, s.watch, 24)
	s.silent, s.talkers = all[:12], all[12:]
	for _, load := range []bool{false, true} {
		stop := func() {}
		if load {
			stop = s.talk(t, 200)
		}
		for i := range max(rounds(), 1) {
			for _, f := range s.faults(t) {
				if rounds() == 0 && (!f.short || f.load != load) {
					continue
				}
				s.round(t, fmt.Sprintf("%d, %s", i+1, f.name), f)
			}
		}
		stop()
	}
	s.watch.allShown(t)
	s.watch.print(t, cluster.Heartbeat)
}

type suite struct {
	redis           *testenv.RedisCluster
	cluster         *cluster.Cluster
	watch           *watch
	silent, talkers []*pair
	// mode says whether there is load, now is what the talkers' messages are counted as.
	mode string
	now  atomic.Value
}

// talk has the talkers talk until stop is called.
func (s *suite) talk(t *testing.T, rate int) (stop func()) {
	t.Helper()
	s.mode = ", under load"
	s.now.Store("no fault, under load")
	ctx, cancel := context.WithCancel(t.Context())
	wait := s.watch.talk(ctx, t, s.talkers, rate, func() string { return s.now.Load().(string) })
	return func() {
		cancel()
		wait()
		s.watch.allShown(t)
	}
}

type fault struct {
	name string
	// short says that the short form does it, load in which mode.
	short, load bool
	do, heal    func()
}

func (s *suite) faults(t *testing.T) []fault {
	t.Helper()
	var victim *testenv.Process
	return []fault{
		{
			name:  "one shard emptied",
			short: true,
			do:    func() { s.redis.Empty(t, s.shard(t)) },
		},
		{
			name:  "one primary killed, its replica takes over",
			short: true, load: true,
			do: func() {
				victim = s.shard(t)
				victim.Kill()
			},
			heal: func() {
				testenv.Until(t, "the replica has taken over", func() bool { return s.redis.Whole() })
				victim.Start(t)
			},
		},
		{
			name: "one primary killed, and back empty at once",
			do: func() {
				victim = s.shard(t)
				victim.Kill()
				victim.Start(t)
			},
		},
		{
			name:  "all shards emptied",
			short: true, load: true,
			do: func() { s.cluster.EmptyRedis() },
		},
	}
}

// round does one fault. Half of the silent people are written to just before it, the
// others just after it, and then they are silent.
func (s *suite) round(t *testing.T, name string, f fault) {
	t.Helper()
	s.whole(t)
	label := f.name + ", silence"
	if s.mode != "" {
		label = f.name + s.mode
		s.now.Store(label)
	}
	for _, p := range s.silent[:len(s.silent)/2] {
		s.watch.send(t, p, label)
	}
	f.do()
	for _, p := range s.silent[len(s.silent)/2:] {
		s.watch.send(t, p, label)
	}
	if s.mode == "" {
		s.watch.allShown(t)
	} else {
		<-time.After(cluster.Heartbeat) // what they say in it counts as said in the fault
	}
	if f.heal != nil {
		f.heal()
	}
	s.now.Store("no fault, under load")
	if t.Failed() {
		t.Fatalf("in round %s", name)
	}
}

// whole waits until the cluster is, and has all routes and liveness keys: nothing is
// left of the fault before.
func (s *suite) whole(t *testing.T) {
	t.Helper()
	s.redis.Settle(t)
	cfg := s.redis.Config()
	testenv.Until(t, "all routes and liveness keys are there", func() bool {
		return len(testenv.RedisKeys(t, cfg, "route:*")) == 2*(len(s.silent)+len(s.talkers)) &&
			len(testenv.RedisKeys(t, cfg, "beacon:*")) == len(s.cluster.Chats)
	})
}

// shard is one with the routes of silent readers, two at least, whose servers have
// their liveness key in another shard.
func (s *suite) shard(t *testing.T) *testenv.Process {
	t.Helper()
	key := func(format string, args ...any) *testenv.Process {
		return s.redis.Primary(t, cache.DefaultPrefix+fmt.Sprintf(format, args...))
	}
	beacons := make(map[string]*testenv.Process)
	for _, c := range s.cluster.Chats {
		beacons[c.Name] = key("beacon:%s", c.Name)
	}
	count := make(map[*testenv.Process]int)
	var best *testenv.Process
	for _, p := range s.silent[len(s.silent)/2:] {
		at := key("route:%d", p.readerID)
		if at != beacons[p.readerServer] {
			if count[at]++; best == nil || count[at] > count[best] {
				best = at
			}
		}
	}
	if best == nil || count[best] < 2 {
		t.Fatal("no shard has the routes of silent readers alone")
	}
	return best
}
