package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/latency"
	"github.com/msrchat/msrchat/bench/load"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
	"github.com/msrchat/msrchat/bench/users"
)

func loadCommand() *cli.Command {
	return &cli.Command{
		Name: "load", Usage: "let pairs of users talk; measure rate, latency and CPU, and that nothing is lost",
		Description: "Of each two clients the first sends and the second receives. Without --rate it is a\n" +
			"closed loop: each pair has --window messages outstanding; one is done when it was\n" +
			"acknowledged and received. With --rate messages become due at a fixed rate, and times\n" +
			"count from then on, so that a stall is charged for everything that waited.\n\n" +
			"--floor measures, in turn with the system, servers that do less on the same database:\n" +
			"relay stores nothing, db0 inserts bare rows with group commit, schema does so with the\n" +
			"real table. Ratios to them are of the same round; only ratios compare between machines.",
		Flags: append(append([]cli.Flag{
			&cli.IntFlag{Name: "clients", Value: 200, Usage: "`NUMBER` of clients, even"},
			&cli.IntFlag{
				Name: "window", Value: 1, Usage: "`NUMBER` of messages that each pair has outstanding (closed loop)",
			},
			&cli.Float64Flag{
				Name: "rate", Usage: "`NUMBER` of messages that become due each second in all (open loop)",
			},
			&cli.StringFlag{Name: "size", Value: "128", Usage: "length of a text in `BYTES`, or MIN-MAX"},
			&cli.DurationFlag{Name: "duration", Value: 10 * time.Second, Usage: "measure for this `DURATION`"},
			&cli.DurationFlag{
				Name: "warmup", Value: 2 * time.Second, Usage: "measure nothing for this `DURATION` before",
			},
			&cli.DurationFlag{
				Name: "settle", Value: time.Minute,
				Usage: "wait at most this `DURATION` for what is under way at the end",
			},
			&cli.BoolFlag{Name: "floor", Usage: "measure the floors too"},
			&cli.IntFlag{
				Name: "rounds", Usage: "measure this `NUMBER` of times and show medians (default: 1, with --floor 3)",
			},
		}, outputFlags()...), fleetFlags()...),
		Action: runLoad,
	}
}

func loadConfig(c *cli.Context) (cfg load.Config, err error) {
	cfg = load.Config{
		Clients: c.Int("clients"), Window: c.Int("window"), Rate: c.Float64("rate"),
		Warmup: c.Duration("warmup"), Duration: c.Duration("duration"), Settle: c.Duration("settle"),
	}
	if cfg.Rate > 0 && !c.IsSet("window") {
		cfg.Window = 0
	}
	if cfg.MinSize, cfg.MaxSize, err = parseSize(c.String("size")); err != nil {
		return cfg, err
	}
	return cfg, cfg.Validate()
}

func parseSize(s string) (least, most int, err error) {
	low, high, ranged := strings.Cut(s, "-")
	if !ranged {
		high = low
	}
	least, err = strconv.Atoi(low)
	if err == nil {
		most, err = strconv.Atoi(high)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the size %q is neither a number of bytes nor MIN-MAX", s)
	}
	return least, most, nil
}

func describeLoad(cfg load.Config, rounds int) string {
	how := fmt.Sprintf("%d outstanding in each", cfg.Window)
	if cfg.Rate > 0 {
		how = fmt.Sprintf("%v messages/s", cfg.Rate)
	}
	size := strconv.Itoa(cfg.MinSize)
	if cfg.MaxSize != cfg.MinSize {
		size += "-" + strconv.Itoa(cfg.MaxSize)
	}
	return fmt.Sprintf("%d clients in pairs, %s, texts of %s bytes, median of %d × %s after %s",
		cfg.Clients, how, size, rounds, cfg.Duration, cfg.Warmup)
}

func runLoad(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return process.Usage(err)
	}
	rounds := c.Int("rounds")
	if rounds == 0 {
		rounds = 1
		if c.Bool("floor") {
			rounds = 3
		}
	}
	if rounds < 1 {
		return process.Usage(fmt.Errorf("%d rounds cannot be measured", rounds))
	}
	b, err := open(c, cfg, describeLoad(cfg, rounds))
	if err != nil {
		return err
	}
	defer b.close()
	u, err := b.users(cfg.Clients)
	if err != nil {
		return err
	}
	defer b.remove(u)
	m := &loadMeter{bench: b, cfg: cfg, rounds: rounds}
	err = m.all(c.Context, u, c.Bool("floor"))
	if len(b.report.Runs) == 0 {
		return err
	}
	return errors.Join(b.print(), err)
}

// loadMeter measures the targets round by round.
type loadMeter struct {
	*bench
	cfg    load.Config
	rounds int
	set    *proc.Set
	broken error
}

// all returns the first failure, or what was broken.
func (m *loadMeter) all(ctx context.Context, u *users.Users, floors bool) error {
	for round := 1; round <= m.rounds; round++ {
		if floors {
			for _, kind := range floor.Kinds() {
				if err := m.floor(ctx, kind, round); err != nil {
					return err
				}
			}
		}
		watch := func(conns []*wire.Conn) *proc.Set { return m.watch(addresses(conns)) }
		if err := m.one(ctx, report.System, round, u, watch); err != nil {
			return err
		}
	}
	return m.broken
}

func (m *loadMeter) floor(ctx context.Context, kind floor.Kind, round int) error {
	child, err := floor.Start(ctx, kind, m.dbCfg)
	if err != nil {
		return err
	}
	watch := func([]*wire.Conn) *proc.Set { return m.watchFloor(kind, child) }
	err = m.one(ctx, string(kind), round, users.Floor{Address: child.Addr, Dialer: m.dialer}, watch)
	return errors.Join(err, child.Stop())
}

// one measures one target once. watch lists its processes.
func (m *loadMeter) one(
	ctx context.Context, target string, round int, side load.Side, watch func([]*wire.Conn) *proc.Set,
) error {
	var before, after proc.Snapshot
	result, err := load.Run(ctx, m.cfg, side, load.Hooks{
		Connected: func(conns []*wire.Conn) { m.set = watch(conns) },
		Begin:     func() { before = m.set.Snapshot() },
		End:       func() { after = m.set.Snapshot() },
		Progress: func(p load.Progress) {
			m.show.update("round %d/%d, %s: %s %.0f s, %d connected, %.0f msg/s, %d waiting, %d errors",
				round, m.rounds, target, p.Stage, p.Elapsed.Seconds(), p.Connected, p.Rate, p.Waiting, p.Errors)
		},
	})
	if err != nil {
		if ctx.Err() != nil && len(m.report.Runs) > 0 {
			m.report.Interrupted = true
		}
		return fmt.Errorf("%s, round %d: %w", target, round, err)
	}
	m.report.Interrupted = result.Interrupted
	m.missing(m.set)
	m.report.Runs = append(m.report.Runs, report.Run{
		Target: target, Round: round, Figures: loadFigures(result, m.set, before, after), Errors: result.Errors,
	})
	if err := result.Broken(); err != nil {
		m.broken = errors.Join(m.broken, fmt.Errorf("%s, round %d: %w", target, round, err))
	}
	if result.Interrupted {
		return ctx.Err()
	}
	return nil
}

func loadFigures(r *load.Result, set *proc.Set, before, after proc.Snapshot) []report.Figure {
	out := []report.Figure{report.Measure("delivered_per_s", "delivered msg/s", float64(r.Measured)/r.Seconds)}
	out = append(out, latencyFigures("ack", "send->ack", r.Ack)...)
	out = append(out, latencyFigures("delivery", "send->delivered", r.Delivery)...)
	out = append(out, cpuFigures(r.Measured, set, before, after)...)
	return append(out,
		report.Count("sent", "sent", r.Sent),
		report.Count("acked", "acknowledged", r.Acked),
		report.Count("delivered", "delivered", r.Delivered),
		report.Count("pulled", "- by a pull", r.Pulled),
		report.Count("unanswered", "unanswered", r.Unanswered),
		report.Count("lost", "lost", r.Lost),
		report.Count("doubled", "doubled", r.Doubled),
		report.Count("reordered", "out of order", r.Reordered),
		report.Count("misnumbered", "misnumbered", r.Misnumbered),
	)
}

func latencyFigures(key, label string, s latency.Summary) []report.Figure {
	return []report.Figure{
		report.Measure(key+"_p50_ms", label+" p50 ms", s.P50),
		report.Measure(key+"_p99_ms", label+" p99 ms", s.P99),
		report.Measure(key+"_p999_ms", label+" p99.9 ms", s.P999),
		report.Measure(key+"_max_ms", label+" max ms", s.Max),
	}
}

// cpuFigures are CPU seconds for a million messages: of the servers, the
// database, both, and of each group of servers where there are several.
func cpuFigures(messages int64, set *proc.Set, before, after proc.Snapshot) []report.Figure {
	perMillion := func(u proc.Used) float64 { return u.CPU.Seconds() / float64(messages) * 1e6 }
	var servers, database, total report.Figure
	servers = report.Measure("cpu_servers_s_per_million", "CPU s per million: servers", 0)
	database = report.Missing("cpu_database_s_per_million", "CPU s per million: database")
	total = report.Measure("cpu_s_per_million", "CPU s per million: all", 0)
	var each, memory []report.Figure
	complete := messages > 0 && len(set.Missing) == 0
	for _, group := range set.Groups() {
		used, ok := after.Since(before, group)
		if !ok || messages == 0 {
			complete = false
			continue
		}
		memory = append(memory, report.Count("rss_"+group+"_mb", "memory MB: "+group, used.RSS>>20))
		total.Value += perMillion(used)
		if group == groupDatabase {
			database = report.Measure(database.Key, database.Label, perMillion(used))
			continue
		}
		servers.Value += perMillion(used)
		each = append(each, report.Measure("cpu_"+group+"_s_per_million", "- "+group, perMillion(used)))
	}
	servers.Absent = len(each) == 0
	total.Absent = !complete
	out := append([]report.Figure{total, servers}, each...)
	return append(append(out, database), memory...)
}
