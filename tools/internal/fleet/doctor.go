package fleet

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"

	"github.com/msrchat/msrchat/tools/internal/catalog"
	"github.com/msrchat/msrchat/tools/internal/doctor"
	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/machine"
	"github.com/msrchat/msrchat/tools/process"
)

// doctorLimit bounds all queries together: an agent that hangs is a finding.
const doctorLimit = 60 * time.Second

// Doctor examines the machine and, as far as it runs, the fleet. It changes
// nothing, except that it writes and removes a small file to measure fsync.
func (f *Fleet) Doctor(ctx context.Context) (doctor.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	agents, err := f.agentsRunning()
	if err != nil {
		return nil, err
	}
	manager, err := f.dir.Manager()
	if err != nil {
		return nil, err
	}
	holder, err := f.dir.Holder()
	if err != nil {
		return nil, err
	}
	up := agents["consul"] && agents["nomad"]
	report := f.examineMachine(up)
	report = append(report, f.examineTools(ctx)...)
	if holder != "" { // it has the fleet's ports and data
		report = append(report, doctor.NotChecked("fleet", holder+" runs instead"))
	} else {
		report = append(report,
			doctor.Ports(f.ports.Conflicts(f.holder), f.ports.Base()),
			doctor.Agents(agents["consul"], agents["nomad"], manager, f.leftovers()),
		)
	}
	if agents["consul"] {
		report = append(report, f.examineConsul(ctx)...)
	}
	if agents["nomad"] {
		report = append(report, f.examineNomad(ctx)...)
	}
	report = append(report, f.examineChat(ctx)...)
	return append(report, f.examineDatabase(ctx)...), ctx.Err()
}

func (f *Fleet) agentsRunning() (map[string]bool, error) {
	running := map[string]bool{}
	for _, a := range f.agents("") {
		_, runs, err := a.Process()
		if err != nil {
			return nil, err
		}
		running[a.Name()] = runs
	}
	return running, nil
}

// leftovers describes what is left of a fleet whose agents are gone.
func (f *Fleet) leftovers() []string {
	var found []string
	for _, p := range append(process.Tasks(f.dir.Path()), process.Helpers(f.dir.Path())...) {
		found = append(found, p.String())
	}
	if mounts, err := mountsBelow(f.dir.Path()); err == nil && len(mounts) > 0 {
		found = append(found, fmt.Sprintf("%d mounts below %s", len(mounts), f.dir.Path()))
	}
	const shown = 3
	if more := len(found) - shown; more > 0 {
		found = append(found[:shown:shown], fmt.Sprintf("and %d more", more))
	}
	return found
}

// orNot is the finding, or that the check could not be made.
func orNot(check string, err error, finding doctor.Finding) doctor.Finding {
	if err != nil {
		return doctor.NotChecked(check, err.Error())
	}
	return finding
}

func (f *Fleet) examineMachine(up bool) doctor.Report {
	folder := f.dir.Data()
	if _, err := os.Stat(folder); err != nil {
		folder = f.dir.Path() // there is no data yet; it will be below this one
	}
	version, writable, err := machine.Cgroups()
	report := doctor.Report{
		doctor.Privileges(os.Getuid() == 0),
		orNot("cgroups", err, doctor.Cgroups(version, writable)),
	}
	memory, err := machine.Memory()
	report = append(report, orNot("memory", err, doctor.Memory(memory, up)))
	free, err := machine.Disk(folder)
	report = append(report, orNot("disk", err, doctor.Disk(folder, free)))
	kind, options, err := machine.FileSystem(folder)
	report = append(report,
		orNot("file system", err, doctor.FileSystem{Folder: folder, Type: kind, Options: options}.Durable()))
	took, err := machine.SyncTime(folder)
	report = append(report, orNot("fsync", err, doctor.Sync(took)))
	synchronised, err := machine.ClockSynchronised()
	return append(report, orNot("clock", err, doctor.Clock(synchronised)))
}

// tools are the programs that the recipes use, with the oldest version that is
// good enough. A test compares them with the scripts that decide it. brought is how up
// brings one that is missing, and how long that took on two cores with empty caches.
var tools = []struct {
	ask string
	doctor.Program
	brought doctor.Part
}{
	{"version", doctor.Program{Name: "go", Minimum: "1.26", Brought: "https://go.dev/dl"}, doctor.Part{}},
	{"--version", doctor.Program{Name: "just", Minimum: "1.40.0", Brought: "./justw brings it"}, doctor.Part{}},
	{
		"version",
		doctor.Program{Name: "consul", Minimum: "1.20.0", Brought: builtOnce},
		doctor.Part{How: fromSources, Takes: 446 * time.Second},
	},
	{
		"version",
		doctor.Program{Name: "nomad", Minimum: "1.10.0", Brought: builtOnce},
		doctor.Part{How: fromSources, Takes: 336 * time.Second},
	},
	{
		"--version",
		doctor.Program{Name: "mariadbd", Minimum: "10.11", Brought: "./justw up installs it"},
		doctor.Part{How: fromDebian, Takes: 12 * time.Second},
	},
	{
		"--version",
		doctor.Program{Name: "redis-server", Minimum: "7.0", Brought: "./justw up installs it"},
		doctor.Part{How: fromDebian, Takes: 4 * time.Second},
	},
	{"version", doctor.Program{Name: "terraform", Minimum: "1.11", Purpose: "./justw apply"}, doctor.Part{}},
}

const (
	builtOnce   = "./justw up builds it (minutes, once for this machine)"
	fromSources = "built from its Go module"
	fromDebian  = "from the system's packages"
)

func (f *Fleet) examineTools(ctx context.Context) doctor.Report {
	var report doctor.Report
	var missing []doctor.Part
	for _, p := range tools {
		p.Path, p.Version = machine.Program(ctx, p.Name, p.ask)
		report = append(report, p.Judge())
		if p.Path == "" && p.brought.Takes > 0 {
			p.brought.Name = p.Name
			missing = append(missing, p.brought)
		}
	}
	if _, built, err := f.builder().Current(); err == nil && !built {
		missing = append(missing, doctor.Part{
			Name: "the fleet's programs", How: "built from this checkout", Takes: 100 * time.Second,
		})
	}
	return append(report, doctor.FirstUp(missing))
}

func (f *Fleet) examineConsul(ctx context.Context) doctor.Report {
	leader, err := f.consul.Status().LeaderWithQueryOptions((&consul.QueryOptions{}).WithContext(ctx))
	report := doctor.Report{doctor.Leader("consul", leader, err)}
	if err != nil {
		return report
	}
	list, err := catalog.Read(ctx, f.consul)
	if err != nil {
		return append(report, doctor.NotChecked("services", err.Error()))
	}
	registered := map[string]bool{}
	for _, i := range list {
		registered[i.Service] = true
		var critical, warning []string
		for _, c := range i.Failing() {
			if c.Status == "warning" {
				warning = append(warning, catalog.ShortCheck(c))
			} else {
				critical = append(critical, catalog.ShortCheck(c))
			}
		}
		if i.Service == "consul" {
			continue // examined above; it registers itself without a check
		}
		id := cmp.Or(job.ShortID(i.ID), i.Address) // Nomad's own entries have no instance
		report = append(report, doctor.Instance(i.Service, id, len(i.Checks), critical, warning))
	}
	for _, j := range job.All() {
		if !j.Batch && !registered[j.Name] {
			report = append(report, doctor.Missing(j.Name))
		}
	}
	return report
}

var capacityDefault = regexp.MustCompile(`(?s)variable "capacity" \{.*?default\s*=\s*(\d+)`)

// handshakes is how many connections a chat server accepts beyond its capacity
// before they have sent their Hello; see chat/internal/conn.
const handshakes = 2048

// examineChat compares the capacity with the limits of open files of the running
// chat servers, or of those that would be started from here.
func (f *Fleet) examineChat(ctx context.Context) doctor.Report {
	capacity, err := f.capacity(ctx)
	if err != nil {
		return doctor.Report{doctor.NotChecked("open files", err.Error())}
	}
	var report doctor.Report
	for _, p := range process.Tasks(f.dir.Path()) {
		if filepath.Base(p.Args[0]) != "chat" {
			continue
		}
		check := fmt.Sprintf("open files of chat %d", p.PID)
		limit, err := machine.OpenFiles(p.PID)
		report = append(report, orNot(check, err, doctor.Files(check, limit, capacity, handshakes)))
	}
	if len(report) == 0 {
		limit, err := machine.OpenFiles(0)
		report = append(report, orNot("open files", err, doctor.Files("open files", limit, capacity, handshakes)))
	}
	return report
}

// capacity is that of the running job, or the job file's default.
func (f *Fleet) capacity(ctx context.Context) (uint64, error) {
	chat, err := f.jobInfo(ctx, "chat")
	if err == nil {
		for _, group := range chat.TaskGroups {
			for _, task := range group.Tasks {
				if text := task.Env["MSRCHAT_CAPACITY"]; text != "" {
					return strconv.ParseUint(text, 10, 64)
				}
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(f.root, job.Job{Name: "chat"}.File()))
	if err != nil {
		return 0, fmt.Errorf("capacity of chat: %w", err)
	}
	match := capacityDefault.FindSubmatch(text)
	if match == nil {
		return 0, fmt.Errorf("capacity of chat: not found in %s", job.Job{Name: "chat"}.File())
	}
	return strconv.ParseUint(string(match[1]), 10, 64)
}

// queryDatabase runs one query with the database's own client, which needs no
// password over the socket.
func (f *Fleet) queryDatabase(ctx context.Context, query string) ([]string, error) {
	client, err := lookPath("mariadb")
	if err != nil {
		return nil, err
	}
	output, err := f.inFolder(ctx, filepath.Join(f.dir.Data(), "mysql"), client,
		"--no-defaults", "--connect-timeout=2", "--socket=./mysql.sock", "-Nre", query)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(output), "\t"), nil
}
