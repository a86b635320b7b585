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
	"github.com/msrchat/msrchat/bench/people"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
)

func stormCommand() *cli.Command {
	return &cli.Command{
		Name: "storm", Usage: "connect many, wait for a chat server's death, measure until all are back",
		Description: "Everybody connects (to --server where given, else where the gate assigns) and then waits\n" +
			"for somebody to kill a chat server, which --kill-pid does. Whoever loses the connection\n" +
			"comes back as the client library does: jittered waits, a new assignment from the gate\n" +
			"over a new HTTP connection, another server than before. A client is back when the new\n" +
			"server has told it the heads of its conversations. To have all clients on the server\n" +
			"that dies, name it with --server.",
		Flags: append(append([]cli.Flag{
			&cli.IntFlag{Name: "clients", Value: 10_000, Usage: "`NUMBER` of clients"},
			&cli.Float64Flag{Name: "connect-rate", Value: 2000, Usage: "connect at most this `NUMBER` a second at first; 0 for as fast as it goes"},
			&cli.IntFlag{Name: "kill-pid", Usage: "kill -9 this `PID` once all are connected"},
			&cli.DurationFlag{Name: "timeout", Value: 2 * time.Minute, Usage: "wait at most this `DURATION` for the death, and for the return"},
		}, outputFlags()...), fleetFlags()...),
		Action: runStorm,
	}
}

func runStorm(c *cli.Context) error {
	s := crowdSettings{Clients: c.Int("clients"), ConnectRate: c.Float64("connect-rate"), Timeout: c.Duration("timeout")}
	if err := s.validate(); err != nil {
		return process.Usage(err)
	}
	back, err := place.Gate(c.String("gate"), place.FreshConnections)
	if err != nil {
		return process.Usage(err)
	}
	b, err := open(c, s, fmt.Sprintf("%d clients, of whom those of a killed chat server come back", s.Clients))
	if err != nil {
		return err
	}
	defer b.close()
	p, err := b.people(s.Clients)
	if err != nil {
		return err
	}
	defer b.remove(p)
	set, err := b.findServers(c.Context, p)
	if err != nil {
		return err
	}
	b.watchGate(set)
	st := &storm{bench: b, settings: s, set: set, crowd: crowd.New(s.Clients, p.Connect)}
	defer st.crowd.Close()
	if err := st.gather(c.Context); err != nil {
		return err
	}
	if err := st.unleash(c.Context, c.Int("kill-pid"), p, back); err != nil {
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

// gather connects everybody.
func (s *storm) gather(ctx context.Context) error {
	watch := s.watchCrowd(s.crowd, "connecting", s.settings.Clients)
	defer watch()
	if err := s.crowd.Enter(ctx, s.settings.ConnectRate); err != nil {
		return err
	}
	if !s.until(ctx, func(st crowd.State) bool { return st.Synced == s.settings.Clients }) {
		return fmt.Errorf("only %d of %d clients were told their heads", s.crowd.State().Synced, s.settings.Clients)
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

// unleash kills, or waits for it, and measures until all are back.
func (s *storm) unleash(ctx context.Context, pid int, p *people.People, back place.Chooser) error {
	p.Choose(back)
	attempts := s.crowd.State().Attempts
	var killed time.Time
	if pid > 0 {
		// Whoever is killed uses nothing any more.
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
	watch := s.watchCrowd(s.crowd, "coming back", s.settings.Clients)
	// The kernel tells of all lost connections at once; a moment without news is
	// waited for, so that the last of them have been noticed.
	returned := s.until(ctx, func(st crowd.State) bool {
		return st.Synced == s.settings.Clients && time.Since(st.LastBack) > quiet
	})
	watch()
	state := s.crowd.State()
	s.report.Interrupted = ctx.Err() != nil
	seconds := state.LastBack.Sub(killed).Seconds()
	all := report.Measure("all_back_s", "seconds until all were back", seconds)
	if !returned {
		all.Absent = true
		s.note("%d of %d clients were not back after %s", s.settings.Clients-state.Synced, s.settings.Clients, s.settings.Timeout)
	}
	figures := append([]report.Figure{
		report.Count("lost", "connections lost", state.Lost), all,
	}, latencyFigures("back", "lost->synced", s.crowd.Back())...)
	figures = append(figures, report.Count("attempts", "attempts to connect", state.Attempts-attempts))
	figures = append(figures, s.samples.figures()...)
	s.report.Runs = append(s.report.Runs, report.Run{Target: report.System, Round: 1, Figures: figures, Errors: s.crowd.Errors()})
	return nil
}

// quiet is how long nobody may have come back.
const quiet = 500 * time.Millisecond
