// Package memory is a catalog within one process, for a whole system in it. It checks
// the processes as Consul does, over their ports, so that readiness, drain and loss
// mean the same.
package memory

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/retry"
)

// startInterval is the pause between two checks of an instance that does not pass:
// short, so that a system is up as soon as its servers are.
const startInterval = 100 * time.Millisecond

// Catalog is a discovery.Catalog. The zero value is not valid: use New.
type Catalog struct {
	life     context.Context //nolint:containedctx // ends all checks, with Close
	end      context.CancelFunc
	checking sync.WaitGroup

	mu      sync.Mutex // owns the fields below, and passing of each entry
	index   uint64     // rises with every change
	changed chan struct{}
	entries map[string]*entry // by id
}

// entry is one registration.
type entry struct {
	discovery.Registration
	instance discovery.Instance
	stop     context.CancelFunc // ends its checks
}

// New returns an empty catalog. Close ends its checks.
func New() *Catalog {
	c := &Catalog{index: 1, changed: make(chan struct{}), entries: make(map[string]*entry)}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Close ends all checks. What is registered stays as it was last seen.
func (c *Catalog) Close() {
	c.end()
	c.checking.Wait()
}

func (c *Catalog) String() string { return "the catalog of this process" }

// Ping always succeeds: who asks is in the same process.
func (c *Catalog) Ping(context.Context) error { return nil }

// Query returns the instances of a service.
func (c *Catalog) Query(
	ctx context.Context, service string, after uint64, wait time.Duration,
) ([]discovery.Instance, uint64, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := after == 0; ; {
		list, index, changed := c.read(service)
		if over || index != after {
			return list, index, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (c *Catalog) read(service string) (list []discovery.Instance, index uint64, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.Service == service {
			list = append(list, e.instance)
		}
	}
	return list, c.index, c.changed
}

// change wakes all that wait. The caller holds the mutex.
func (c *Catalog) change() {
	c.index++
	close(c.changed)
	c.changed = make(chan struct{})
}

// Register lists the process, as failing until its checks pass. One of the same id is
// replaced.
func (c *Catalog) Register(_ context.Context, r discovery.Registration) (func(context.Context) error, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	meta := maps.Clone(r.Meta)
	if meta == nil {
		meta = map[string]string{}
	}
	meta[discovery.MetaInstance] = r.Instance
	e := &entry{
		Registration: r,
		instance:     discovery.Instance{ID: r.Instance, Address: r.Address, Meta: meta},
	}
	ctx, stop := context.WithCancel(c.life)
	e.stop = stop
	c.mu.Lock()
	if old := c.entries[r.ID()]; old != nil {
		old.stop()
	}
	c.entries[r.ID()] = e
	c.change()
	c.mu.Unlock()
	c.checking.Go(func() { c.check(ctx, e) })
	return func(context.Context) error {
		c.remove(e)
		return nil
	}, nil
}

func (c *Catalog) remove(e *entry) {
	e.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.ID()] == e {
		delete(c.entries, e.ID())
		c.change()
	}
}

// check is the goroutine of one registration: it runs the checks until ctx ends.
func (c *Catalog) check(ctx context.Context, e *entry) {
	p := newProber(e.Checks)
	defer p.close()
	for {
		passing := p.all(ctx)
		if ctx.Err() != nil {
			return
		}
		c.set(e, passing)
		pause := discovery.CheckInterval
		if !passing {
			pause = startInterval
		}
		if !retry.Sleep(ctx, pause) {
			return
		}
	}
}

func (c *Catalog) set(e *entry, passing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.instance.Passing != passing {
		e.instance.Passing = passing
		c.change()
	}
}
