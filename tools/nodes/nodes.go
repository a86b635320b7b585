// Package nodes runs a fleet on several nodes on this machine, to see what
// happens when one of them dies, is cut off or is drained. A node is a network
// namespace with a Consul and a Nomad agent of its own; it runs the same jobs
// from nomad/ that run everywhere.
//
// The control node has the servers of Consul and Nomad and the databases, which
// such a fleet cannot lose; everything else is on the others.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/agent"
	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/lan"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

// Control is the node that must survive, Users this machine itself, from which
// users connect.
const (
	Control = "control"
	Users   = lan.Users
)

// Workers are the nodes that tests may harm: as many as there are chat servers.
func Workers() []string { return []string{"n1", "n2", "n3"} }

func all() []string { return append([]string{Control}, Workers()...) }

// Nomad's datacenters, by which jobs choose their nodes.
const (
	controlDatacenter = "control"
	workerDatacenter  = "workers"
)

// counts is how many instances each service on the workers has.
var counts = map[string]int{"chat": 3, "status": 2, "gate": 2}

// The limits of a start on two busy cores; an idle machine needs a fifth.
const (
	agentsLimit = 90 * time.Second
	jobsLimit   = 4 * time.Minute
	pollEvery   = 50 * time.Millisecond
)

// Config says what to start. All fields are needed.
type Config struct {
	Root          string // the checkout
	State         string // folder of the fleet, for nothing else
	Consul, Nomad string // the programs
	// Heartbeat is that of the chat servers. Users notice the loss of theirs
	// after two.
	Heartbeat time.Duration
	Out       io.Writer // progress, for people
}

// Fleet is a running fleet. Its methods are for one goroutine.
type Fleet struct {
	cfg    Config
	dir    state.Dir
	lan    *lan.LAN
	ports  ports.Table
	fleet  *fleet.Fleet
	unlock func()
}

// Up starts a fleet and returns once every check passes. It first removes what an
// earlier one left in the same folder. After an error nothing is left.
func Up(ctx context.Context, cfg Config) (*Fleet, error) {
	dir, err := state.Open(cfg.State)
	if err != nil {
		return nil, err
	}
	// Held while the fleet runs, so that only its owner takes it down.
	unlock, err := dir.Lock()
	if err != nil {
		return nil, err
	}
	// Each node has all ports to itself, so they are the usual ones.
	table, err := ports.New(ports.DefaultBase)
	if err != nil {
		unlock()
		return nil, err
	}
	f := &Fleet{cfg: cfg, dir: dir, lan: lan.New(dir.Path(), all()...), ports: table, unlock: unlock}
	if err := f.start(ctx); err != nil {
		down := f.Down(context.WithoutCancel(ctx))
		return nil, errors.Join(err, down)
	}
	return f, nil
}

func (f *Fleet) start(ctx context.Context) (err error) {
	if err := wipe(ctx, f.dir, f.lan); err != nil {
		return fmt.Errorf("remove an earlier fleet: %w", err)
	}
	if err := f.lan.Create(ctx); err != nil {
		return err
	}
	if f.fleet, err = fleet.At(f.cfg.Root, f.dir, f.ports, f.Address(Control), f.cfg.Out); err != nil {
		return err
	}
	built, err := f.fleet.Build(ctx) // takes minutes if Go's cache is empty
	if err != nil {
		return err
	}
	began := time.Now()
	agents, cancel := context.WithTimeout(ctx, agentsLimit)
	defer cancel()
	if err := f.boot(agents, Control); err != nil {
		return err
	}
	if err := f.boot(agents, Workers()...); err != nil {
		return err
	}
	f.printf("  %d nodes are up (%.1f s)\n", len(all()), time.Since(began).Seconds())
	jobs, cancel := context.WithTimeout(ctx, jobsLimit)
	defer cancel()
	if err := f.fleet.Deploy(jobs, f.cfg.Nomad, built, f.vars()); err != nil {
		return err
	}
	f.printf("  the fleet is up on them (%.1f s)\n", time.Since(began).Seconds())
	return nil
}

func (f *Fleet) printf(format string, args ...any) { fmt.Fprintf(f.cfg.Out, format, args...) }

// vars are the values that differ from those of the local fleet: addresses and
// counts.
func (f *Fleet) vars() map[string]job.Vars {
	at := func(port int) string { return fmt.Sprintf("%s:%d", f.Address(Control), port) }
	databases := job.Vars{
		"mysql_addr": at(f.ports.MySQL()), "redis_addr": at(f.ports.Redis()), "smtp_addr": at(f.ports.MailSMTP()),
	}
	of := map[string]job.Vars{}
	for _, j := range job.All() {
		vars := job.Vars{"datacenters": fmt.Sprintf("[%q]", controlDatacenter)}
		if j.Stage == job.LastStage {
			vars["datacenters"] = fmt.Sprintf("[%q]", workerDatacenter)
		}
		maps.Copy(vars, databases)
		of[j.Name] = vars
	}
	for service, count := range counts {
		of[service]["count"] = fmt.Sprint(count)
	}
	of["chat"]["heartbeat"] = f.cfg.Heartbeat.String()
	of["chat"]["probe"] = "false" // probes have connections of their own, and tests count connections
	of["gate"]["gate_port"] = "0" // dynamic, because two may have to share the node that is left
	return of
}

// Address is a node's IP address.
func (f *Fleet) Address(node string) string { return f.lan.Address(node) }

// MySQL is host:port of the database.
func (f *Fleet) MySQL() string { return fmt.Sprintf("%s:%d", f.Address(Control), f.ports.MySQL()) }

// Redis is host:port of Redis.
func (f *Fleet) Redis() string { return fmt.Sprintf("%s:%d", f.Address(Control), f.ports.Redis()) }

// Secret reads a secret of the services from Nomad: mysql_password or
// redis_password.
func (f *Fleet) Secret(ctx context.Context, key string) (string, error) {
	return f.fleet.Secret(ctx, key)
}

// Consul is a client of the fleet's Consul server.
func (f *Fleet) Consul() *consul.Client { return f.fleet.Consul() }

// Nomad is a client of the fleet's Nomad server.
func (f *Fleet) Nomad() *nomad.Client { return f.fleet.Nomad() }

// Settled returns once every node accepts jobs and each service on the workers
// has as many instances as it should, in Nomad and in Consul, all of them
// passing: nothing is missing, and nothing stale is left.
func (f *Fleet) Settled(ctx context.Context) error {
	if err := f.awaitNodes(ctx, all()...); err != nil {
		return err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		problem := f.unsettled(ctx)
		if problem == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the fleet does not settle: %w (%w)", problem, ctx.Err())
		case <-tick.C:
		}
	}
}

// unsettled says what is missing or surplus.
func (f *Fleet) unsettled(ctx context.Context) error {
	for service, want := range counts {
		allocs, _, err := f.Nomad().Jobs().Allocations(service, false, (&nomad.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		running := 0
		for _, a := range allocs {
			if a.ClientStatus == nomad.AllocClientStatusRunning {
				running++
			}
		}
		entries, _, err := f.Consul().Health().Service(service, "", false, (&consul.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		passing := 0
		for _, e := range entries {
			if e.Checks.AggregatedStatus() == consul.HealthPassing {
				passing++
			}
		}
		if running != want || len(entries) != want || passing != want {
			return fmt.Errorf("%s: %d of %d run, %d are in Consul, %d pass", service, running, want, len(entries),
				passing)
		}
	}
	return nil
}

// Down ends everything. Only the builds are left in the folder.
func (f *Fleet) Down(ctx context.Context) error {
	err := wipe(ctx, f.dir, f.lan)
	f.unlock()
	return err
}

// Folder is the state folder of such a fleet, beside that of the local fleet.
func Folder(state string) string { return filepath.Clean(state) + "-nodes" }

// Down removes what is left of a fleet in a folder whose owner is gone. It is
// refused while the owner runs.
func Down(ctx context.Context, folder string) error {
	if _, err := os.Stat(folder); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	dir, err := state.Open(folder)
	if err != nil {
		return err
	}
	unlock, err := dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return wipe(ctx, dir, lan.New(dir.Path(), all()...))
}

// wipe kills everything at once, because nothing of such a fleet is kept.
func wipe(ctx context.Context, dir state.Dir, network *lan.LAN) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, namespace := range network.Namespaces() {
		if err := kill(ctx, namespace); err != nil {
			return err
		}
	}
	if err := fleet.Clear(ctx, dir.Path()); err != nil {
		return err
	}
	if err := removeGroups(allocations(dir.Path())); err != nil {
		return err
	}
	if err := network.Delete(ctx); err != nil {
		return err
	}
	// The builds stay, as when a local fleet is taken down.
	errs := []error{dir.Remove(false), os.RemoveAll(dir.Data())}
	for _, node := range all() {
		errs = append(errs, os.RemoveAll(filepath.Join(dir.Path(), node)))
	}
	return errors.Join(errs...)
}

// kill kills the processes in a namespace until there are none. It repeats,
// because they may start others meanwhile.
func kill(ctx context.Context, namespace string) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		pids := slices.DeleteFunc(lan.Processes(namespace), func(pid int) bool { return !process.Kill(pid) })
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill what runs in %s: %v: %w", namespace, pids, ctx.Err())
		case <-tick.C:
		}
	}
}

// node describes a node to its agents.
func (f *Fleet) node(name string) agent.Node {
	datacenter := workerDatacenter
	if name == Control {
		datacenter = controlDatacenter
	}
	return agent.Node{
		Name: name, Datacenter: datacenter, Address: f.Address(name), Interface: "eth0",
		Servers: f.Address(Control), Namespace: f.lan.Namespace(name),
	}
}

// folder is a node's folder in the state folder.
func (f *Fleet) folder(node string) (state.Dir, error) {
	return state.Open(filepath.Join(f.dir.Path(), node))
}

// boot starts the agents of nodes, all at once, and waits until they accept jobs.
func (f *Fleet) boot(ctx context.Context, names ...string) error {
	var group sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		group.Go(func() { errs[i] = f.startAgents(ctx, name) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return f.awaitNodes(ctx, names...)
}

func (f *Fleet) startAgents(ctx context.Context, name string) error {
	dir, err := f.folder(name)
	if err != nil {
		return err
	}
	node := f.node(name)
	consulAgent := agent.Consul(dir, f.ports, node)
	p, err := consulAgent.Start(f.cfg.Consul)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("%s:%d", node.Address, f.ports.ConsulHTTP())
	client, err := consul.NewClient(&consul.Config{Address: address})
	if err != nil {
		return fmt.Errorf("consul client: %w", err)
	}
	if err := consulAgent.AwaitConsul(ctx, p, client); err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	if first, needed := agent.NomadFirst(dir, f.ports, node); needed && node.Server() {
		p, err := first.Start(f.cfg.Nomad)
		if err != nil {
			return err
		}
		if err := first.AwaitKeys(ctx, p, f.Nomad()); err != nil {
			return err
		}
		if err := first.Stop(ctx); err != nil {
			return err
		}
	}
	_, err = agent.Nomad(dir, f.ports, node, "").Start(f.cfg.Nomad)
	return err
}

// awaitNodes waits until the nodes are ready according to Nomad's servers.
func (f *Fleet) awaitNodes(ctx context.Context, names ...string) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		missing := slices.Clone(names)
		list, _, err := f.Nomad().Nodes().List((&nomad.QueryOptions{}).WithContext(ctx))
		for _, n := range list {
			if n.Status == nomad.NodeStatusReady && n.SchedulingEligibility == nomad.NodeSchedulingEligible &&
				!n.Drain {
				missing = slices.DeleteFunc(missing, func(name string) bool { return name == n.Name })
			}
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nodes %v do not accept jobs (%w; nomad: %w; logs in %s)",
				missing, ctx.Err(), err, f.dir.Path())
		case <-tick.C:
		}
	}
}
