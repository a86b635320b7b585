package nodes_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/proof/journal"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/tools/nodes"
)

const (
	// pairs talk with each other, rate is their messages a second: enough for each
	// server to have some, and little work for the machine.
	pairs = 12
	rate  = 100
	// least is how many messages are unacknowledged when the fault comes.
	least = 20
)

// people talk through one fault; their journals prove the result.
type people struct {
	f     *nodes.Fleet
	db    *sql.DB
	crowd *device.Crowd
	ids   []uint64 // of the conversations
	quiet func() error
}

// gather makes new accounts for a fault, and has them talk.
func gather(t *testing.T, f *nodes.Fleet, run string) *people {
	t.Helper()
	password, err := f.Secret(t.Context(), "mysql_password")
	if err != nil {
		t.Fatal(err)
	}
	db, err := account.Open(t.Context(), database.Config{
		Addr: f.MySQL(), User: "msrchat", Name: "msrchat", Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	persons, err := account.Make(t.Context(), db, account.Order{Run: run, Count: 2 * pairs})
	if err != nil {
		t.Fatal(err)
	}
	var who []conversation.Pair
	for i := range pairs {
		who = append(who, conversation.Pair{A: persons[2*i].ID, B: persons[2*i+1].ID})
	}
	p := &people{f: f, db: db}
	if p.ids, err = account.OpenDirect(t.Context(), db, who); err != nil {
		t.Fatal(err)
	}
	talks := make(map[uint64]conversation.Pair)
	for i, id := range p.ids {
		talks[id] = who[i]
	}
	p.crowd, err = device.NewCrowd(context.Background(), device.CrowdOptions{
		Gate: balancer{f}, People: persons, Conversations: talks, Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	talked := make(chan error, 1)
	go func() { talked <- p.crowd.Talk(ctx, rate) }()
	p.quiet = func() error {
		stop()
		return <-talked
	}
	t.Cleanup(func() {
		stop()
		p.crowd.Close()
	})
	return p
}

// hold stops the database until enough messages are unacknowledged, calls do, and
// continues it. It returns how many there were.
func (p *people) hold(t *testing.T, do func()) (unacknowledged int) {
	t.Helper()
	if p.f.Signal(nodes.Control, "mariadbd", syscall.SIGSTOP) != 1 {
		t.Fatal("there is not one database to hold")
	}
	testenv.Until(t, "enough is unacknowledged", func() bool { return p.crowd.Unsettled() >= least })
	unacknowledged = p.crowd.Unsettled()
	do()
	p.f.Signal(nodes.Control, "mariadbd", syscall.SIGCONT)
	return unacknowledged
}

// check ends the talk and proves that nothing was lost, doubled, reordered, or
// shown other than once.
func (p *people) check(t *testing.T) *check.Report {
	t.Helper()
	if err := p.quiet(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	quiet, err := p.crowd.Quiet(ctx, heartbeat)
	if err != nil {
		t.Error(err)
	}
	run := check.Run{Journals: p.crowd.Journals(), Quiet: quiet, Heartbeat: heartbeat, Minimum: 10 * least}
	if err := run.Read(t.Context(), p.db, p.ids); err != nil {
		t.Fatal(err)
	}
	report := run.Check()
	if err := report.Err(); err != nil {
		t.Errorf("%v\n%s", err, report)
	}
	p.crowd.Close() // only now: a device that left need not have shown everything
	return report
}

// at lists the devices that are connected to a node's chat servers.
func (p *people) at(t *testing.T, node string) (there []*device.Device) {
	t.Helper()
	on := places(t, p.f)
	for _, d := range p.crowd.Devices() {
		if on[d.Client().Link().Instance] == node {
			there = append(there, d)
		}
	}
	return there
}

// victim is a worker on which there are people, and who they are.
func (p *people) victim(t *testing.T) (node string, there []*device.Device) {
	t.Helper()
	for _, node := range nodes.Workers() {
		if there = p.at(t, node); len(there) > 0 {
			return node, there
		}
	}
	t.Fatal("nobody is anywhere")
	return "", nil
}

// places maps each chat server to its node.
func places(t *testing.T, f *nodes.Fleet) map[string]string {
	t.Helper()
	entries, _, err := f.Consul().Health().Service("chat", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	on := make(map[string]string)
	for _, e := range entries {
		on[e.Service.Meta["instance"]] = e.Node.Node
	}
	return on
}

// backAfter is how long a device needed, from a moment on, until it was connected
// anew and a message of its own was acknowledged there; false if not yet.
func backAfter(d *device.Device, from time.Time) (took time.Duration, back bool) {
	online := false
	for e := range d.Journal().All() {
		if e.At.Before(from) {
			continue
		}
		switch e.Kind {
		case journal.Online:
			online = true
		case journal.Acked:
			if online {
				return e.At.Sub(from), true
			}
		}
	}
	return 0, false
}

// allBack waits until all of some devices are chatting again, and returns how
// long the last one needed.
func allBack(t *testing.T, devices []*device.Device, from time.Time) (worst time.Duration) {
	t.Helper()
	for _, d := range devices {
		testenv.Until(t, d.Name+" is chatting again", func() bool {
			took, back := backAfter(d, from)
			worst = max(worst, took)
			return back
		})
	}
	return worst
}

// moves counts the connections that a device made from a moment on.
func moves(d *device.Device, from time.Time) (n int) {
	for e := range d.Journal().All() {
		if e.Kind == journal.Online && !e.At.Before(from) {
			n++
		}
	}
	return n
}

// goodbyes counts the devices that were told to leave with a text.
func goodbyes(devices []*device.Device, from time.Time, text string) (n int) {
	for why, times := range whyLeft(devices, from) {
		if strings.Contains(why, text) {
			n += times
		}
	}
	return n
}

// whyLeft counts the reasons for which devices first lost their connection from
// a moment on.
func whyLeft(devices []*device.Device, from time.Time) map[string]int {
	reasons := make(map[string]int)
	for _, d := range devices {
		for e := range d.Journal().All() {
			if e.Kind == journal.Offline && !e.At.Before(from) {
				reasons[e.Detail]++
				break
			}
		}
	}
	return reasons
}

// balancer stands for a load balancer of several gates: it sends each request
// to one that passes its checks, and to the next when that one fails.
type balancer struct{ f *nodes.Fleet }

func (b balancer) Assign(ctx context.Context, token client.Token, avoid []string) (client.Assignment, error) {
	entries, _, err := b.f.Consul().Health().Service("gate", "", true, nil)
	if err != nil {
		return client.Assignment{}, fmt.Errorf("find the gates: %w", err)
	}
	errs := []error{errors.New("no gate answers")}
	for _, e := range entries {
		gate, err := client.NewGate("http://"+net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)), nil)
		if err != nil {
			return client.Assignment{}, err
		}
		// As long as such a balancer waits; a gate that is there answers in far less.
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		a, err := gate.Assign(one, token, avoid)
		cancel()
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
	}
	return client.Assignment{}, errors.Join(errs...)
}
