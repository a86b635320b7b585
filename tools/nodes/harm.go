package nodes

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/internal/lan"
	"github.com/msrchat/msrchat/tools/process"
)

// Crash is a power failure: the node sends nothing more, and everything on it
// is dead. Boot starts it again.
func (f *Fleet) Crash(ctx context.Context, node string) error {
	if err := f.lan.Unplug(ctx, node); err != nil { // first, so that no connection is closed
		return err
	}
	return kill(ctx, f.lan.Namespace(node))
}

// Boot starts a crashed node and returns once it accepts jobs. Its disk is as
// it was, without its mounts.
func (f *Fleet) Boot(ctx context.Context, node string) error {
	dir, err := f.folder(node)
	if err != nil {
		return err
	}
	if err := fleet.Clear(ctx, dir.Path()); err != nil {
		return err
	}
	if err := f.lan.Plug(ctx, node); err != nil {
		return err
	}
	return f.boot(ctx, node)
}

// Unplug disconnects a node from the network: everything on it goes on alone.
func (f *Fleet) Unplug(ctx context.Context, node string) error { return f.lan.Unplug(ctx, node) }

// Plug undoes Unplug.
func (f *Fleet) Plug(ctx context.Context, node string) error { return f.lan.Plug(ctx, node) }

// Cut drops everything that a node and the others send each other, without an
// error. Users may be one of the others.
func (f *Fleet) Cut(ctx context.Context, node string, others ...string) error {
	var errs []error
	for _, other := range others {
		errs = append(errs, f.lan.Cut(ctx, node, other))
	}
	return errors.Join(errs...)
}

// Mend undoes Cut.
func (f *Fleet) Mend(ctx context.Context, node string, others ...string) error {
	var errs []error
	for _, other := range others {
		errs = append(errs, f.lan.Mend(ctx, node, other))
	}
	return errors.Join(errs...)
}

// Drain drains a node like `nomad node drain`, and returns once nothing runs on
// it. It gets no jobs before Undrain.
func (f *Fleet) Drain(ctx context.Context, node string) error {
	id, err := f.nodeID(ctx, node)
	if err != nil {
		return err
	}
	options := (&nomad.WriteOptions{}).WithContext(ctx)
	spec := &nomad.DrainSpec{Deadline: time.Minute}
	if _, err := f.Nomad().Nodes().UpdateDrain(id, spec, false, options); err != nil {
		return fmt.Errorf("drain %s: %w", node, err)
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		running, err := f.Running(ctx, node)
		if err == nil && len(running) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain %s: %v still run: %w (nomad: %w)", node, running, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Undrain makes a drained node accept jobs again.
func (f *Fleet) Undrain(ctx context.Context, node string) error {
	id, err := f.nodeID(ctx, node)
	if err != nil {
		return err
	}
	if _, err := f.Nomad().Nodes().UpdateDrain(id, nil, true, (&nomad.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("undrain %s: %w", node, err)
	}
	return f.awaitNodes(ctx, node)
}

// Running lists the jobs of the allocations that run on a node, as far as Nomad's
// servers know.
func (f *Fleet) Running(ctx context.Context, node string) ([]string, error) {
	list, _, err := f.Nomad().Allocations().List((&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("list allocations: %w", err)
	}
	var jobs []string
	for _, a := range list {
		if a.NodeName == node && a.ClientStatus == nomad.AllocClientStatusRunning {
			jobs = append(jobs, a.JobID)
		}
	}
	return jobs, nil
}

func (f *Fleet) nodeID(ctx context.Context, name string) (string, error) {
	list, _, err := f.Nomad().Nodes().List((&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("list nodes: %w", err)
	}
	for _, n := range list {
		if n.Name == name {
			return n.ID, nil
		}
	}
	return "", fmt.Errorf("nomad has no node %s", name)
}

// Signal sends a signal to the processes of a program on a node, and returns to
// how many.
func (f *Fleet) Signal(node, program string, signal syscall.Signal) (n int) {
	for _, pid := range lan.Processes(f.lan.Namespace(node)) {
		p, ok := process.Find(pid)
		if ok && filepath.Base(p.Args[0]) == program && syscall.Kill(pid, signal) == nil {
			n++
		}
	}
	return n
}
