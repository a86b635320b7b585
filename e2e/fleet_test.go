package e2e_test

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/e2e/fleet"
)

// TestFleet is the system as an operator runs it: under Nomad, brought up by
// the recipe, its processes killed and its jobs deployed while people chat.
func TestFleet(t *testing.T) {
	f := fleet.Up(t)
	started := time.Now()
	f.Just("up")
	t.Logf("a second up, already up, took %.1f s", time.Since(started).Seconds())

	t.Run("doctor", func(t *testing.T) { doctor(t, f) })
	people := &talk{f: f}
	people.connect(t)
	t.Run("on two servers", people.apart)
	for _, fault := range append(people.faults(t), people.agents(t, syscall.SIGKILL)...) {
		t.Run(fault.name, func(t *testing.T) { people.survive(t, fault) })
	}
	t.Run("a check fails, reports stop", people.unassigned)
	t.Run("no probe takes a fault for a loss", func(t *testing.T) { noneCondemned(t, f) })
	t.Run("upgrade", people.upgrade)
	t.Run("a build that loses messages", func(t *testing.T) { rolledBack(t, f) })
	t.Run("commands", func(t *testing.T) { commands(t, f) })
	t.Run("screens", func(t *testing.T) { screens(t, f) })
}

// doctor passes a sound fleet, and fails a database that would lose messages.
func doctor(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	verdicts, printed, _ := f.Doctor() // the machine itself may lack something
	checks := []string{
		"fleet", "ports", "consul leader", "nomad leader", "durability", "clock of mysql",
		"kill timeout of mysql", "kill timeout of chat", "mysql that runs",
	}
	for _, service := range []string{"mysql", "redis", "mail", "status", "chat", "gate"} {
		for _, instance := range f.Passing(service) {
			checks = append(checks, service+" "+instance[:8])
		}
	}
	for _, check := range checks {
		if verdicts[check] != "ok" {
			t.Errorf("%s is %q, want ok", check, verdicts[check])
		}
	}
	f.SQL("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
	defer f.SQL("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
	verdicts, _, failed := f.Doctor()
	if verdicts["durability"] != "FAIL" || failed == nil {
		t.Errorf("with the log not synced durability is %q, and the recipe ended with %v",
			verdicts["durability"], failed)
	}
	if t.Failed() {
		t.Log(printed)
	}
}

// talk is two people in one conversation through all the faults.
type talk struct {
	f        *fleet.Fleet
	ann, bob client.LoginReply
	a, b     *cluster.Talker
	sent     int
}

func (p *talk) open(t *testing.T, who client.LoginReply, to string) *cluster.Talker {
	t.Helper()
	c, err := client.Open(context.Background(), client.Options{
		Gate: p.f.Gate(), Session: who.Session, Assignment: who.Assignment,
		Store: store.NewMemory(10_000), Program: "e2e", FirstPage: 10_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return cluster.NewTalker(c, who.Session.User.Name, to)
}

// connect connects ann, and bob to another server than hers.
func (p *talk) connect(t *testing.T) {
	t.Helper()
	p.ann = p.f.Register("ann")
	p.a = p.open(t, p.ann, "bob")
	testenv.Until(t, "ann is online", func() bool { return len(p.a.Instances()) > 0 })
	p.bob = p.f.Register("bob")
	elsewhere, err := p.f.Gate().Assign(t.Context(), p.bob.Session.Token, p.a.Instances())
	if err != nil {
		t.Fatal(err)
	}
	p.bob.Assignment = &elsewhere
	p.b = p.open(t, p.bob, "ann")
	p.b.Begin(t)
	testenv.Until(t, "bob is online", func() bool { return len(p.b.Instances()) > 0 })
}

func (p *talk) apart(t *testing.T) {
	if a, b := p.a.Instances()[0], p.b.Instances()[0]; a == b {
		t.Errorf("both are on %s", a)
	}
	p.say(t, 5)
	cluster.Check(t, p.sent, p.a, p.b)
}

// say sends n messages from each side.
func (p *talk) say(t *testing.T, n int) {
	t.Helper()
	for _, text := range cluster.Corpus(n) {
		p.a.Send(t, text)
		p.b.Send(t, text)
	}
	p.sent += 2 * n
}

// fault is something that is killed, and the check that it is back.
type fault struct {
	name, service string
	do            func()
	back          func(old []int)
}

func (p *talk) faults(t *testing.T) []fault {
	t.Helper()
	f := p.f
	// back means passing checks, and no earlier process if all were killed.
	passing := func(service string, n int) func(old []int) {
		return func(old []int) {
			t.Helper()
			testenv.Until(t, service+" is back", func() bool {
				now := f.Processes(service, "")
				return len(now) >= n && len(f.Passing(service)) >= n && !slices.Equal(now, old)
			})
		}
	}
	kill := func(service, allocation string) {
		t.Helper()
		if f.Signal(syscall.SIGKILL, service, allocation) == 0 {
			t.Errorf("there was no %s to kill", service)
		}
	}
	return []fault{
		{"kill -9 of a chat server", "chat", func() {
			kill("chat", current(p.a))
		}, passing("chat", 2)},
		{"kill -9 of the other chat server", "chat", func() {
			kill("chat", current(p.b))
		}, passing("chat", 2)},
		{"kill -9 of both status servers", "status", func() { kill("status", "") }, passing("status", 2)},
		{"kill -9 of the gate", "gate", func() { kill("gate", "") }, passing("gate", 1)},
		{"redis flushed and killed", "redis", func() {
			rdb := redis.NewClient(&redis.Options{Addr: f.Address(7721)})
			defer rdb.Close()
			if err := rdb.FlushAll(context.Background()).Err(); err != nil {
				t.Error(err)
			}
			kill("redis", "")
		}, passing("redis", 1)},
		{"restart of mariadb", "mysql", func() {
			f.Signal(syscall.SIGTERM, "mysql", "") // handled when it continues; Nomad starts it again
		}, passing("mysql", 1)},
		{"kill -9 of mariadb", "mysql", func() { kill("mysql", "") }, passing("mysql", 1)},
	}
}

func current(t *cluster.Talker) string {
	all := t.Instances()
	return all[len(all)-1]
}

// survive sends 100 messages each way across a fault. The database is stopped
// for the moment of the kill, so that many are certainly unacknowledged then.
func (p *talk) survive(t *testing.T, f fault) {
	t.Helper()
	const each = 100
	if p.f.Signal(syscall.SIGSTOP, "mysql", "") == 0 {
		t.Fatal("there is no database to hold")
	}
	p.say(t, each)
	unacknowledged := p.a.Unsettled() + p.b.Unsettled()
	if unacknowledged < 20 {
		t.Errorf("only %d messages were unacknowledged at the fault", unacknowledged)
	}
	old := p.f.Processes(f.service, "")
	at := time.Now()
	f.do()
	p.f.Signal(syscall.SIGCONT, "mysql", "") // unless it was what died
	cluster.Check(t, p.sent, p.a, p.b)
	took := time.Since(at)
	f.back(old)
	t.Logf("%d unacknowledged at the fault, all %d there after %.1f s, service back after %.1f s",
		unacknowledged, 2*each, took.Seconds(), time.Since(at).Seconds())
	p.assignable(t)
}

// assignable waits until every chat server of the catalog may be assigned
// again, and both people are online.
func (p *talk) assignable(t *testing.T) {
	t.Helper()
	testenv.Until(t, "every chat server is eligible again", func() bool {
		for _, addr := range p.f.StatusAddrs() {
			n := 0
			for _, s := range cluster.Fleet(t, addr).GetServers() {
				if s.GetEligible() {
					n++
				}
			}
			if n < 2 {
				return false
			}
		}
		return len(p.f.StatusAddrs()) == 2
	})
	for _, who := range []*cluster.Talker{p.a, p.b} {
		testenv.Until(t, who.Name+" is online", func() bool { return who.Client.Link().State == client.Online })
	}
}

// unassigned freezes a chat server: its check fails and its reports stop, and
// within five seconds nobody is sent there.
func (p *talk) unassigned(t *testing.T) {
	victim := current(p.a)
	p.f.Signal(syscall.SIGSTOP, "chat", victim)
	defer p.f.Signal(syscall.SIGCONT, "chat", victim)
	at := time.Now()
	testenv.Until(t, "it is not eligible", func() bool {
		for _, addr := range p.f.StatusAddrs() {
			for _, s := range cluster.Fleet(t, addr).GetServers() {
				if s.GetEligible() && s.GetEndpoint().GetInstance() == victim {
					return false
				}
			}
		}
		return true
	})
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("it was eligible for %v", took)
	}
	for range 10 {
		a, err := p.f.Gate().Assign(t.Context(), p.ann.Session.Token, nil)
		if err != nil || a.Server.Instance == victim {
			t.Errorf("assigned to %q, %v", a.Server.Instance, err)
		}
	}
}

// upgrade rolls new versions of chat over four servers while a crowd and ann
// and bob talk.
func (p *talk) upgrade(t *testing.T) {
	p.nomad(t, "job", "run", "-var", "count=4", "nomad/chat.nomad.hcl") // beside the two: nobody moves
	testenv.Until(t, "four chat servers", func() bool { return len(p.f.Passing("chat")) == 4 })
	p.assignable(t)
	before := []int{len(p.a.Instances()), len(p.b.Instances())}
	old := p.f.Passing("chat")
	p.say(t, 20)
	upgrades(t, p.f, plan{times: 1, people: 20, rate: 50, proof: "1000"})
	for i, who := range []*cluster.Talker{p.a, p.b} {
		testenv.Until(t, who.Name+" has moved", func() bool {
			return !slices.Contains(old, current(who)) && who.Client.Link().State == client.Online
		})
		if moves := len(who.Instances()) - before[i]; moves > 1 {
			t.Errorf("%s moved %d times: %v", who.Name, moves, who.Instances()[before[i]-1:])
		}
	}
	p.say(t, 20)
	cluster.Check(t, p.sent, p.a, p.b)
}

func (p *talk) nomad(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := p.f.NomadCLI(ctx, args...); err != nil {
		t.Fatalf("nomad %v: %v\n%s", args, err, out)
	}
}
