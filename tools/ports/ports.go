// Package ports is the port table of the local fleet. All ports follow from one
// number, the base, so that two fleets can run on one machine.
package ports

import (
	"fmt"
	"strings"
)

// DefaultBase is the base of the local fleet unless another one is set.
const DefaultBase = 7700

// EnvBase is the environment variable that sets the base.
const EnvBase = "MSRCHAT_PORT_BASE"

// Offsets from the base. Those under 100 are fixed; Nomad allocates the others.
const (
	gateHTTP = 0

	consulHTTP = 1
	consulGRPC = 2
	consulRPC  = 3
	consulSerf = 4

	nomadHTTP = 10
	nomadRPC  = 11
	nomadSerf = 12

	mysql    = 20
	redis    = 21
	mailSMTP = 25
	mailHTTP = 26

	dynamicFirst = 100
	dynamicLast  = 199
)

// Table gives the number of each port. The zero value is not valid: use New.
type Table struct{ base int }

// New checks the base: the whole table has to lie in the unprivileged range.
func New(base int) (Table, error) {
	if base < 1024 || base+dynamicLast > 65535 {
		return Table{}, fmt.Errorf("port base %d: must be between 1024 and %d (set %s)", base, 65535-dynamicLast,
			EnvBase)
	}
	return Table{base: base}, nil
}

// Elsewhere is the base of another table, to try when a port of this one is taken.
func (t Table) Elsewhere() int {
	const step = 1000
	if other, err := New(t.base + step); err == nil {
		return other.base
	}
	return DefaultBase
}

// Base is the number that the table was made from.
func (t Table) Base() int { return t.base }

func (t Table) Gate() int       { return t.base + gateHTTP }   // Gate serves HTTP.
func (t Table) ConsulHTTP() int { return t.base + consulHTTP } // ConsulHTTP is Consul's API and UI.
func (t Table) ConsulGRPC() int { return t.base + consulGRPC } // ConsulGRPC is Consul's gRPC API.
func (t Table) ConsulRPC() int  { return t.base + consulRPC }  // ConsulRPC is for Consul's servers.
func (t Table) ConsulSerf() int { return t.base + consulSerf } // ConsulSerf is Consul's LAN gossip.
func (t Table) NomadHTTP() int  { return t.base + nomadHTTP }  // NomadHTTP is Nomad's API and UI.
func (t Table) NomadRPC() int   { return t.base + nomadRPC }   // NomadRPC is for Nomad's servers and clients.
func (t Table) NomadSerf() int  { return t.base + nomadSerf }  // NomadSerf is Nomad's gossip.
func (t Table) MySQL() int      { return t.base + mysql }      // MySQL is the database.
func (t Table) Redis() int      { return t.base + redis }      // Redis is Redis.
func (t Table) MailSMTP() int   { return t.base + mailSMTP }   // MailSMTP accepts mail.
func (t Table) MailHTTP() int   { return t.base + mailHTTP }   // MailHTTP shows it.

// Dynamic is the first and last port of those that Nomad allocates.
func (t Table) Dynamic() (first, last int) { return t.base + dynamicFirst, t.base + dynamicLast }

// Port is a fixed port and who listens on it.
type Port struct {
	Owner  string // for people
	Number int
}

// Fixed lists every fixed port in ascending order.
func (t Table) Fixed() []Port {
	return []Port{
		{"gate", t.Gate()},
		{"Consul HTTP", t.ConsulHTTP()},
		{"Consul gRPC", t.ConsulGRPC()},
		{"Consul server RPC", t.ConsulRPC()},
		{"Consul serf", t.ConsulSerf()},
		{"Nomad HTTP", t.NomadHTTP()},
		{"Nomad RPC", t.NomadRPC()},
		{"Nomad serf", t.NomadSerf()},
		{"mysql", t.MySQL()},
		{"redis", t.Redis()},
		{"mail SMTP", t.MailSMTP()},
		{"mail HTTP", t.MailHTTP()},
	}
}

// Holder finds the process that holds a port: taken says whether there is one,
// ours whether it belongs to this fleet; who describes it for people ("" if not
// known).
type Holder func(port int) (taken, ours bool, who string)

// Conflicts returns one line for each fixed port that another process holds.
func (t Table) Conflicts(holder Holder) []string {
	var lines []string
	for _, p := range t.Fixed() {
		taken, ours, who := holder(p.Number)
		if !taken || ours {
			continue
		}
		if who == "" {
			who = "a process that cannot be seen from here (another user's?)"
		}
		lines = append(lines, fmt.Sprintf("port %d (%s) is taken by %s", p.Number, p.Owner, who))
	}
	return lines
}

// Reserved lists the dynamic ports that other processes hold, in the form of
// Nomad's reserved_ports: "7801,7850". Nomad does not check by itself.
func (t Table) Reserved(holder Holder) string {
	var taken []string
	first, last := t.Dynamic()
	for port := first; port <= last; port++ {
		if held, ours, _ := holder(port); held && !ours {
			taken = append(taken, fmt.Sprint(port))
		}
	}
	return strings.Join(taken, ",")
}
