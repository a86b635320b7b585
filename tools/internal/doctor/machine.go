package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Privileges judges whether Nomad's raw_exec driver can work.
func Privileges(root bool) Finding {
	const check = "root"
	if !root {
		return Finding{
			check, Fail, "not root", "Nomad's raw_exec driver, which runs the jobs, needs root: sudo ./justw up",
		}
	}
	return ok(check, "root")
}

// Cgroups judges the control groups, in which Nomad puts tasks. version is 1 or
// 2, or 0 if none are mounted.
func Cgroups(version int, writable bool) Finding {
	const check = "cgroups"
	switch {
	case version == 0:
		return Finding{check, Fail, "none are mounted", "mount them: mount -t cgroup2 none /sys/fs/cgroup"}
	case !writable:
		return Finding{
			check, Fail, fmt.Sprintf("version %d, mounted read-only", version),
			"in a container, give it its own cgroups (--privileged, or --cgroupns=private with a writable mount)",
		}
	}
	return ok(check, "version %d", version)
}

// Memory judges what is available, in bytes. A fleet needs about a gibibyte to
// come up: agents 250 MiB, database 350, services 200, and some reserve.
func Memory(available uint64, up bool) Finding {
	const check = "memory"
	fail, warn := uint64(gib), uint64(2*gib)
	if up {
		fail, warn = 128*mib, 512*mib
	}
	found := fmt.Sprintf("%d MiB available", available/mib)
	todo := "end other programs, or run fewer chat servers (count in nomad/chat.nomad.hcl)"
	switch {
	case available < fail:
		return Finding{check, Fail, found, todo}
	case available < warn:
		return Finding{check, Warn, found, todo}
	}
	return ok(check, "%s", found)
}

// Disk judges the free space for the databases' files, in bytes.
func Disk(folder string, free uint64) Finding {
	const check = "disk"
	found := fmt.Sprintf("%.1f GiB free below %s", float64(free)/gib, folder)
	todo := "make room, or move the fleet with MSRCHAT_STATE: with a full disk the database and all sends stop"
	switch {
	case free < gib:
		return Finding{check, Fail, found, todo}
	case free < 5*gib:
		return Finding{check, Warn, found, todo}
	}
	return ok(check, "%s", found)
}

// FileSystem is the one of the database's files.
type FileSystem struct {
	Folder, Type string
	Options      []string // of the mount
}

// File systems in memory lose everything with the power. Whether a sync reaches a
// disk through the others depends on the storage behind them.
var (
	inMemory = []string{"tmpfs", "ramfs"}
	layered  = []string{"nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse", "overlay"}
)

// Durable judges whether a synced write survives a loss of power, as far as the
// type of the file system shows.
func (fs FileSystem) Durable() Finding {
	const check = "file system"
	found := fmt.Sprintf("%s (%s)", fs.Type, fs.Folder)
	if slices.Contains(inMemory, fs.Type) {
		return Finding{
			check, Fail, found + ": in memory, nothing survives a restart",
			"move the fleet to a disk with MSRCHAT_STATE, or acknowledged messages are lost",
		}
	}
	for _, option := range []string{"nobarrier", "barrier=0"} {
		if slices.Contains(fs.Options, option) {
			return Finding{
				check, Fail, found + " mounted with " + option + ": a sync does not reach the disk",
				"mount it without " + option,
			}
		}
	}
	if slices.ContainsFunc(layered, func(t string) bool { return fs.Type == t || strings.HasPrefix(fs.Type, t+".") }) {
		return Finding{
			check, Warn, found + ": whether a sync reaches a disk depends on the storage behind it",
			"keep the databases' files on a local disk (ext4, xfs), or check the storage behind it",
		}
	}
	return ok(check, "%s", found)
}

// tooFast is faster than any disk with a protected cache can sync.
const tooFast = 5 * time.Microsecond

// Sync judges the median time of a small write with fsync.
func Sync(median time.Duration) Finding {
	const check = "fsync"
	if median < tooFast {
		return Finding{
			check, Warn, fmt.Sprintf("%v each: faster than a disk can be", median),
			"a layer below answers before it has written (libeatmydata, a cache without a battery): " +
				"find it, or a loss of power loses messages",
		}
	}
	return ok(check, "%v each", median.Round(time.Microsecond))
}

// Clock judges whether this machine's clock is synchronised.
func Clock(synchronised bool) Finding {
	const check = "clock"
	if !synchronised {
		return Finding{
			check, Warn, "the kernel's clock is not synchronised",
			"run chrony or systemd-timesyncd (for a container or a virtual machine: on its host); " +
				"expiry and the times that people see depend on it",
		}
	}
	return ok(check, "synchronised")
}

// The bounds of the difference between two clocks. Routes in Redis expire after
// 90 s and are refreshed every 30, by the clock of the server that writes them.
const (
	skewWarn = 2 * time.Second
	skewFail = 30 * time.Second
)

// Skew judges how far another clock is ahead of this one; precision is that of
// the measurement.
func Skew(whose string, ahead, precision time.Duration) Finding {
	check := "clock of " + whose
	off := max(ahead.Abs()-precision, 0)
	found := fmt.Sprintf("%+.1f s from this machine's", ahead.Seconds())
	todo := "synchronise both clocks (chrony, systemd-timesyncd)"
	switch {
	case off > skewFail:
		return Finding{check, Fail, found, todo + ": routes and sessions expire too early or too late"}
	case off > skewWarn:
		return Finding{check, Warn, found, todo}
	case off == 0:
		return ok(check, "within %v of this machine's", precision.Round(time.Millisecond))
	}
	return ok(check, "%s", found)
}

// Program is an outside program and the oldest version that is good enough.
type Program struct {
	Name, Minimum string
	Path, Version string // empty if it is not installed
	// Brought says how to get it; empty for a program that the fleet can do
	// without.
	Brought, Purpose string
}

// Judge compares the versions.
func (p Program) Judge() Finding {
	check := p.Name
	switch {
	case p.Path == "" && p.Brought == "":
		return NotChecked(check, "not installed; only "+p.Purpose+" needs it (at least "+p.Minimum+")")
	case p.Path == "":
		return Finding{check, Warn, "not installed", p.Brought}
	case p.Version == "":
		return Finding{check, Warn, p.Path + " does not report its version", "check that it is at least " + p.Minimum}
	case !AtLeast(p.Version, p.Minimum):
		return Finding{check, Fail, p.Version + " (" + p.Path + ")", "install at least " + p.Minimum}
	}
	return ok(check, "%s", p.Version)
}

// Part is something that the first up brings, and how long that takes on two cores.
type Part struct {
	Name, How string
	Takes     time.Duration
}

// FirstUp says what a start of the fleet would bring to this machine.
func FirstUp(parts []Part) Finding {
	const check = "first up"
	if len(parts) == 0 {
		return ok(check, "all is here, ./justw up takes well under a minute")
	}
	var list []string
	var all time.Duration
	for _, p := range parts {
		list = append(list, fmt.Sprintf("%s %s (%s)", p.Name, p.How, roughly(p.Takes)))
		all += p.Takes
	}
	found := fmt.Sprintf("brings %s; on two cores about %s, once", strings.Join(list, ", "), roughly(all))
	if all < 5*time.Minute {
		return ok(check, "%s", found)
	}
	return Finding{
		check, Warn, found,
		"nothing, or install HashiCorp's consul and nomad before; a first look takes three minutes: ./justw try",
	}
}

// roughly is a time for people.
func roughly(d time.Duration) string {
	if d < 90*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}

// AtLeast compares dotted numbers; the comparison ends at a part that is not a
// number.
func AtLeast(have, want string) bool {
	h, w := strings.Split(have, "."), strings.Split(want, ".")
	for i := range w {
		if i >= len(h) {
			return allZero(w[i:])
		}
		a, errA := strconv.Atoi(h[i])
		b, errB := strconv.Atoi(w[i])
		if errA != nil || errB != nil {
			return errA != nil && h[i] >= w[i]
		}
		if a != b {
			return a > b
		}
	}
	return true
}

func allZero(parts []string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return strings.Trim(p, "0") != "" })
}

// Files judges the limit of open files of a chat server: each connection is one.
// handshakes are connections beyond the capacity that have not sent their Hello.
func Files(check string, limit, capacity, handshakes uint64) Finding {
	// Databases (16 and 32), peers, status, Consul, listeners, and some reserve.
	const others = 256
	found := fmt.Sprintf("%d open files for %d connections, %d handshakes and %d others", limit, capacity, handshakes,
		others)
	fits := uint64(1)
	if limit > handshakes+others {
		fits = limit - handshakes - others
	}
	lower := fmt.Sprintf("or lower capacity in nomad/chat.nomad.hcl to %d", fits)
	switch {
	case capacity+others > limit:
		return Finding{check, Fail, found, "raise the limit in the shell that starts the fleet (ulimit -n), " + lower}
	case capacity+handshakes+others > limit:
		return Finding{
			check, Warn, found,
			"a flood of connections could keep users out when the server is nearly full: " +
				"raise the limit (ulimit -n), " + lower,
		}
	}
	return ok(check, "%s", found)
}
