package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/process"
)

const (
	// jobsLimit bounds the wait for a stage's tasks: the longest kill_timeout in
	// nomad/ is two minutes, its shutdown_delay seconds.
	jobsLimit = 150 * time.Second
	// taskGrace is for tasks that have no job any more or whose Nomad is dead,
	// which nothing else stops.
	taskGrace = 30 * time.Second
	// helperGrace is for Nomad's helper processes, which keep no state.
	helperGrace = 3 * time.Second
)

// Down stops the services, then the agents, and waits until all processes are
// gone. The databases' files stay unless purge. It is safe if nothing runs, and
// if agents died and left tasks behind. A fleet that another manager started is
// refused, and one that another checkout started is left alone.
func (f *Fleet) Down(ctx context.Context, manager string, purge bool) error {
	start := time.Now()
	unlock, err := f.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	holder, err := f.dir.Manager()
	if err != nil {
		return err
	}
	if holder != "" && holder != manager {
		return f.dir.Claim(manager) // an error that says how to take it down
	}
	if err := f.foreign(); err != nil {
		f.printf("%v; it is left alone.\n", err)
	} else if err := f.stopJobs(ctx); err != nil {
		return err
	}
	for _, a := range slices.Backward(f.agents("")) {
		if err := a.Stop(ctx); err != nil {
			return err
		}
	}
	if tasks := process.Tasks(f.dir.Path()); len(tasks) > 0 {
		f.printf("  ending %d tasks that are left without their Nomad\n", len(tasks))
	}
	if err := Clear(ctx, f.dir.Path()); err != nil {
		return err
	}
	if err := f.dir.Remove(purge); err != nil {
		return fmt.Errorf("remove the fleet's state: %w", err)
	}
	switch {
	case purge && holder == "":
		f.printf("No fleet was up. What an earlier one kept in %s is gone.\n", f.dir.Data())
	case purge:
		f.printf("The fleet is down and its data is gone (%s).\n", seconds(time.Since(start)))
	case holder == "":
		f.printf("No fleet was up.\n")
	default:
		f.printf("The fleet is down (%s). Its data is kept in %s; ./justw down --purge removes it.\n",
			seconds(time.Since(start)), f.dir.Data())
	}
	return nil
}

// stopJobs stops every job, if Nomad answers: the services first, so that they
// can drain and commit, the databases last.
func (f *Fleet) stopJobs(ctx context.Context) error {
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	list, _, err := f.nomad.Jobs().List(query)
	if err != nil {
		return nil // without Nomad its tasks are found by their processes
	}
	stages := map[int][]string{}
	for _, stub := range list {
		stages[stageOf(stub.ID)] = append(stages[stageOf(stub.ID)], stub.ID)
	}
	for stage := lastStage; stage > 0; stage-- {
		if len(stages[stage]) == 0 {
			continue
		}
		slices.Sort(stages[stage])
		f.printf("  stopping %s\n", strings.Join(stages[stage], ", "))
		if err := f.stopStage(ctx, stages[stage]); err != nil {
			return err
		}
	}
	// Terraform may have purged jobs whose tasks are still ending.
	ending, cancel := context.WithTimeout(ctx, taskGrace)
	defer cancel()
	if err := process.AwaitGone(ending, process.Tasks(f.dir.Path())); err != nil {
		return ctx.Err()
	}
	return nil
}

// lastStage is that of jobs that people submitted by hand, which may use
// anything.
const lastStage = 4

func stageOf(name string) int {
	for _, j := range job.All() {
		if j.Name == name {
			return j.Stage
		}
	}
	return lastStage
}

func (f *Fleet) stopStage(ctx context.Context, names []string) error {
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	var allocs []*nomad.AllocationListStub
	for _, name := range names {
		list, _, err := f.nomad.Jobs().Allocations(name, true, query)
		if err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		allocs = append(allocs, list...)
		// Not purged, because Nomad answers nothing about a purged job. Its whole
		// state is removed at the end.
		if _, _, err := f.nomad.Jobs().Deregister(name, false, (&nomad.WriteOptions{}).WithContext(ctx)); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, jobsLimit)
	defer cancel()
	err := f.awaitTerminal(ctx, allocs)
	if errors.Is(err, context.DeadlineExceeded) {
		f.printf("  %s did not end within %s and will be killed\n", strings.Join(names, ", "), jobsLimit)
		return nil
	}
	return err
}

// awaitTerminal returns when all allocations have ended.
func (f *Fleet) awaitTerminal(ctx context.Context, allocs []*nomad.AllocationListStub) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for _, stub := range allocs {
		for !f.terminal(ctx, stub.ID) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
	return nil
}

func (f *Fleet) terminal(ctx context.Context, id string) bool {
	alloc, _, err := f.nomad.Allocations().Info(id, (&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil { // garbage-collected, or Nomad is gone: the processes are checked later
		return ctx.Err() == nil
	}
	switch alloc.ClientStatus {
	case nomad.AllocClientStatusComplete, nomad.AllocClientStatusFailed, nomad.AllocClientStatusLost:
		return true
	}
	return false
}

// Clear ends what dead agents left of the fleet whose state is in folder: first
// the tasks, then Nomad's helpers, because without its helper a task is killed
// at once, then their mounts.
func Clear(ctx context.Context, folder string) error {
	if err := process.Stop(ctx, process.Tasks(folder), taskGrace); err != nil {
		return err
	}
	if err := process.Stop(ctx, process.Helpers(folder), helperGrace); err != nil {
		return err
	}
	return unmountBelow(folder)
}
