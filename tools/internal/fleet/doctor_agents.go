package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/doctor"
	"github.com/msrchat/msrchat/tools/internal/machine"
)

func (f *Fleet) examineNomad(ctx context.Context) doctor.Report {
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	var leader string
	_, err := f.nomad.Raw().Query("/v1/status/leader", &leader, query) // Status().Leader takes no context
	report := doctor.Report{doctor.Leader("nomad", leader, err)}
	if err != nil {
		return report
	}
	nodes, _, err := f.nomad.Nodes().List(query)
	if err != nil {
		return append(report, doctor.NotChecked("nodes", err.Error()))
	}
	for _, n := range nodes {
		driver := n.Drivers["raw_exec"]
		eligible := n.SchedulingEligibility == nomad.NodeSchedulingEligible
		report = append(report, doctor.Node(n.Name, n.Status, eligible, driver != nil && driver.Healthy))
	}
	report = append(report, f.agentClock(ctx))
	return append(report, f.examineTimeouts(ctx)...)
}

// agentClock compares the clock of Nomad's machine with this one's.
func (f *Fleet) agentClock(ctx context.Context) doctor.Finding {
	const check = "nomad's machine"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.nomadURL()+"/v1/status/leader", http.NoBody)
	if err != nil {
		return doctor.NotChecked("clock of "+check, err.Error())
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return doctor.NotChecked("clock of "+check, err.Error())
	}
	defer response.Body.Close()
	there, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return doctor.NotChecked("clock of "+check, err.Error())
	}
	return doctor.Skew(check, time.Until(there), time.Second) // the header has only seconds
}

// examineTimeouts compares every task's kill_timeout with what the node allows.
func (f *Fleet) examineTimeouts(ctx context.Context) doctor.Report {
	const check = "kill timeouts"
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	var self nomad.AgentSelf
	if _, err := f.nomad.Raw().Query("/v1/agent/self", &self, query); err != nil {
		return doctor.Report{doctor.NotChecked(check, err.Error())}
	}
	allowed, err := maxKillTimeout(self.Config)
	if err != nil {
		return doctor.Report{doctor.NotChecked(check, err.Error())}
	}
	list, _, err := f.nomad.Jobs().List(query)
	if err != nil {
		return doctor.Report{doctor.NotChecked(check, err.Error())}
	}
	var report doctor.Report
	for _, stub := range list {
		info, err := f.jobInfo(ctx, stub.ID)
		if err != nil {
			report = append(report, doctor.NotChecked("kill timeout of "+stub.ID, err.Error()))
			continue
		}
		for _, group := range info.TaskGroups {
			for _, task := range group.Tasks {
				// A task that runs to its end is usually not killed.
				if task.KillTimeout != nil && (task.Lifecycle == nil || task.Lifecycle.Sidecar) {
					report = append(report, doctor.KillTimeout(task.Name, *task.KillTimeout, allowed))
				}
			}
		}
	}
	return report
}

// maxKillTimeout reads the setting from an agent's configuration.
func maxKillTimeout(config map[string]any) (time.Duration, error) {
	const byDefault = 30 * time.Second
	client, ok := config["Client"].(map[string]any)
	if !ok {
		return 0, errors.New("the agent does not show its configuration")
	}
	text, ok := client["MaxKillTimeout"].(string)
	if !ok || text == "" {
		return byDefault, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("max_kill_timeout: %w", err)
	}
	return d, nil
}

func (f *Fleet) jobInfo(ctx context.Context, name string) (*nomad.Job, error) {
	info, _, err := f.nomad.Jobs().Info(name, (&nomad.QueryOptions{}).WithContext(ctx))
	return info, err
}

const databaseQuery = `SELECT VERSION(),
	@@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_bin, @@GLOBAL.sync_binlog,
	@@GLOBAL.innodb_flush_method, @@GLOBAL.innodb_doublewrite, UNIX_TIMESTAMP(NOW(6))`

// examineDatabase queries the database that runs in the fleet's folder.
func (f *Fleet) examineDatabase(ctx context.Context) doctor.Report {
	const check = "durability"
	if _, err := os.Stat(filepath.Join(f.dir.Data(), "mysql", "mysql.sock")); err != nil {
		return doctor.Report{doctor.NotChecked(check, "the database does not run here")}
	}
	asked := time.Now()
	answer, err := f.queryDatabase(ctx, databaseQuery)
	took := time.Since(asked)
	if err != nil {
		return doctor.Report{doctor.NotChecked(check, err.Error())}
	}
	db, clock, err := parseDatabase(answer)
	if err != nil {
		return doctor.Report{doctor.NotChecked(check, err.Error())}
	}
	if text, err := os.ReadFile(filepath.Join(f.dir.Data(), "mysql", "mysql.pid")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			db.Preloaded, _ = machine.Preloaded(pid) // if it cannot be read, it is not known
		}
	}
	version, _, _ := strings.Cut(db.Version, "-")
	running := doctor.Program{Name: "mysql that runs", Minimum: "8.4", Path: db.Version, Version: version}
	if strings.Contains(db.Version, "MariaDB") {
		running.Minimum = "10.11"
	}
	return doctor.Report{running.Judge(), db.Durable(), doctor.Skew("mysql", clock.Sub(asked), took)}
}

// parseDatabase parses the answer to databaseQuery.
func parseDatabase(answer []string) (doctor.Database, time.Time, error) {
	const fields = 7
	if len(answer) != fields {
		return doctor.Database{}, time.Time{}, fmt.Errorf("the database answered %d values instead of %d",
			len(answer), fields)
	}
	flush, err1 := strconv.Atoi(answer[1])
	sync, err2 := strconv.Atoi(answer[3])
	at, err3 := strconv.ParseFloat(answer[6], 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return doctor.Database{}, time.Time{}, fmt.Errorf("the database's answer: %w", err)
	}
	return doctor.Database{
		Version: answer[0], Flush: flush, Binlog: answer[2] != "0", SyncBinlog: sync,
		FlushMethod: answer[4], Doublewrite: answer[5] != "0" && answer[5] != "OFF",
	}, time.UnixMicro(int64(at * 1e6)), nil
}

// inFolder runs a program in a folder and returns its output.
func (f *Fleet) inFolder(ctx context.Context, folder, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = folder
	output, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(output), err
}
