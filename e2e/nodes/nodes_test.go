// Package nodes_test injects faults into the nodes of a fleet while people
// talk. See docs/nodes.md for the results.
package nodes_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/tools/nodes"
)

// backLimit is how soon users of a dead node have to be chatting again: the goal
// is ten seconds, the rest is for a machine that is busy with other things.
const backLimit = 30 * time.Second

func TestNodes(t *testing.T) {
	f := up(t)
	s := &suite{f: f}
	settle(t, f)
	t.Run("crash", s.crash)
	t.Run("cable out", s.unplugged)
	t.Run("cut off, users not", s.cutOff)
	t.Run("chat servers apart", s.apart)
	t.Run("drain", s.drain)
	s.print()
}

// suite collects the rows of the table.
type suite struct {
	f    *nodes.Fleet
	rows []row
}

// row is one fault: how many people were on the node, what was unacknowledged,
// when the last of them was chatting again, how often one was moved, when the
// fleet was whole again, and what the journals prove.
type row struct {
	fault                     string
	people, unacknowledged    int
	back, whole               time.Duration
	moves, acked, reconnected int
}

func (s *suite) print() {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FAULT\tPEOPLE THERE\tUNACKNOWLEDGED\tLAST ONE CHATTING AGAIN\tMOST MOVES\t"+
		"FLEET WHOLE AGAIN\tMESSAGES\tLOST, DOUBLED, REORDERED")
	for _, r := range s.rows {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%d\t%s\t%d\t0\n", r.fault,
			r.people, r.unacknowledged, seconds(r.back), r.moves, seconds(r.whole), r.acked)
	}
	_ = table.Flush()
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func settle(t *testing.T, f *nodes.Fleet) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := f.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// finish proves that nothing was lost and adds the row.
func (s *suite) finish(t *testing.T, p *people, r row, from time.Time) {
	t.Helper()
	report := p.check(t)
	r.acked, r.reconnected = report.Acked, report.Reconnects
	for _, d := range p.crowd.Devices() {
		r.moves = max(r.moves, moves(d, from))
	}
	t.Logf("%+v", r)
	if !t.Failed() {
		s.rows = append(s.rows, r)
	}
}

// A node loses its power. Its users notice after two heartbeats, and are chatting
// again elsewhere long before Nomad replaced what ran there.
func (s *suite) crash(t *testing.T) {
	p := gather(t, s.f, "crash")
	node, there := p.victim(t)
	r := row{fault: "node loses its power", people: len(there)}
	var from time.Time
	r.unacknowledged = p.hold(t, func() {
		from = time.Now()
		must(t, s.f.Crash(t.Context(), node))
	})
	r.back = allBack(t, there, from)
	if r.back > backLimit {
		t.Errorf("the last was chatting again after %v", r.back)
	}
	testenv.Until(t, "what ran there is replaced", func() bool { return s.replaced(t, node) })
	r.whole = time.Since(from)
	s.finish(t, p, r, from)
	must(t, s.f.Boot(t.Context(), node))
	settle(t, s.f)
	t.Logf("with the node back, all is settled %v after its end", time.Since(from))
}

// replaced says whether there are as many chat servers as before, none on a node.
func (s *suite) replaced(t *testing.T, node string) bool {
	t.Helper()
	entries, _, err := s.f.Consul().Health().Service("chat", "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if e.Node.Node != node {
			n++
		}
	}
	return n == len(nodes.Workers())
}

// A node is unplugged: its programs go on alone, and find out that they are cut
// off. Its users have left by then. When it is plugged in again, no route leads to
// it, and no second copy of anything is left.
func (s *suite) unplugged(t *testing.T) {
	p := gather(t, s.f, "unplugged")
	node, there := p.victim(t)
	r := row{fault: "node's cable out, and back", people: len(there)}
	old := there[0].Client().Link().Instance
	var from time.Time
	r.unacknowledged = p.hold(t, func() {
		from = time.Now()
		must(t, s.f.Unplug(t.Context(), node))
	})
	r.back = allBack(t, there, from)
	if r.back > backLimit {
		t.Errorf("the last was chatting again after %v", r.back)
	}
	testenv.Until(t, "the server there knows that it is cut off", func() bool {
		return strings.Contains(s.log(t, node, old), "cut off: neither")
	})
	testenv.Until(t, "what ran there is replaced", func() bool { return s.replaced(t, node) })
	r.whole = time.Since(from)
	must(t, s.f.Plug(t.Context(), node))
	s.healed(t, p, old)
	s.finish(t, p, r, from)
}

// A node is cut off from all others, but not from its users: its chat server must
// send them to other servers.
func (s *suite) cutOff(t *testing.T) {
	p := gather(t, s.f, "cutoff")
	node, there := p.victim(t)
	others := others(node)
	r := row{fault: "node cut off, users not; mended", people: len(there)}
	old := there[0].Client().Link().Instance
	var from time.Time
	r.unacknowledged = p.hold(t, func() {
		from = time.Now()
		must(t, s.f.Cut(t.Context(), node, others...))
	})
	r.back = allBack(t, there, from)
	if n := goodbyes(there, from, "cut off"); n < len(there) {
		t.Errorf("%d of %d were told that the server is cut off; they left because: %v",
			n, len(there), whyLeft(there, from))
	}
	testenv.Until(t, "what ran there is replaced", func() bool { return s.replaced(t, node) })
	r.whole = time.Since(from)
	must(t, s.f.Mend(t.Context(), node, others...))
	s.healed(t, p, old)
	s.finish(t, p, r, from)
}

// healed waits until the fleet is as it should be, and no route leads to the
// server that was cut off.
func (s *suite) healed(t *testing.T, p *people, old string) {
	t.Helper()
	from := time.Now()
	settle(t, s.f)
	testenv.Until(t, "no second copy of a chat server runs", func() bool {
		running := 0
		for _, node := range nodes.Workers() {
			running += s.f.Signal(node, "chat", 0)
		}
		return running == len(nodes.Workers())
	})
	password, err := s.f.Secret(t.Context(), "redis_password")
	must(t, err)
	rdb := redis.NewClient(&redis.Options{Addr: s.f.Redis(), Password: password})
	defer rdb.Close()
	// Sooner than such a route would expire: it was removed.
	testenv.Until(t, "no route leads to the server that was cut off", func() bool {
		return !slices.ContainsFunc(p.crowd.Devices(), func(d *device.Device) bool {
			key := fmt.Sprintf("%sroute:%d", cache.DefaultPrefix, d.Journal().Device.User)
			return slices.ContainsFunc(rdb.ZRange(t.Context(), key, 0, -1).Val(), func(route string) bool {
				return strings.HasPrefix(route, old+"/")
			})
		})
	})
	t.Logf("whole %.1f s after the heal", time.Since(from).Seconds())
	testenv.Until(t, "every status server counts each connection once", func() bool {
		entries, _, err := s.f.Consul().Health().Service("status", "", true, nil)
		if err != nil || len(entries) == 0 {
			return false
		}
		for _, e := range entries {
			total := 0
			address := fmt.Sprintf("%s:%d", e.Service.Address, e.Service.Port)
			for _, server := range cluster.Fleet(t, address).GetServers() {
				if server.GetEligible() { // of others it shows what they reported last
					total += int(server.GetLoad().GetConnections())
				}
			}
			if total != len(p.crowd.Devices()) {
				return false
			}
		}
		return true
	})
}

// The chat servers of a node and of the others lose sight of each other, though
// all see the databases and their users. Conversations cross the cut, and stay
// whole: messages are a heartbeat late, nothing else.
func (s *suite) apart(t *testing.T) {
	p := gather(t, s.f, "apart")
	node, there := p.victim(t)
	r := row{fault: "chat servers cut from each other", people: len(there)}
	var from time.Time
	var chats []string
	for _, other := range others(node) {
		if other != nodes.Control {
			chats = append(chats, other)
		}
	}
	r.unacknowledged = p.hold(t, func() {
		from = time.Now()
		must(t, s.f.Cut(t.Context(), node, chats...))
	})
	// Links find out after three seconds of silence; then a while without them.
	testenv.Until(t, "people talked on for a while", func() bool { return time.Since(from) > 5*heartbeat })
	s.finish(t, p, r, from) // with the cut in place
	must(t, s.f.Mend(t.Context(), node, chats...))
	settle(t, s.f)
}

// A node is drained: each connection there moves once, none elsewhere.
func (s *suite) drain(t *testing.T) {
	p := gather(t, s.f, "drain")
	node, there := p.victim(t)
	r := row{fault: "node drained", people: len(there)}
	var from time.Time
	r.unacknowledged = p.hold(t, func() { from = time.Now() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must(t, s.f.Drain(ctx, node))
	r.back = allBack(t, there, from)
	testenv.Until(t, "what ran there is replaced", func() bool { return s.replaced(t, node) })
	r.whole = time.Since(from)
	s.finish(t, p, r, from)
	for _, d := range p.crowd.Devices() {
		if n := moves(d, from); n > 1 {
			t.Errorf("%s was moved %d times", d.Name, n)
		}
	}
	must(t, s.f.Undrain(t.Context(), node))
	settle(t, s.f)
}

// others are all nodes of the fleet but one.
func others(node string) (list []string) {
	for _, other := range append([]string{nodes.Control}, nodes.Workers()...) {
		if other != node {
			list = append(list, other)
		}
	}
	return list
}

// log is what a chat server wrote so far, read from its node's disk.
func (s *suite) log(t *testing.T, node, instance string) string {
	t.Helper()
	_, state := folder(t)
	text, err := os.ReadFile(filepath.Join(state, node, "nomad/data/alloc", instance, "alloc/logs/chat.stderr.0"))
	must(t, err)
	return string(text)
}
