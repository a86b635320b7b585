package doctor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/msrchat/msrchat/tools/internal/doctor"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// The verdicts of each check. A warning or a failure says what to do.
func TestVerdicts(t *testing.T) {
	sound := doctor.Database{Version: "10.11.6-MariaDB", Flush: 1, FlushMethod: "O_DIRECT", Doublewrite: true}
	database := func(change func(*doctor.Database)) doctor.Finding {
		d := sound
		change(&d)
		return d.Durable()
	}
	program := func(version string) doctor.Finding {
		return doctor.Program{
			Name:    "nomad",
			Minimum: "1.10.0",
			Path:    "/bin/nomad",
			Version: version,
			Brought: "./justw up",
		}.Judge()
	}
	for name, tc := range map[string]struct {
		finding doctor.Finding
		want    doctor.Verdict
		says    string // in what was found or what to do
	}{
		"root":                 {doctor.Privileges(true), doctor.OK, ""},
		"not root":             {doctor.Privileges(false), doctor.Fail, "sudo"},
		"cgroups 2":            {doctor.Cgroups(2, true), doctor.OK, "version 2"},
		"no cgroups":           {doctor.Cgroups(0, false), doctor.Fail, "mount"},
		"cgroups read-only":    {doctor.Cgroups(1, false), doctor.Fail, "read-only"},
		"memory to come up":    {doctor.Memory(2*gib, false), doctor.OK, "2048 MiB"},
		"memory is tight":      {doctor.Memory(1500*mib, false), doctor.Warn, "1500 MiB"},
		"memory is too little": {doctor.Memory(900*mib, false), doctor.Fail, ""},
		"up: 600 MiB left":     {doctor.Memory(600*mib, true), doctor.OK, ""},
		"up: 200 MiB left":     {doctor.Memory(200*mib, true), doctor.Warn, ""},
		"up: no memory left":   {doctor.Memory(100*mib, true), doctor.Fail, ""},
		"disk":                 {doctor.Disk("/x", 5*gib), doctor.OK, "5.0 GiB"},
		"disk is tight":        {doctor.Disk("/x", 2*gib), doctor.Warn, "MSRCHAT_STATE"},
		"disk is full":         {doctor.Disk("/x", gib-1), doctor.Fail, ""},

		"ext4": {
			doctor.FileSystem{Folder: "/x", Type: "ext4", Options: []string{"rw"}}.Durable(), doctor.OK, "ext4",
		},
		"tmpfs": {doctor.FileSystem{Folder: "/x", Type: "tmpfs"}.Durable(), doctor.Fail, "memory"},
		"no barriers": {
			doctor.FileSystem{Folder: "/x", Type: "ext4", Options: []string{"rw", "nobarrier"}}.Durable(),
			doctor.Fail, "nobarrier",
		},
		"nfs": {doctor.FileSystem{Folder: "/x", Type: "nfs4"}.Durable(), doctor.Warn, "storage behind it"},
		"fuse.sshfs": {
			doctor.FileSystem{Folder: "/x", Type: "fuse.sshfs"}.Durable(), doctor.Warn, "storage behind it",
		},
		"fuseblk":       {doctor.FileSystem{Folder: "/x", Type: "fuseblk"}.Durable(), doctor.OK, ""},
		"a disk syncs":  {doctor.Sync(200 * time.Microsecond), doctor.OK, "200µs"},
		"nothing syncs": {doctor.Sync(2 * time.Microsecond), doctor.Warn, "libeatmydata"},

		"clock":                {doctor.Clock(true), doctor.OK, ""},
		"clock runs free":      {doctor.Clock(false), doctor.Warn, "chrony"},
		"same time":            {doctor.Skew("mysql", 3*time.Millisecond, 10*time.Millisecond), doctor.OK, "within"},
		"a second ahead":       {doctor.Skew("mysql", time.Second, 0), doctor.OK, "+1.0 s"},
		"within the precision": {doctor.Skew("mysql", 2500*time.Millisecond, time.Second), doctor.OK, ""},
		"five seconds behind":  {doctor.Skew("mysql", -5*time.Second, time.Second), doctor.Warn, "-5.0 s"},
		"a minute ahead":       {doctor.Skew("mysql", time.Minute, 0), doctor.Fail, "routes"},
		"new enough":           {program("1.10.0"), doctor.OK, "1.10.0"},
		"newer":                {program("1.11.3"), doctor.OK, ""},
		"two digits count":     {program("1.9.9"), doctor.Fail, "at least 1.10.0"},
		"shorter":              {program("1.10"), doctor.OK, ""},
		"says nothing":         {program(""), doctor.Warn, "does not report"},
		"missing": {
			doctor.Program{Name: "nomad", Minimum: "1.10.0", Brought: "./justw up builds it"}.Judge(), doctor.Warn,
			"./justw up",
		},
		"missing, not needed": {
			doctor.Program{Name: "terraform", Minimum: "1.11", Purpose: "./justw apply"}.Judge(), doctor.Unchecked,
			"./justw apply",
		},
		"all is here": {doctor.FirstUp(nil), doctor.OK, "under a minute"},
		"packages are missing": {
			doctor.FirstUp([]doctor.Part{{Name: "redis-server", How: "by apt-get", Takes: 4 * time.Second}}), doctor.OK,
			"redis-server by apt-get (4 s); on two cores about 4 s",
		},
		"Consul is missing": {
			doctor.FirstUp([]doctor.Part{
				{Name: "consul", How: "from its sources", Takes: 446 * time.Second},
				{Name: "the programs", How: "of this checkout", Takes: 100 * time.Second},
			}), doctor.Warn,
			"consul from its sources (7 min), the programs of this checkout (2 min); on two cores about 9 min",
		},
		"files suffice":         {doctor.Files("open files", 20504, 18200, 2048), doctor.OK, ""},
		"handshakes do not fit": {doctor.Files("open files", 20000, 18200, 2048), doctor.Warn, "17696"},
		"capacity does not fit": {doctor.Files("open files", 18300, 18200, 2048), doctor.Fail, "15996"},
		"hardly any files":      {doctor.Files("open files", 256, 18200, 2048), doctor.Fail, "to 1"},
		"durable":               {database(func(*doctor.Database) {}), doctor.OK, "doublewrite on"},
		"flush 2": {
			database(func(d *doctor.Database) { d.Flush = 2 }), doctor.Fail, "innodb_flush_log_at_trx_commit=1",
		},
		"binlog not synced": {
			database(func(d *doctor.Database) { d.Binlog, d.SyncBinlog = true, 0 }), doctor.Fail, "sync_binlog=1",
		},
		"binlog synced": {
			database(func(d *doctor.Database) { d.Binlog, d.SyncBinlog = true, 1 }), doctor.OK, "sync_binlog=1",
		},
		"flush method": {
			database(func(d *doctor.Database) { d.FlushMethod = "nosync" }), doctor.Fail, "O_DIRECT",
		},
		"eats data": {
			database(func(d *doctor.Database) { d.Preloaded = "libeatmydata" }), doctor.Fail, "libeatmydata",
		},
		"no doublewrite": {
			database(func(d *doctor.Database) { d.Doublewrite = false }), doctor.Warn, "innodb_doublewrite",
		},
		"kill timeout": {doctor.KillTimeout("chat", 30*time.Second, 30*time.Second), doctor.OK, ""},
		"kill timeout is cut": {
			doctor.KillTimeout("mysql", 2*time.Minute, 30*time.Second), doctor.Fail, "max_kill_timeout",
		},
		"ports are free": {doctor.Ports(nil, 7700), doctor.OK, "7700"},
		"a port is taken": {
			doctor.Ports([]string{"port 7720 (mysql) is taken by pid 1"}, 7700), doctor.Fail,
			"MSRCHAT_PORT_BASE=8700",
		},
		"down":                   {doctor.Agents(false, false, "", nil), doctor.Unchecked, "down"},
		"up":                     {doctor.Agents(true, true, "up", nil), doctor.OK, "up"},
		"Nomad died":             {doctor.Agents(true, false, "up", nil), doctor.Fail, "./justw logs nomad"},
		"Consul died, terraform": {doctor.Agents(false, true, "terraform", nil), doctor.Fail, "./justw apply local"},
		"leftovers": {
			doctor.Agents(false, false, "", []string{"pid 7 (chat)"}), doctor.Fail, "./justw down",
		},
		"started, died":       {doctor.Agents(false, false, "up", nil), doctor.Fail, "./justw up"},
		"leader":              {doctor.Leader("consul", "127.0.0.1:7703", nil), doctor.OK, "7703"},
		"no leader":           {doctor.Leader("consul", "", nil), doctor.Fail, "no leader"},
		"does not answer":     {doctor.Leader("nomad", "", errors.New("refused")), doctor.Fail, "refused"},
		"node":                {doctor.Node("n1", "ready", true, true), doctor.OK, ""},
		"node is away":        {doctor.Node("n1", "down", true, true), doctor.Fail, "down"},
		"node without driver": {doctor.Node("n1", "ready", true, false), doctor.Fail, "raw_exec"},
		"node is drained":     {doctor.Node("n1", "ready", false, true), doctor.Warn, "eligibility"},
		"passes":              {doctor.Instance("chat", "ab", 3, nil, nil), doctor.OK, "3 checks"},
		"critical": {
			doctor.Instance("chat", "ab", 3, []string{"ready (refused)"}, []string{"slow"}), doctor.Fail, "refused",
		},
		"warning":        {doctor.Instance("chat", "ab", 3, nil, []string{"slow"}), doctor.Warn, "slow"},
		"no check":       {doctor.Instance("chat", "ab", 0, nil, nil), doctor.Warn, "no check"},
		"not registered": {doctor.Missing("gate"), doctor.Fail, "./justw logs gate"},
	} {
		t.Run(name, func(t *testing.T) {
			f := tc.finding
			if f.Verdict != tc.want {
				t.Errorf("%+v: want %s", f, tc.want)
			}
			if !strings.Contains(f.Found+"\n"+f.Todo, tc.says) {
				t.Errorf("%+v: does not say %q", f, tc.says)
			}
			if bad := f.Verdict == doctor.Warn || f.Verdict == doctor.Fail; bad != (f.Todo != "") {
				t.Errorf("%+v: only a warning or a failure says what to do", f)
			}
			if f.Check == "" || f.Found == "" {
				t.Errorf("%+v: lacks a name or what was found", f)
			}
		})
	}
}

func TestReport(t *testing.T) {
	report := doctor.Report{
		{Check: "a", Verdict: doctor.OK, Found: "fine"},
		{Check: "b", Verdict: doctor.Fail, Found: "two\nlines", Todo: "repair it"},
		doctor.NotChecked("c", "no way"),
	}
	var table, text bytes.Buffer
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"b      FAIL         two lines\n", "what to do: repair it", "1 ok, 0 warnings, 1 failed, 1 not checked",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	if err := report.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var back doctor.Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil || len(back) != len(report) || back[1] != report[1] {
		t.Errorf("%v, %v from\n%s", back, err, text.String())
	}
}
