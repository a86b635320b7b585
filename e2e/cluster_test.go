// Package e2e tests the whole system on real parts.
package e2e_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/client"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// pair registers two people and connects them, the second when every status
// server knows of the first.
func pair(t *testing.T, c *cluster.Cluster) (ann, bob *cluster.Talker) {
	t.Helper()
	ann = cluster.NewTalker(c.Register("ann").Connect(), "ann", "bob")
	for _, s := range c.Status {
		testenv.Until(t, s.Name+" knows of ann", func() bool { return connections(t, s.Server.GRPCAddr()) == 1 })
	}
	bob = cluster.NewTalker(c.Register("bob").Connect(), "bob", "ann")
	bob.Begin(t)
	return ann, bob
}

// connections is how many connections a status server knows of.
func connections(t *testing.T, address string) (n uint32) {
	t.Helper()
	for _, s := range cluster.Fleet(t, address).GetServers() {
		n += s.GetLoad().GetConnections()
	}
	return n
}

func TestTwoPeopleChat(t *testing.T) {
	c := cluster.Run(t, cluster.Config{})
	ann, bob := pair(t, c)
	const each = 100
	for i, text := range cluster.Corpus(each) {
		ann.Send(t, text)
		bob.Send(t, text)
		if i == each/2 { // the second device comes late
			testenv.Until(t, "bob sees something", func() bool { return bob.Shown() > 0 })
		}
	}
	cluster.Check(t, 2*each, ann, bob)
	// Least load put them on different servers.
	if a, b := ann.Instances(), bob.Instances(); len(a) != 1 || len(b) != 1 || a[0] == b[0] {
		t.Errorf("ann was on %v, bob on %v: want one each, and different", a, b)
	}
}

// An assignment goes where the load is least, whichever server that is.
func TestAssignmentFollowsLoad(t *testing.T) {
	c := cluster.Run(t, cluster.Config{})
	crowd := c.Register("crowd")
	load := func(instance string) (n uint32) {
		for _, s := range cluster.Fleet(t, c.Status[0].Server.GRPCAddr()).GetServers() {
			if s.GetEndpoint().GetInstance() == instance {
				n = s.GetLoad().GetConnections() + s.GetPendingAssignments()
			}
		}
		return n
	}
	for _, full := range []int{0, 1} {
		here, there := c.Chats[full], c.Chats[1-full]
		at := &client.Assignment{
			Server:    client.Endpoint{Instance: here.Name, Address: here.Server.ClientAddr()},
			ExpiresAt: time.Now().Add(testenv.Patience),
		}
		var held []*client.Client
		for range 6 {
			held = append(held, crowd.Connect(func(o *client.Options) { o.Assignment = at }))
		}
		for _, s := range c.Status {
			testenv.Until(t, s.Name+" knows the load", func() bool {
				for _, server := range cluster.Fleet(t, s.Server.GRPCAddr()).GetServers() {
					if server.GetEndpoint().GetInstance() == here.Name && server.GetLoad().GetConnections() >= 6 {
						return true
					}
				}
				return false
			})
		}
		for range 4 {
			newcomer := crowd.Connect()
			link, err := newcomer.WaitOnline(t.Context())
			if err != nil || link.Instance != there.Name {
				t.Errorf("with %s full a newcomer went to %q (%v), want %s", here.Name, link.Instance, err, there.Name)
			}
			held = append(held, newcomer)
		}
		for _, cl := range held {
			cl.Close()
		}
		testenv.Until(t, "everybody has left", func() bool { return load(here.Name)+load(there.Name) == 0 })
	}
}

// One kind of server after the other is restarted while messages flow both ways.
func TestMessagesSurviveRestarts(t *testing.T) {
	c := cluster.Run(t, cluster.Config{Own: true})
	ann, bob := pair(t, c)
	testenv.Until(t, "both are online", func() bool { return len(ann.Instances()) > 0 && len(bob.Instances()) > 0 })
	sent := 0
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"a chat server drains", func() { c.Chats[0].Stop(); c.AddChat() }},
		{"both status servers", func() {
			c.Status[0].Stop()
			c.Status[1].Stop()
			c.AddStatus()
			c.AddStatus()
		}},
		{"the gate", func() { c.Gate.Stop(); c.StartGate() }},
		{"redis, flushed", func() {
			c.EmptyRedis()
			c.Redis.Kill()
			c.Redis.Start(t)
		}},
		{"mariadb, killed", func() { c.MariaDB.Kill(); c.MariaDB.Start(t) }},
		{"consul", func() { c.Consul.Kill(); c.Consul.Start(t) }},
		{"the other chat server drains", func() { c.Chats[1].Stop() }},
	} {
		t.Run(step.name, func(t *testing.T) {
			const each = 50
			var half atomic.Bool
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i, text := range cluster.Corpus(each) {
					ann.Send(t, text)
					bob.Send(t, text)
					if i == each/2 {
						half.Store(true)
					}
				}
			}()
			testenv.Until(t, "half is sent", half.Load)
			step.do()
			<-done
			sent += 2 * each
			cluster.Check(t, sent, ann, bob)
		})
	}
	t.Logf("ann was on %v, bob on %v", ann.Instances(), bob.Instances())
}

func TestTheLastMessageAppearsThoughItsPushWasDropped(t *testing.T) {
	var drop atomic.Bool
	c := cluster.Run(t, cluster.Config{Chat: func(cfg *chat.Config) {
		cfg.Hooks.DropPush = func(*chatv1.Event) bool { return drop.Load() }
	}})
	ann, bob := pair(t, c)
	ann.Send(t, "first")
	cluster.Check(t, 1, ann, bob)
	for i, flush := range []bool{false, true} {
		drop.Store(true)
		id := ann.Send(t, "dropped")
		if _, err := ann.Client.Wait(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		if flush {
			c.EmptyRedis()
		}
		testenv.Until(t, "bob sees it", func() bool { return bob.Shown() == i+2 })
		if took := time.Since(at); took > cluster.Heartbeat {
			t.Errorf("flushed %v: shown after %v, a heartbeat is %v", flush, took, cluster.Heartbeat)
		}
		drop.Store(false)
	}
	cluster.Check(t, 3, ann, bob)
}
