package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/shared/backend"
	"github.com/msrchat/msrchat/shared/database"
)

// Galera is a real MariaDB Galera cluster of a test: three nodes, which all have
// what is committed on one. Its methods are for the test's goroutine.
type Galera struct {
	Nodes []*Process
}

const galeraNodes = 3

// galeraLibrary is where Debian and others have the provider.
var galeraLibrary = []string{"/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so"}

// StartGalera starts an empty cluster that ends with the test.
func StartGalera(t testing.TB) *Galera {
	t.Helper()
	g := prepareGalera(t)
	t.Cleanup(func() {
		for _, p := range g.Nodes {
			p.Kill()
			_ = os.RemoveAll(p.dir)
		}
	})
	g.start(t)
	return g
}

// prepareGalera gives each node a folder of its own.
func prepareGalera(t testing.TB) *Galera {
	t.Helper()
	at := slices.IndexFunc(galeraLibrary, func(path string) bool { _, err := os.Stat(path); return err == nil })
	if at < 0 {
		t.Skip("not run: Galera's library is not installed (Debian calls it galera-4)")
	}
	Find(t, "rsync")
	ports := make([]int, galeraNodes) // for the other nodes
	for i := range ports {
		ports[i] = FreePort(t)
	}
	g := &Galera{}
	for i := range ports {
		g.Nodes = append(g.Nodes, prepare(t, func(dir string) (backend.Program, error) {
			p, err := mariaDBNode(dir)
			if err != nil {
				return p, err
			}
			transfer, err := freePorts(2)
			p.Args = append(p.Args, galera(i, ports, galeraLibrary[at], transfer)...)
			p.Ready = func(ctx context.Context) error { return inStep(ctx, p.Addr, 0) }
			return p, err
		}))
	}
	return g
}

// mariaDBNode is a server that may give its data to others. As root it cannot: rsync's
// daemon would not read the files as somebody else. So it runs as the user that the
// package has made for it.
func mariaDBNode(dir string) (backend.Program, error) {
	files := backend.MariaDBFiles{Dir: dir, Data: filepath.Join(dir, "data"), Log: "32M"}
	if os.Getuid() == 0 {
		as, err := user.Lookup("mysql")
		if err != nil {
			return backend.Program{}, err
		}
		files.User = as
	}
	return backend.MariaDB(context.Background(), files)
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		port, err := backend.PickPort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// galera are a node's flags. The others give it up after two seconds instead of
// five, so that a test need not wait.
func galera(i int, ports []int, library string, transfer []int) []string {
	var all, donors []string
	for n, port := range ports {
		all = append(all, backend.Address(port))
		if n != i {
			donors = append([]string{"node" + strconv.Itoa(n)}, donors...)
		}
	}
	return []string{
		"--wsrep-on=ON", "--wsrep-provider=" + library, "--wsrep-cluster-name=test",
		"--wsrep-cluster-address=gcomm://" + strings.Join(all, ","),
		"--wsrep-node-name=node" + strconv.Itoa(i), "--wsrep-node-address=127.0.0.1",
		// The node that takes the writes is the last to be asked: a donor by rsync
		// writes nothing meanwhile.
		"--wsrep-sst-method=rsync", "--wsrep-sst-donor=" + strings.Join(donors, ",") + ",",
		"--wsrep-sst-receive-address=" + backend.Address(transfer[0]),
		"--wsrep-provider-options=gmcast.listen_addr=tcp://" + backend.Address(ports[i]) +
			";ist.recv_addr=" + backend.Address(transfer[1]) +
			";evs.suspect_timeout=PT2S;evs.inactive_timeout=PT5S;evs.inactive_check_period=PT0.5S" +
			";evs.keepalive_period=PT0.5S;evs.join_retrans_period=PT0.5S;gcache.size=32M",
		"--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
	}
}

// inStep says whether a node is in step with a majority, and sees as many nodes; 0 is
// any number.
func inStep(ctx context.Context, addr string, nodes int) error {
	db, err := database.Open(ctx, backend.RootConfig(addr, "mysql"))
	if err != nil {
		return err
	}
	defer db.Close()
	want := map[string]string{"wsrep_ready": "ON", "wsrep_local_state_comment": "Synced"}
	if nodes > 0 {
		want["wsrep_cluster_size"] = strconv.Itoa(nodes)
	}
	for name, value := range want {
		var got string
		if err := db.QueryRowContext(ctx, "SHOW STATUS LIKE '"+name+"'").Scan(&name, &got); err != nil {
			return err
		}
		if got != value {
			return fmt.Errorf("%s is %s", name, got)
		}
	}
	return nil
}

// start starts the first node as the cluster, and lets the others join it one after
// the other.
func (g *Galera) start(t testing.TB) {
	t.Helper()
	first := g.Nodes[0]
	joins := first.Args
	first.Args = append(slices.Clone(joins), "--wsrep-new-cluster")
	first.Start(t)
	first.Args = joins
	for _, p := range g.Nodes[1:] {
		p.Start(t)
	}
	g.Settle(t)
}

// Addr are the addresses of all nodes.
func (g *Galera) Addr() string {
	var all []string
	for _, p := range g.Nodes {
		all = append(all, p.Addr)
	}
	return strings.Join(all, ",")
}

// Database makes a fresh, migrated database.
func (g *Galera) Database(t testing.TB) database.Config {
	t.Helper()
	return fresh(t, backend.RootConfig(g.Addr(), ""))
}

// Isolate cuts a node off from the others, which have the majority, or lets it back.
// Its clients reach it all the time.
func (g *Galera) Isolate(t testing.TB, node *Process, cut bool) {
	t.Helper()
	setting := "gmcast.isolate=0"
	if cut {
		setting = "gmcast.isolate=1"
	}
	db := Open(t, backend.RootConfig(node.Addr, "mysql"))
	_, err := db.ExecContext(context.Background(), "SET GLOBAL wsrep_provider_options = '"+setting+"'")
	must(t, err)
	if !cut {
		g.Settle(t)
	}
}

// Settle waits until every node is in step and sees all others.
func (g *Galera) Settle(t testing.TB) {
	t.Helper()
	must(t, keepTrying(context.Background(), func() error {
		for _, p := range g.Nodes {
			if err := inStep(context.Background(), p.Addr, galeraNodes); err != nil {
				return fmt.Errorf("the Galera node %s: %w", p.Addr, err)
			}
		}
		return nil
	}))
}

var errNobody = errors.New("no node has a client")

// Writer is the node that most clients of a database are connected to.
func (g *Galera) Writer(t testing.TB, name string) *Process {
	t.Helper()
	var found *Process
	must(t, keepTrying(context.Background(), func() error {
		most := 0
		for _, p := range g.Nodes {
			if n, err := clients(p.Addr, name); err == nil && n > most {
				found, most = p, n
			}
		}
		if found == nil {
			return errNobody
		}
		return nil
	}))
	return found
}

// clients counts the connections to a database of a node.
func clients(addr, name string) (n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	db, err := database.Open(ctx, backend.RootConfig(addr, "mysql"))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.processlist WHERE db = ?", name).Scan(&n)
	return n, err
}
