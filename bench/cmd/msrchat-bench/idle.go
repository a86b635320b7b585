package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/crowd"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
	"github.com/msrchat/msrchat/bench/users"
)

func idleCommand() *cli.Command {
	return &cli.Command{
		Name: "idle", Usage: "hold many idle connections; measure what each costs",
		Description: "The memory of a connection is the growth of the chat servers' resident memory, divided\n" +
			"by the number of clients. Measure on servers that have just started: memory that an\n" +
			"earlier crowd has left behind is used again and would not be seen. One process holds as\n" +
			"many clients as it may open files (ulimit -n); several may run at once.\n\n" +
			"--floor measures the relay of the command load with as many connections.",
		Flags: append(append([]cli.Flag{
			&cli.IntFlag{Name: "clients", Value: 10_000, Usage: "`NUMBER` of clients"},
			&cli.Float64Flag{
				Name: "connect-rate", Value: 2000,
				Usage: "connect at most this `NUMBER` a second; 0 for as fast as possible",
			},
			&cli.DurationFlag{Name: "duration", Value: 30 * time.Second, Usage: "hold them for this `DURATION`"},
			&cli.BoolFlag{Name: "floor", Usage: "measure the relay too"},
			conversationsFlag(),
		}, outputFlags()...), fleetFlags()...),
		Action: runIdle,
	}
}

// crowdSettings are those of idle and storm, for the report.
type crowdSettings struct {
	Clients     int           `json:"clients"`
	ConnectRate float64       `json:"connect_rate,omitempty"`
	Duration    time.Duration `json:"duration_ns,omitempty"`
	Timeout     time.Duration `json:"timeout_ns,omitempty"`
}

func (s crowdSettings) validate() error {
	switch {
	case s.Clients < 1 || s.Clients > 1_000_000:
		return fmt.Errorf("%d clients: between 1 and 1000000 are possible", s.Clients)
	case s.ConnectRate < 0:
		return errors.New("the connect rate must not be negative")
	}
	return nil
}

func runIdle(c *cli.Context) error {
	s := crowdSettings{
		Clients: c.Int("clients"), ConnectRate: c.Float64("connect-rate"), Duration: c.Duration("duration"),
	}
	if err := s.validate(); err != nil {
		return process.Usage(err)
	}
	b, err := open(c, s, fmt.Sprintf("%d clients that are idle for %s", s.Clients, s.Duration))
	if err != nil {
		return err
	}
	defer b.close()
	if c.Bool("floor") {
		if err := idleFloor(c.Context, b, s); err != nil {
			return err
		}
	}
	u, err := b.users(s.Clients)
	if err != nil {
		return err
	}
	defer b.remove(u)
	set, err := b.findServers(c.Context, u)
	if err != nil {
		return err
	}
	if err := b.befriend(u); err != nil {
		return err
	}
	if err := measureIdle(c.Context, b, s, report.System, u.Connect, set); err != nil {
		return err
	}
	return b.print()
}

func conversationsFlag() cli.Flag {
	return &cli.IntFlag{Name: "conversations", Usage: "give each client this even `NUMBER` of conversations"}
}

// befriend gives the users conversations, if there are to be any.
func (b *bench) befriend(u *users.Users) error {
	n := b.cli.Int("conversations")
	if n == 0 {
		return nil
	}
	b.show.line("opening %d conversations", n*u.Len()/2)
	return u.Befriend(b.cli.Context, b.db, n)
}

func idleFloor(ctx context.Context, b *bench, s crowdSettings) error {
	child, err := floor.Start(ctx, floor.Relay, b.dbCfg)
	if err != nil {
		return err
	}
	side := users.Floor{Address: child.Addr, Dialer: b.dialer}
	err = measureIdle(ctx, b, s, string(floor.Relay), side.Connect, b.watchFloor(floor.Relay, child))
	return errors.Join(err, child.Stop())
}

// samplers is how many connect to find the chat servers. Assignments go to the
// least loaded, so sixteen find every server of a small fleet.
const samplers = 16

// findServers connects a few and disconnects them, so that the processes to watch
// are found before the crowd connects.
func (b *bench) findServers(ctx context.Context, u *users.Users) (*proc.Set, error) {
	var conns []*wire.Conn
	for i := range min(samplers, u.Len()) {
		c, err := u.Connect(ctx, i)
		if err != nil {
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	u.Forget()
	set := b.watch(addresses(conns))
	if len(b.cli.StringSlice("server")) == 0 {
		b.watchGate(set)
	}
	b.missing(set)
	return set, nil
}

// measureIdle connects a crowd, holds it and measures.
func measureIdle(
	ctx context.Context, b *bench, s crowdSettings, target string, connect crowd.Connect, set *proc.Set,
) error {
	crowd := crowd.New(s.Clients, connect)
	defer crowd.Close()
	before, started := set.Snapshot(), time.Now()
	watch := b.watchCrowd(crowd, target+": connecting", s.Clients)
	err := crowd.Enter(ctx, s.ConnectRate)
	watch()
	if err != nil {
		return err
	}
	connecting := time.Since(started).Seconds()
	entered, from := set.Snapshot(), time.Now()
	watch = b.watchCrowd(crowd, target+": idle", s.Clients)
	held := retry.Sleep(ctx, s.Duration)
	watch()
	seconds := time.Since(from).Seconds()
	after := set.Snapshot()
	b.report.Interrupted = !held
	state := crowd.State()
	figures := []report.Figure{
		report.Count("connected", "connected at the end", int64(state.Connected)),
		report.Measure("connects_per_s", "connected per second", float64(s.Clients)/connecting),
	}
	figures = append(figures, latencyFigures("connect", "connect->welcome", crowd.Entered())[:2]...)
	for _, group := range set.Groups() {
		used, ok := after.Since(before, group)
		if !ok {
			continue
		}
		name := group
		if group == groupFloor {
			name = groupChat // the same row
		}
		if name == groupChat {
			each := float64(used.Growth) / 1024 / float64(s.Clients)
			figures = append(figures, report.Measure("memory_kib_per_connection", "memory KiB per connection", each))
		}
		holding, _ := after.Since(entered, group)
		figures = append(figures,
			report.Measure("cpu_idle_"+name, "cores while idle: "+name, holding.CPU.Seconds()/seconds),
			report.Count("rss_"+name+"_mb", "memory MB: "+name, used.RSS>>20))
	}
	figures = append(figures, report.Count("connections_lost", "connections lost", state.Lost))
	b.report.Runs = append(b.report.Runs, report.Run{
		Target: target, Round: 1, Figures: figures, Errors: crowd.Errors(),
	})
	return nil
}

// watchCrowd shows how many are connected until the function that it returns is
// called.
func (b *bench) watchCrowd(c *crowd.Crowd, what string, size int) (stop func()) {
	started := time.Now()
	return everySecond(func() {
		s := c.State()
		b.show.update("%s %.0f s, %d of %d connected, %d synced, %d attempts",
			what, time.Since(started).Seconds(), s.Connected, size, s.Synced, s.Attempts)
	})
}
