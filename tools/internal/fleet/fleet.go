// Package fleet starts, shows and stops the local fleet: Consul and Nomad on this
// machine's loopback, and the jobs of nomad/ on them.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/agent"
	"github.com/msrchat/msrchat/tools/internal/catalog"
	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/release"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

// loopback is the address of everything in a fleet on one node.
const loopback = "127.0.0.1"

// Fleet is one local fleet. Its methods are for one goroutine. The lock in the
// state folder keeps other processes from changing the fleet meanwhile.
type Fleet struct {
	root   string // the checkout
	dir    state.Dir
	ports  ports.Table
	host   string     // of the servers and the databases
	outMu  sync.Mutex // owns out: the build prints while the agents start
	out    io.Writer  // for people
	consul *consul.Client
	nomad  *nomad.Client
}

// New returns the fleet of the checkout in root. portBase 0 means the base of the
// fleet that is up, or else the default.
func New(root string, dir state.Dir, portBase int, out io.Writer) (*Fleet, error) {
	recorded, err := dir.PortBase()
	if err != nil {
		return nil, err
	}
	base := portBase
	if base == 0 {
		base = recorded
	}
	if base == 0 {
		base = ports.DefaultBase
	}
	if recorded != 0 && recorded != base {
		return nil, fmt.Errorf(
			"the fleet in %s is up on port base %d, not %d: take it down first (./justw down with %s=%d)", dir.Path(),
			recorded, base, ports.EnvBase, recorded,
		)
	}
	table, err := ports.New(base)
	if err != nil {
		return nil, err
	}
	return At(root, dir, table, loopback, out)
}

// At returns a fleet whose Consul and Nomad servers and databases are at the IP
// address host. The caller runs its agents.
func At(root string, dir state.Dir, table ports.Table, host string, out io.Writer) (*Fleet, error) {
	f := &Fleet{root: root, dir: dir, ports: table, host: host, out: out}
	var err error
	// With explicit addresses nothing in the caller's environment can point the
	// clients at another cluster.
	if f.consul, err = consul.NewClient(&consul.Config{Address: f.consulAddr()}); err != nil {
		return nil, fmt.Errorf("consul client: %w", err)
	}
	if f.nomad, err = nomad.NewClient(&nomad.Config{Address: f.nomadURL()}); err != nil {
		return nil, fmt.Errorf("nomad client: %w", err)
	}
	return f, nil
}

func (f *Fleet) addr(port int) string { return net.JoinHostPort(f.host, strconv.Itoa(port)) }

func (f *Fleet) consulAddr() string { return f.addr(f.ports.ConsulHTTP()) }
func (f *Fleet) nomadURL() string   { return "http://" + f.addr(f.ports.NomadHTTP()) }
func (f *Fleet) gateURL() string    { return "http://" + f.addr(f.ports.Gate()) }

func (f *Fleet) builder() release.Builder {
	return release.Builder{Root: f.root, Work: f.dir.Build(), Bin: f.dir.Bin()}
}

func (f *Fleet) printf(format string, args ...any) {
	f.outMu.Lock()
	defer f.outMu.Unlock()
	fmt.Fprintf(f.out, format, args...)
}

// holder is a ports.Holder.
func (f *Fleet) holder(port int) (taken, ours bool, who string) {
	taken, p, known := process.Listening(port)
	if known {
		who = p.String()
		ours = process.OwnedBy(p, f.dir.Path())
	}
	return taken, ours, who
}

// foreign returns an error if what listens on an agent's port is not of this fleet:
// another checkout's answers there in the same way.
func (f *Fleet) foreign() error {
	for _, port := range []int{f.ports.NomadHTTP(), f.ports.ConsulHTTP()} {
		if taken, ours, who := f.holder(port); taken && !ours && !f.isAgent(port) {
			if who == "" {
				who = "another user's program"
			}
			return fmt.Errorf("port %d is held by %s, which is not of the fleet in %s", port, who, f.dir.Path())
		}
	}
	return nil
}

// isAgent says whether an agent that this fleet started listens on a port.
func (f *Fleet) isAgent(port int) bool {
	_, listening, _ := process.Listening(port)
	return slices.ContainsFunc(f.agents(""), func(a agent.Agent) bool {
		p, ok, err := a.Process()
		return err == nil && ok && p.PID == listening.PID
	})
}

// Consul is a client of this fleet's Consul.
func (f *Fleet) Consul() *consul.Client { return f.consul }

// Nomad is a client of this fleet's Nomad.
func (f *Fleet) Nomad() *nomad.Client { return f.nomad }

// running says whether both agents of this fleet run.
func (f *Fleet) running() bool {
	for _, a := range f.agents("") {
		if _, ok, err := a.Process(); err != nil || !ok {
			return false
		}
	}
	return true
}

// agents returns Consul and Nomad, in the order in which they start.
func (f *Fleet) agents(reserved string) []agent.Agent {
	return []agent.Agent{
		agent.Consul(f.dir, f.ports, agent.Local()),
		agent.Nomad(f.dir, f.ports, agent.Local(), reserved),
	}
}

// ErrDown says that the fleet does not run.
var ErrDown = errors.New("the fleet is not up: start it with ./justw up")

// List writes the table of services.
func (f *Fleet) List(ctx context.Context) error {
	if !f.running() {
		return ErrDown
	}
	list, err := catalog.Read(ctx, f.consul)
	if err != nil {
		return err
	}
	rows := append(catalog.Rows(list), f.batchRows(ctx)...)
	return catalog.WriteTable(f.out, rows)
}

// batchRows shows the batch jobs, which are not in Consul's catalog.
func (f *Fleet) batchRows(ctx context.Context) []catalog.Row {
	var rows []catalog.Row
	for _, j := range job.All() {
		if !j.Batch {
			continue
		}
		query := (&nomad.QueryOptions{}).WithContext(ctx)
		info, _, err := f.nomad.Jobs().Info(j.Name, query)
		if err != nil {
			continue
		}
		row := catalog.Row{Service: j.Name, Release: info.Meta["release"], State: *info.Status}
		if allocs, _, err := f.nomad.Jobs().Allocations(j.Name, true, query); err == nil {
			if newest := job.Newest(allocs); newest != nil {
				row.Instance, row.State = job.ShortID(newest.ID), newest.ClientStatus
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// Env writes shell variables that point nomad, consul, msrchat and the job
// files at this fleet: eval "$(./justw env)".
func (f *Fleet) Env() error {
	binDir := f.dir.Bin()
	if current, ok, err := f.builder().Current(); err != nil {
		return err
	} else if ok {
		binDir = current.Folder
	}
	lines := append([]string{
		"CONSUL_HTTP_ADDR=http://" + f.consulAddr(),
		"NOMAD_ADDR=" + f.nomadURL(),
		"MSRCHAT_GATE=" + f.gateURL(),
	}, job.LocalVars(f.dir, f.ports, binDir).Environ()...)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		f.printf("export %s='%s'\n", name, value) // the value has no quote: see state.Open
	}
	return nil
}

// lookTools finds the programs that a fleet needs, on PATH and in the sbin
// folders, where Debian has mariadbd.
func lookTools() (consulProgram, nomadProgram string, err error) {
	for _, name := range []string{"mariadbd", "mariadb-install-db", "redis-server"} {
		if _, err := lookPath(name); err != nil {
			return "", "", err
		}
	}
	if consulProgram, err = lookPath("consul"); err != nil {
		return "", "", err
	}
	nomadProgram, err = lookPath("nomad")
	return consulProgram, nomadProgram, err
}

func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, folder := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		path := folder + "/" + name
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not on PATH; ./justw up installs what is missing", name)
}

// seconds rounds for people.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
