package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/msrchat/msrchat/shared/certificate"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/process"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/dial"
	"github.com/msrchat/msrchat/bench/floor"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
	"github.com/msrchat/msrchat/bench/users"
	"github.com/msrchat/msrchat/proof/account"
)

// Names of the groups of processes.
const (
	groupChat     = "chat"
	groupDatabase = "database"
	groupGate     = "gate"
	groupFloor    = "floor"
)

// program is the name of this program.
const program = "msrchat-bench"

const defaultGate = "http://127.0.0.1:7700"

// outputFlags are those of every command.
func outputFlags() []cli.Flag {
	const category = "Output"
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print the report as JSON, with every round", Category: category},
		&cli.BoolFlag{Name: "quiet", Usage: "show no progress", Category: category},
	}
}

// fleetFlags are those of the commands that connect.
func fleetFlags() []cli.Flag {
	const fleet, watch = "Fleet", "Processes to watch"
	return append([]cli.Flag{
		gateFlag("go where the gate at this `URL` assigns", fleet),
		&cli.StringSliceFlag{
			Name: "server", Category: fleet,
			Usage: "go to the chat server at `HOST:PORT` without asking the gate; several in turn",
		},
		&cli.StringFlag{
			Name: "ca-file", EnvVars: []string{"MSRCHAT_CA_FILE"}, Category: fleet,
			Usage: "trust the authorities in `FILE`, in PEM, where chat servers speak TLS (default: the system's)",
		},
		&cli.StringFlag{
			Name: "tls-server-name", Category: fleet,
			Usage: "speak TLS with the servers of --server, whose certificates have this `NAME`",
		},
		&cli.BoolFlag{
			Name: "keep", Category: fleet,
			Usage: "leave the accounts and what they wrote in the database (see the command clean)",
		},
		&cli.StringSliceFlag{Name: "pid", Usage: "measure what the process `NAME=PID` uses", Category: watch},
		&cli.StringSliceFlag{
			Name: "listener", EnvVars: []string{"MSRCHAT_BENCH_LISTENERS"}, Category: watch,
			Usage: "measure the process that listens on `NAME=HOST:PORT` of this machine;" +
				" the chat servers, the database and the gate are found by themselves",
		},
	}, database.Flags()...)
}

func gateFlag(usage, category string) cli.Flag {
	return &cli.StringFlag{
		Name: "gate", Value: defaultGate, EnvVars: []string{"MSRCHAT_GATE"}, Usage: usage, Category: category,
	}
}

// bench is what the commands that connect share: the fleet's database, where to
// connect, which processes to watch.
type bench struct {
	cli    *cli.Context
	dbCfg  database.Config
	db     *sql.DB
	choose place.Chooser
	dialer *wire.Dialer // its Keeper is closed by close
	// others are the processes to watch besides chat servers and database.
	others proc.Set
	report report.Report
	show   *progress
}

// open reads the flags and opens the database.
func open(c *cli.Context, settings any, what string) (*bench, error) {
	if c.NArg() > 0 {
		return nil, process.Usage(fmt.Errorf("unexpected argument %q", c.Args().First()))
	}
	b := &bench{cli: c, show: newProgress(c.Bool("quiet"))}
	b.report = report.Report{
		Command: program + " " + c.Command.Name, Started: time.Now(),
		Machine: report.ThisMachine(process.Version()), Settings: settings, What: what,
	}
	if err := b.configure(); err != nil {
		return nil, process.Usage(err)
	}
	if err := b.openDatabase(c.Context); err != nil {
		return nil, err
	}
	roots, err := certificate.Roots(c.String("ca-file"))
	if err != nil {
		return nil, process.Usage(err)
	}
	b.dialer = dial.New(roots)
	return b, nil
}

func (b *bench) configure() (err error) {
	if b.dbCfg, err = database.FromCLI(b.cli); err != nil {
		return err
	}
	if servers := b.cli.StringSlice("server"); len(servers) > 0 {
		b.choose, err = place.Direct(servers, b.cli.String("tls-server-name"))
	} else {
		b.choose, err = place.Gate(b.cli.String("gate"))
	}
	if err != nil {
		return err
	}
	for _, s := range b.cli.StringSlice("pid") {
		p, err := proc.Parse(s)
		if err != nil {
			return err
		}
		b.others.Add(p)
	}
	for _, s := range b.cli.StringSlice("listener") {
		name, address, err := proc.ParseListener(s)
		if err != nil {
			return err
		}
		b.others.AddListener(name, address)
	}
	return nil
}

func (b *bench) openDatabase(ctx context.Context) (err error) {
	if b.db, err = account.Open(ctx, b.dbCfg); err != nil {
		return fmt.Errorf("%w (the password is expected in MSRCHAT_MYSQL_PASSWORD)", err)
	}
	if b.report.Database, err = report.ReadDatabase(ctx, b.db, b.dbCfg.Addr); err != nil {
		return errors.Join(err, b.db.Close())
	}
	return nil
}

// close releases what open took.
func (b *bench) close() {
	b.dialer.Keeper.Close()
	_ = b.db.Close()
}

// users makes accounts.
func (b *bench) users(n int) (*users.Users, error) {
	b.show.line("creating %d accounts", n)
	return users.Make(b.cli.Context, b.db, n, b.dialer, b.choose)
}

// remove deletes the accounts, also after Ctrl-C.
func (b *bench) remove(u *users.Users) {
	if b.cli.Bool("keep") {
		return
	}
	b.show.line("deleting the accounts")
	if err := u.Remove(context.WithoutCancel(b.cli.Context), b.db); err != nil {
		fmt.Fprintf(os.Stderr, "%s: the accounts are still there (%v); '%s clean' deletes them\n",
			program, err, program)
	}
}

// watch lists the system's processes: the chat servers at the addresses, the
// database, and the others that were named.
func (b *bench) watch(addresses []string) *proc.Set {
	set := &proc.Set{}
	for i, a := range addresses {
		set.AddListener(groupChat+" "+strconv.Itoa(i+1), a)
	}
	set.AddListener(groupDatabase, b.dbCfg.Addr)
	for _, p := range b.others.Processes {
		set.Add(p)
	}
	set.Missing = append(set.Missing, b.others.Missing...)
	return set
}

// watchFloor lists a floor's processes.
func (b *bench) watchFloor(kind floor.Kind, child *floor.Child) *proc.Set {
	set := &proc.Set{}
	set.Add(proc.Process{Name: groupFloor, PID: child.PID})
	if kind != floor.Relay {
		set.AddListener(groupDatabase, b.dbCfg.Addr)
	}
	return set
}

// watchGate adds the gate.
func (b *bench) watchGate(set *proc.Set) {
	if u, err := url.Parse(b.cli.String("gate")); err == nil {
		set.AddListener(groupGate, u.Host)
	}
}

// addresses lists the servers of the connections, once each.
func addresses(conns []*wire.Conn) []string {
	var out []string
	seen := make(map[string]bool)
	for _, c := range conns {
		if c != nil && !seen[c.Address()] {
			seen[c.Address()] = true
			out = append(out, c.Address())
		}
	}
	return out
}

// note adds a note to the report, once.
func (b *bench) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(b.report.Notes, text) {
		b.report.Notes = append(b.report.Notes, text)
	}
}

// missing notes the processes that could not be found.
func (b *bench) missing(set *proc.Set) {
	for _, name := range set.Missing {
		b.note("not measured: %s (its process was not found on this machine; --pid %s=PID names it)",
			name, proc.Group(name))
	}
}

// print writes the report.
func (b *bench) print() error {
	b.show.clear()
	return printReport(b.cli, &b.report)
}

func printReport(c *cli.Context, r *report.Report) error {
	if c.Bool("json") {
		return r.WriteJSON(c.App.Writer)
	}
	return r.WriteTable(c.App.Writer)
}

func removedText(r account.Removed) string {
	return fmt.Sprintf("removed %d accounts, %d sessions, %d conversations, %d messages",
		r.Users, r.Sessions, r.Conversations, r.Events)
}
