package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/process"

	"github.com/msrchat/msrchat/bench/assign"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/report"
	"github.com/msrchat/msrchat/bench/users"
)

func assignCommand() *cli.Command {
	return &cli.Command{
		Name: "assign", Usage: "ask for many assignments; measure how evenly they are spread over the chat servers",
		Description: "It asks all replicas of the status service in turn (--status, or found in Consul), or the\n" +
			"gate (--by-gate, which needs the database for accounts). Nobody connects. Assignments that\n" +
			"nobody used expire after some seconds, so that a second call begins with an even fleet.",
		Flags: slices.Concat([]cli.Flag{
			&cli.IntFlag{Name: "count", Value: 10_000, Usage: "`NUMBER` of assignments"},
			&cli.IntFlag{Name: "concurrent", Value: 16, Usage: "ask for this `NUMBER` at once"},
			&cli.StringSliceFlag{Name: "status", Usage: "ask the status server at `HOST:PORT`; several in turn"},
			&cli.StringFlag{
				Name: "consul-addr", Value: "127.0.0.1:7701", EnvVars: []string{"MSRCHAT_CONSUL_ADDR"},
				Usage: "find the status servers in the catalog of the Consul agent at `HOST:PORT`",
			},
			&cli.BoolFlag{Name: "by-gate", Usage: "ask the gate instead"},
			gateFlag("`URL` of the gate", ""),
			&cli.BoolFlag{Name: "keep", Usage: "with --by-gate: leave the accounts in the database"},
		}, outputFlags(), database.Flags()),
		Action: runAssign,
	}
}

func runAssign(c *cli.Context) error {
	cfg := assign.Config{Count: c.Int("count"), Concurrent: c.Int("concurrent")}
	if cfg.Count < 1 || cfg.Concurrent < 1 || cfg.Concurrent > 1000 {
		return process.Usage(errors.New("the count must be positive, and at most 1000 can be asked for at once"))
	}
	if c.Bool("by-gate") {
		return assignByGate(c, cfg)
	}
	replicas, err := openReplicas(c)
	if err != nil {
		return err
	}
	var assigners []assign.Assigner
	for _, r := range replicas {
		defer r.Close()
		assigners = append(assigners, r.Assign)
	}
	servers, err := replicas[0].Servers(c.Context)
	if err != nil {
		return fmt.Errorf("ask a status server for the fleet: %w", err)
	}
	r := &report.Report{
		Command: program + " assign", Started: time.Now(),
		Machine: report.ThisMachine(process.Version()), Settings: cfg,
		What: fmt.Sprintf("%d assignments, %d at once, by %d status servers", cfg.Count, cfg.Concurrent, len(replicas)),
	}
	return finishAssign(c, cfg, assigners, servers, r)
}

// openReplicas opens the status servers that were given, or those in Consul.
func openReplicas(c *cli.Context) (out []*assign.Replica, err error) {
	addresses := c.StringSlice("status")
	if len(addresses) == 0 {
		if addresses, err = findStatus(c.Context, c.String("consul-addr")); err != nil {
			return nil, err
		}
	}
	for _, a := range addresses {
		r, err := assign.NewReplica(a)
		if err != nil {
			return nil, process.Usage(err)
		}
		out = append(out, r)
	}
	return out, nil
}

func findStatus(ctx context.Context, consulAddr string) (addresses []string, err error) {
	catalog, err := consul.New(consulAddr)
	if err != nil {
		return nil, process.Usage(err)
	}
	entries, err := discovery.List(ctx, catalog, "status")
	if err != nil {
		return nil, fmt.Errorf("find the status servers in %v (or name them with --status): %w", catalog, err)
	}
	for _, e := range entries {
		addresses = append(addresses, e.Address)
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("no status server passes its checks in %v", catalog)
	}
	return addresses, nil
}

// askers is how many accounts ask the gate in turn.
const askers = 100

func assignByGate(c *cli.Context, cfg assign.Config) error {
	choose, err := place.Gate(c.String("gate"))
	if err != nil {
		return process.Usage(err)
	}
	b, err := open(c, cfg, fmt.Sprintf("%d assignments, %d at once, by the gate", cfg.Count, cfg.Concurrent))
	if err != nil {
		return err
	}
	defer b.close()
	u, err := b.users(askers)
	if err != nil {
		return err
	}
	defer b.remove(u)
	return finishAssign(c, cfg, []assign.Assigner{byGate(choose, u)}, nil, &b.report)
}

func byGate(choose place.Chooser, u *users.Users) assign.Assigner {
	return func(ctx context.Context, i int) (string, error) {
		at, err := choose(ctx, i, u.Token(i%askers), nil)
		return at.Server.GetInstance(), err
	}
}

// finishAssign measures and prints. servers are the chat servers that could have
// been assigned, as far as a status server said.
func finishAssign(
	c *cli.Context, cfg assign.Config, assigners []assign.Assigner, servers []string, r *report.Report,
) error {
	show := newProgress(c.Bool("quiet"))
	var done atomic.Int64
	stop := everySecond(func() { show.update("%d of %d assigned", done.Load(), cfg.Count) })
	result := assign.Run(c.Context, cfg, assigners, func(n int) { done.Store(int64(n)) })
	stop()
	show.clear()
	figures := []report.Figure{
		report.Measure("assigned_per_s", "assigned per second", float64(result.Latency.Count)/result.Seconds),
	}
	figures = append(figures, latencyFigures("assign", "assign", result.Latency)...)
	figures = append(figures, report.Count("servers", "chat servers", int64(max(len(servers), len(result.ByInstance)))))
	spread := report.Measure("spread", "busiest / mean", result.Spread(servers))
	spread.Absent = spread.Value == 0
	r.Runs = []report.Run{{Target: report.System, Round: 1, Figures: append(figures, spread), Errors: result.Errors}}
	r.Interrupted = c.Context.Err() != nil
	return printReport(c, r)
}

// everySecond calls fn until the function that it returns is called.
func everySecond(fn func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				fn()
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
