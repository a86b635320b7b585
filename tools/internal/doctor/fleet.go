package doctor

import (
	"fmt"
	"strings"
	"time"
)

// Database is the state of the running database.
type Database struct {
	Version     string
	Flush       int // innodb_flush_log_at_trx_commit
	Binlog      bool
	SyncBinlog  int
	FlushMethod string // innodb_flush_method
	Doublewrite bool
	// Preloaded is a loaded library that ignores syncs, "" if there is none.
	Preloaded string
}

// Durable judges whether a commit survives a crash.
func (d Database) Durable() Finding {
	const check = "durability"
	found := fmt.Sprintf("innodb_flush_log_at_trx_commit=%d, binlog %s, innodb_flush_method=%s, doublewrite %s",
		d.Flush, d.binlog(), d.FlushMethod, onOff(d.Doublewrite))
	fail := func(why string) Finding {
		return Finding{check, Fail, found, why + ": acknowledged messages would be lost in a crash"}
	}
	switch {
	case d.Flush != 1:
		return fail("set innodb_flush_log_at_trx_commit=1")
	case d.Binlog && d.SyncBinlog != 1:
		return fail("set sync_binlog=1, or turn the binlog off")
	case strings.Contains(d.FlushMethod, "nosync") || strings.Contains(d.FlushMethod, "littlesync"):
		return fail("set innodb_flush_method to O_DIRECT or fsync")
	case d.Preloaded != "":
		return fail("start it without " + d.Preloaded + ", which ignores every sync")
	case !d.Doublewrite:
		return Finding{
			check, Warn, found,
			"set innodb_doublewrite=ON unless the disk writes 16 KiB atomically: a torn page cannot be repaired",
		}
	}
	return ok(check, "%s", found)
}

func (d Database) binlog() string {
	if !d.Binlog {
		return "off"
	}
	return fmt.Sprintf("on with sync_binlog=%d", d.SyncBinlog)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// KillTimeout judges a task's kill_timeout against what its node allows.
func KillTimeout(task string, wanted, allowed time.Duration) Finding {
	check := "kill timeout of " + task
	if wanted > allowed {
		return Finding{
			check, Fail, fmt.Sprintf("%v, of which the node allows %v", wanted, allowed),
			fmt.Sprintf("set max_kill_timeout in the client block of the node's Nomad to %v or more, "+
				"or a drain is cut short without a message", wanted),
		}
	}
	return ok(check, "%v of at most %v", wanted, allowed)
}

// Ports judges the list of the fleet's ports that others hold.
func Ports(conflicts []string, portBase int) Finding {
	const check = "ports"
	if len(conflicts) > 0 {
		return Finding{
			check, Fail, strings.Join(conflicts, "; "),
			fmt.Sprintf("end that program, or use other ports: MSRCHAT_PORT_BASE=%d ./justw up", portBase+1000),
		}
	}
	return ok(check, "%d and up: free, or the fleet's own", portBase)
}

// Agents judges whether the two agents run, and what is left without them.
// manager is what started the fleet, "" if nothing did.
func Agents(consul, nomad bool, manager string, leftovers []string) Finding {
	const check = "fleet"
	up := "./justw up"
	if manager == "terraform" {
		up = "./justw apply local"
	}
	switch {
	case consul && nomad:
		return ok(check, "up")
	case consul || nomad:
		dead := "Consul"
		if consul {
			dead = "Nomad"
		}
		return Finding{
			check, Fail, dead + " does not run although the other agent does",
			up + " starts it again; its log: ./justw logs " + strings.ToLower(dead),
		}
	case len(leftovers) > 0:
		return Finding{
			check, Fail, "down, but some of it is left: " + strings.Join(leftovers, "; "),
			"./justw down removes it, " + up + " goes on with it",
		}
	case manager != "":
		return Finding{check, Fail, "was started and does not run", up + " starts it again"}
	}
	return NotChecked(check, "down: the checks that need it are left out")
}

// Leader judges whether the servers of an agent have a leader.
func Leader(agent, leader string, err error) Finding {
	check := agent + " leader"
	switch {
	case err != nil:
		return Finding{check, Fail, err.Error(), "./justw logs " + agent}
	case leader == "":
		return Finding{check, Fail, "no leader", "./justw logs " + agent}
	}
	return ok(check, "%s", leader)
}

// Node judges a node of Nomad: whether it accepts jobs and can run them.
func Node(name, status string, eligible, rawExec bool) Finding {
	check := "node " + name
	switch {
	case status != "ready":
		return Finding{check, Fail, status, "nomad node status; ./justw logs nomad"}
	case !rawExec:
		return Finding{
			check, Fail, "its raw_exec driver does not work",
			"enable it in the node's Nomad configuration, and run that as root",
		}
	case !eligible:
		return Finding{check, Warn, "accepts no new jobs (drained)", "nomad node eligibility -enable"}
	}
	return ok(check, "ready, raw_exec works")
}

// Instance judges a registered instance: how many checks it has, and those that
// do not pass.
func Instance(service, id string, checks int, critical, warning []string) Finding {
	check := strings.TrimSpace(service + " " + id)
	todo := "./justw logs " + service
	switch {
	case len(critical) > 0:
		return Finding{check, Fail, strings.Join(critical, "; "), todo}
	case len(warning) > 0:
		return Finding{check, Warn, strings.Join(warning, "; "), todo}
	case checks == 0:
		return Finding{check, Warn, "has no check", "a service without a check counts as healthy when it is dead"}
	}
	return ok(check, "%d checks pass", checks)
}

// Missing judges a service that should be in the catalog and is not.
func Missing(service string) Finding {
	return Finding{service, Fail, "not in Consul", "./justw up; ./justw logs " + service}
}
