package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/flood"
	"github.com/msrchat/msrchat/bench/load"
	"github.com/msrchat/msrchat/bench/priority"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
	"github.com/msrchat/msrchat/bench/users"
)

// What honest people do meanwhile, and what they may notice.
const (
	honestClients = 100
	honestRate    = 100 // messages a second
	honestPeople  = 10  // who log in, in turn, twice a second
	// slowerAtMost is how many times slower than before their messages may be.
	slowerAtMost = 10
	// logInsAtLeast is the part of log-ins that must succeed at the first try.
	logInsAtLeast = 0.95
	// normalAfter is when everything must be as before.
	normalAfter = 10 * time.Second
)

func floodCommand() *cli.Command {
	return &cli.Command{
		Name: "flood", Usage: "attack the fleet in many ways at once, and measure what honest people notice",
		Description: "Clients that ask for pages and never read, clients that send byte by byte, connections\n" +
			"that say nothing, and log-ins as nobody from many addresses, all at once, while pairs of\n" +
			"users talk and people log in. It measures before, during and after. The addresses are\n" +
			"127.0.0.0/8, so it works on this machine only. The attackers' program gets what the fleet\n" +
			"leaves of the cores, and honest people's goes first if it may (root): both would have\n" +
			"machines of their own.\n\n" +
			"It fails if a chat server used more than --memory, if messages took more than ten times\n" +
			"as long as before (p99), if fewer than 95 of 100 people logged in at the first try, or if\n" +
			"ten seconds later messages take more than twice as long as before or memory is still held.",
		Flags: append(append([]cli.Flag{
			&cli.IntFlag{Name: "readers", Value: 2000, Usage: "`NUMBER` of clients that ask and never read"},
			&cli.IntFlag{Name: "accounts", Value: 20, Usage: "`NUMBER` of accounts that they have"},
			&cli.IntFlag{Name: "slow", Value: 400, Usage: "`NUMBER` of clients that send byte by byte"},
			&cli.IntFlag{Name: "silent", Value: 3000, Usage: "`NUMBER` of connections that say nothing"},
			&cli.IntFlag{Name: "sources", Value: 150, Usage: "`NUMBER` of addresses that log in as nobody"},
			&cli.DurationFlag{
				Name: "again", Value: 100 * time.Millisecond, Usage: "those sent away come back after `DURATION`",
			},
			&cli.DurationFlag{Name: "duration", Value: 30 * time.Second, Usage: "attack for this `DURATION`"},
			&cli.IntFlag{Name: "memory", Value: 606, Usage: "`MIB` that a chat server may use: those of its job"},
		}, outputFlags()...), fleetFlags()...),
		Action: runFlood,
	}
}

func runFlood(c *cli.Context) error {
	plan := flood.Plan{
		Readers: c.Int("readers"), Accounts: c.Int("accounts"), Slow: c.Int("slow"), Silent: c.Int("silent"),
		Sources: c.Int("sources"), Again: c.Duration("again"),
	}
	if err := plan.Validate(); err != nil {
		return process.Usage(err)
	}
	b, err := open(c, plan, fmt.Sprintf(
		"%d that never read from %d accounts, %d slow, %d silent, log-ins from %d addresses",
		plan.Readers, plan.Accounts, plan.Slow, plan.Silent, plan.Sources))
	if err != nil {
		return err
	}
	defer b.close()
	f := &floodMeter{bench: b, plan: plan, duration: c.Duration("duration")}
	for _, group := range []struct {
		users **users.Users
		n     int
	}{{&f.hostile, plan.Accounts}, {&f.honest, honestClients}, {&f.people, honestPeople}} {
		if *group.users, err = b.users(group.n); err != nil {
			return err
		}
		defer b.remove(*group.users)
	}
	if err := f.prepare(c.Context); err != nil {
		return err
	}
	if err := f.measure(c.Context); err != nil {
		return err
	}
	return errors.Join(b.print(), f.verdict(int64(c.Int("memory"))<<20))
}

// floodMeter is one measurement; its fields belong to the goroutine of runFlood.
type floodMeter struct {
	*bench
	plan     flood.Plan
	duration time.Duration

	hostile, honest, people *users.Users
	passwords               []flood.Person
	order                   flood.Order
	set                     *proc.Set

	before, during, after phase
}

// phase is what was seen in one part of the measurement.
type phase struct {
	load          *load.Result
	tried, in     int
	rss, rssAtEnd map[string]int64 // by process, the most and the last
	logInsSlowest time.Duration
}

// prepare gives the hostile accounts long histories, and people passwords.
func (f *floodMeter) prepare(ctx context.Context) error {
	f.show.line("preparing")
	f.order = flood.Order{
		Plan: f.plan, Gate: strings.TrimSuffix(f.cli.String("gate"), "/"), CAFile: f.cli.String("ca-file"),
	}
	var conns []*wire.Conn
	for i := range f.plan.Accounts {
		c, err := f.hostile.Connect(ctx, i)
		if err != nil {
			return err
		}
		defer c.Close()
		conns = append(conns, c)
		id, err := f.history(ctx, c, f.hostile.Name(i^1), i%2 == 0)
		if err != nil {
			return fmt.Errorf("make a long history: %w", err)
		}
		f.order.Conversations = append(f.order.Conversations, id)
		f.order.Tokens = append(f.order.Tokens, f.hostile.Token(i))
	}
	f.order.Servers = addresses(conns)
	f.set = f.watch(f.order.Servers)
	f.watchGate(f.set)
	for i := range honestPeople {
		who := flood.Person{Name: f.people.Name(i), Password: "correct horse battery"}
		_, err := f.db.ExecContext(ctx, "UPDATE users SET password_hash = ? WHERE name = ?",
			flood.Hash(who.Password), who.Name)
		if err != nil {
			return fmt.Errorf("set a password: %w", err)
		}
		f.passwords = append(f.passwords, who)
	}
	return nil
}

// history returns the conversation with a peer, and fills a page of it.
func (f *floodMeter) history(ctx context.Context, c *wire.Conn, peer string, fill bool) (uint64, error) {
	answer, err := c.Call(ctx, &chatv1.ClientFrame{RequestId: 2, Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: peer},
	}})
	id := answer.GetConversation().GetId()
	for n := byte(1); fill && err == nil && n <= 64; n++ { // a page of the longest
		_, err = c.Call(ctx, &chatv1.ClientFrame{RequestId: 2, Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
			ConversationId: id, ClientMsgId: append(make([]byte, 15), n), Kind: 1,
			Body: []byte(strings.Repeat("x", 4096)),
		}}})
	}
	return id, err
}

// measure runs the three phases.
func (f *floodMeter) measure(ctx context.Context) (err error) {
	if err := priority.Highest(); err != nil {
		f.note("honest people's program has no priority here (%v): they wait for a core too", err)
	}
	if err = f.phase(ctx, "before", &f.before); err != nil {
		return err
	}
	attack, err := flood.Start(ctx, f.order)
	if err != nil {
		return err
	}
	retry.Sleep(ctx, f.duration/4) // until all have come
	err = f.phase(ctx, "during", &f.during)
	counts, ended := attack.Stop()
	f.note("the attack: %d connections, %d log-ins of which %d were refused unread",
		counts.Connections, counts.LogIns, counts.Refused)
	err = errors.Join(err, ended)
	if err != nil {
		return err
	}
	f.show.line("the attack is over")
	retry.Sleep(ctx, normalAfter)
	f.after.rssAtEnd = f.resident()
	return f.phase(ctx, "after", &f.after)
}

// phase lets people talk and log in, and watches memory.
func (f *floodMeter) phase(ctx context.Context, name string, p *phase) error {
	cfg := load.Config{
		Clients: honestClients, Rate: honestRate, MinSize: 128, MaxSize: 128,
		Warmup: time.Second, Duration: f.duration / 2, Settle: time.Minute,
	}
	f.honest.Forget()
	working, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { f.logIns(working, p) })
	all.Go(func() { f.memory(working, p) })
	result, err := load.Run(ctx, cfg, f.honest, load.Hooks{Progress: func(at load.Progress) {
		f.show.update("%s: %s %.0f s, %d connected, %.0f msg/s",
			name, at.Stage, at.Elapsed.Seconds(), at.Connected, at.Rate)
	}})
	stop()
	all.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.load = result
	figures := append(latencyFigures("ack", "send->ack", result.Ack),
		latencyFigures("delivery", "send->delivered", result.Delivery)...)
	figures = append(figures,
		report.Count("lost", "lost", result.Lost),
		report.Count("log_ins", "people who logged in", int64(p.tried)),
		report.Count("log_ins_first", "- at the first try", int64(p.in)),
		report.Measure("log_in_max_s", "- the slowest, s", p.logInsSlowest.Seconds()))
	for _, process := range f.set.Processes {
		held := p.rss[process.Name] >> 20
		figures = append(figures, report.Count("rss_"+process.Name, "memory MiB, at most: "+process.Name, held))
	}
	f.report.Runs = append(f.report.Runs, report.Run{Target: name, Round: 1, Figures: figures, Errors: result.Errors})
	return result.Broken()
}

// logIns logs people in, twice a second, until ctx ends.
func (f *floodMeter) logIns(ctx context.Context, p *phase) {
	for ; retry.Sleep(ctx, 500*time.Millisecond); p.tried++ {
		started := time.Now()
		err := flood.LogIn(context.WithoutCancel(ctx), f.order.Gate, f.passwords[p.tried%honestPeople], p.tried)
		p.logInsSlowest = max(p.logInsSlowest, time.Since(started))
		if err == nil {
			p.in++
		}
	}
}

// memory keeps the most that each process held, until ctx ends.
func (f *floodMeter) memory(ctx context.Context, p *phase) {
	p.rss = f.resident()
	for retry.Sleep(ctx, 200*time.Millisecond) {
		for name, held := range f.resident() {
			p.rss[name] = max(p.rss[name], held)
		}
	}
}

func (f *floodMeter) resident() map[string]int64 {
	held := make(map[string]int64)
	for process, used := range f.set.Snapshot() {
		held[process.Name] = used.RSS
	}
	return held
}

// verdict says what honest people should not have noticed.
func (f *floodMeter) verdict(memory int64) error {
	var wrong []string
	for name, held := range f.during.rss {
		if proc.Group(name) == groupChat && held > memory {
			wrong = append(wrong, fmt.Sprintf("%s used %d MiB of %d", name, held>>20, memory>>20))
		}
	}
	if now, was := f.during.load.Delivery.P99, f.before.load.Delivery.P99; now > slowerAtMost*was {
		wrong = append(wrong, fmt.Sprintf("messages took %.1f ms, before %.1f (p99)", now, was))
	}
	if part := float64(f.during.in) / float64(max(f.during.tried, 1)); part < logInsAtLeast {
		wrong = append(wrong, fmt.Sprintf("%d of %d people logged in at the first try", f.during.in, f.during.tried))
	}
	// A millisecond more is the machine's.
	if now, was := f.after.load.Delivery.P50, f.before.load.Delivery.P50; now > 2*was+1 {
		wrong = append(wrong, fmt.Sprintf("afterwards messages took %.1f ms, before %.1f (p50)", now, was))
	}
	for name, held := range f.after.rssAtEnd {
		if was := f.before.rss[name]; proc.Group(name) == groupChat && held > 2*was+64<<20 {
			wrong = append(wrong, fmt.Sprintf("%s still holds %d MiB afterwards, before %d", name, held>>20, was>>20))
		}
	}
	slices.Sort(wrong)
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}
