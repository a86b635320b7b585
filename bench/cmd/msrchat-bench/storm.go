package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/process"

	"github.com/msrchat/msrchat/bench/crowd"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
)

func stormCommand() *cli.Command {
	return &cli.Command{
		Name: "storm", Usage: "connect many, wait for a chat server's death, measure until all have reconnected",
		Description: "Everybody connects (to --server where given, else where the gate assigns) and then waits\n" +
			"for somebody to kill a chat server, which --kill-pid does. A client that loses its\n" +
			"connection reconnects as the client library does: jittered waits, a new assignment from\n" +
			"the gate over a new HTTP connection, another server than before. It is back when the\n" +
			"new server has sent it the heads of its conversations. To have all clients on the\n" +
			"server that dies, name it with --server.",
		Flags: append(append([]cli.Flag{
			&cli.IntFlag{Name: "clients", Value: 10_000, Usage: "`NUMBER` of clients"},
			&cli.Float64Flag{
				Name: "connect-rate", Value: 2000,
				Usage: "connect at most this `NUMBER` a second at first; 0 for as fast as possible",
			},
			&cli.IntFlag{Name: "kill-pid", Usage: "kill -9 this `PID` once all are connected"},
			&cli.DurationFlag{
				Name: "timeout", Value: 2 * time.Minute,
				Usage: "wait at most this `DURATION` for the death, and for the return",
			},
			conversationsFlag(),
		}, outputFlags()...), fleetFlags()...),
		Action: runStorm,
	}
}

func runStorm(c *cli.Context) error {
	s := crowdSettings{
		Clients: c.Int("clients"), ConnectRate: c.Float64("connect-rate"), Timeout: c.Duration("timeout"),
	}
	if err := s.validate(); err != nil {
		return process.Usage(err)
	}
	back, err := place.Gate(c.String("gate"), place.FreshConnections)
	if err != nil {
		return process.Usage(err)
	}
	b, err := open(c, s, fmt.Sprintf("%d clients, of whom those of a killed chat server reconnect", s.Clients))
	if err != nil {
		return err
	}
	defer b.close()
	u, err := b.users(s.Clients)
	if err != nil {
		return err
	}
	defer b.remove(u)
	if err := b.befriend(u); err != nil {
		return err
	}
	set, err := b.findServers(c.Context, u)
	if err != nil {
		return err
	}
	b.watchGate(set)
	st := &storm{bench: b, settings: s, set: set, crowd: crowd.New(s.Clients, u.Connect)}
	defer st.crowd.Close()
	if err := st.connect(c.Context); err != nil {
		return err
	}
	u.Choose(back)
	if err := st.kill(c.Context, c.Int("kill-pid")); err != nil {
		return err
	}
	return b.print()
}

// storm is one measurement; its fields belong to the goroutine of runStorm.
type storm struct {
	*bench
	settings crowdSettings
	set      *proc.Set
	crowd    *crowd.Crowd
	samples  samples
}

// connect connects everybody.
func (s *storm) connect(ctx context.Context) error {
	watch := s.watchCrowd(s.crowd, "connecting", s.settings.Clients)
	defer watch()
	if err := s.crowd.Enter(ctx, s.settings.ConnectRate); err != nil {
		return err
	}
	if !s.until(ctx, func(st crowd.State) bool { return st.Synced == s.settings.Clients }) {
		return fmt.Errorf("only %d of %d clients got their heads", s.crowd.State().Synced, s.settings.Clients)
	}
	return nil
}

// until waits for a state of the crowd; false means that it took too long.
func (s *storm) until(ctx context.Context, reached func(crowd.State) bool) bool {
	limit := time.NewTimer(s.settings.Timeout)
	defer limit.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !reached(s.crowd.State()) {
		select {
		case <-ctx.Done():
			return false
		case <-limit.C:
			return false
		case <-ticker.C:
			s.samples.take(ctx, s.bench, s.set)
		}
	}
	return true
}

// kill kills a server, or waits until somebody has done so, and measures until
// everybody has reconnected.
func (s *storm) kill(ctx context.Context, pid int) error {
	attempts := s.crowd.State().Attempts
	var killed time.Time
	if pid > 0 {
		// From now on it uses nothing.
		s.set.Processes = slices.DeleteFunc(s.set.Processes, func(p proc.Process) bool { return p.PID == pid })
		s.samples.take(ctx, s.bench, s.set)
		killed = time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	} else {
		s.show.clear()
		fmt.Fprintf(os.Stderr, "all %d clients are connected: kill a chat server now\n", s.settings.Clients)
	}
	if !s.until(ctx, func(st crowd.State) bool { return st.Lost > 0 }) {
		return fmt.Errorf("no connection was lost within %s", s.settings.Timeout)
	}
	if killed.IsZero() {
		killed = s.crowd.State().FirstLoss
	}
	s.samples.begin()
	watch := s.watchCrowd(s.crowd, "reconnecting", s.settings.Clients)
	// The kernel reports all lost connections at once. Some time without a return
	// is waited for, so that the last of them have been noticed.
	returned := s.until(ctx, func(st crowd.State) bool {
		return st.Synced == s.settings.Clients && time.Since(st.LastBack) > settled
	})
	watch()
	s.report.Interrupted = ctx.Err() != nil
	s.result(killed, attempts, returned)
	return nil
}

// settled is how long nobody may have reconnected.
const settled = 500 * time.Millisecond

// result adds what was measured to the report.
func (s *storm) result(killed time.Time, attempts int64, returned bool) {
	state := s.crowd.State()
	all := report.Measure("all_back_s", "seconds until all were back", state.LastBack.Sub(killed).Seconds())
	if !returned {
		all.Absent = true
		s.note("%d of %d clients were not back after %s",
			s.settings.Clients-state.Synced, s.settings.Clients, s.settings.Timeout)
	}
	figures := append([]report.Figure{
		report.Count("lost", "connections lost", state.Lost), all,
	}, latencyFigures("back", "lost->synced", s.crowd.Back())...)
	figures = append(figures, report.Count("attempts", "attempts to connect", state.Attempts-attempts))
	figures = append(figures, s.samples.figures()...)
	s.report.Runs = append(s.report.Runs, report.Run{
		Target: report.System, Round: 1, Figures: figures, Errors: s.crowd.Errors(),
	})
}
