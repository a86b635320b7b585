// Package job runs the job files in nomad/ on a local fleet's Nomad and watches
// their progress.
package job

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/state"
)

// Job is one of the fleet's jobs. Its file is nomad/NAME.nomad.hcl, and a
// service job registers under NAME in Consul.
type Job struct {
	Name    string
	Program string // in bin_dir; empty for a program of the system
	Beside  string // another program that the job needs there, if any
	Batch   bool   // runs once and ends
	Stage   int    // jobs of a stage start together, once the stage before is ready
}

// LastStage is the stage of the services; the earlier ones are their
// dependencies.
const LastStage = 3

// All lists the jobs in the order in which they start. No job needs another one
// of the same or a later stage.
func All() []Job {
	return []Job{
		{Name: "mysql", Stage: 1},
		{Name: "redis", Stage: 1},
		{Name: "mail", Program: "mailbox", Stage: 1},
		{Name: "migrate", Program: "migrate", Batch: true, Stage: 2},
		{Name: "status", Program: "status", Stage: LastStage},
		{Name: "chat", Program: "chat", Beside: "probe", Stage: LastStage},
		{Name: "gate", Program: "gate", Stage: LastStage},
	}
}

// Programs are the programs in bin_dir that the job runs.
func (j Job) Programs() []string {
	return slices.DeleteFunc([]string{j.Program, j.Beside}, func(name string) bool { return name == "" })
}

// Select returns the named jobs, or all without names, in starting order.
func Select(names []string) ([]Job, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(j Job) bool { return j.Name == name }) {
			return nil, fmt.Errorf("there is no service %q, only %s", name, strings.Join(Names(all), ", "))
		}
	}
	return slices.DeleteFunc(all, func(j Job) bool { return !slices.Contains(names, j.Name) }), nil
}

// Names returns the names of the jobs.
func Names(jobs []Job) []string {
	names := make([]string, len(jobs))
	for i, j := range jobs {
		names[i] = j.Name
	}
	return names
}

// File is the path of the job file below the checkout.
func (j Job) File() string { return filepath.Join("nomad", j.Name+".nomad.hcl") }

// Vars are values of HCL2 variables by name.
type Vars map[string]string

// LocalVars are the values that make the job files run on the local fleet. No
// two job files use one name for different things, so one set serves all.
func LocalVars(dir state.Dir, table ports.Table, binDir string) Vars {
	local := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	return Vars{
		"bin_dir":     binDir,
		"data_dir":    dir.Data(),
		"gate_port":   fmt.Sprint(table.Gate()),
		"mysql_port":  fmt.Sprint(table.MySQL()),
		"redis_port":  fmt.Sprint(table.Redis()),
		"smtp_port":   fmt.Sprint(table.MailSMTP()),
		"mail_port":   fmt.Sprint(table.MailHTTP()),
		"consul_addr": local(table.ConsulHTTP()),
		"mysql_addr":  local(table.MySQL()),
		"redis_addr":  local(table.Redis()),
		"smtp_addr":   local(table.MailSMTP()),
	}
}

var declaration = regexp.MustCompile(`(?m)^variable "([a-z0-9_]+)"`)

// Declared returns those of vars that the job's file declares.
func (j Job) Declared(root string, vars Vars) (Vars, error) {
	text, err := os.ReadFile(filepath.Join(root, j.File()))
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", j.Name, err)
	}
	declared := Vars{}
	for _, match := range declaration.FindAllSubmatch(text, -1) {
		if value, ok := vars[string(match[1])]; ok {
			declared[string(match[1])] = value
		}
	}
	return declared, nil
}

// Environ is the values as environment variables for Nomad's command line,
// sorted.
func (v Vars) Environ() []string {
	var env []string
	for _, name := range slices.Sorted(maps.Keys(v)) {
		env = append(env, "NOMAD_VAR_"+name+"="+v[name])
	}
	return env
}

// Runner submits jobs with Nomad's own command line, so that people can do the
// same by hand.
type Runner struct {
	Program string // the nomad program
	Root    string // the checkout
	Address string // of the agent, http://…
	Vars    Vars
	Of      map[string]Vars // additional or other values, by job; may be nil
	Client  *nomad.Client
}

// Submitted is a job that Nomad accepted.
type Submitted struct {
	Job
	Version uint64
	Release string // meta "release", "" for a job without a program of ours
}

// Run submits the job and returns without waiting for its deployment. A job
// that Nomad already has in this form stays as it is. The changes take
// precedence over the runner's variables.
func (r Runner) Run(ctx context.Context, j Job, changes Vars) (Submitted, error) {
	args := []string{"job", "run", "-detach"}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		if value, ok := r.Vars[name]; !ok || value != changes[name] {
			args = append(args, "-var", name+"="+changes[name])
		}
	}
	cmd := exec.CommandContext(ctx, r.Program, append(args, j.File())...)
	cmd.Dir = r.Root
	vars := maps.Clone(r.Vars)
	maps.Copy(vars, r.Of[j.Name])
	cmd.Env = append(r.cliEnv(), vars.Environ()...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return Submitted{}, fmt.Errorf("nomad job run %s: %w\n%s", j.File(), err, strings.TrimSpace(string(output)))
	}
	return j.Running(ctx, r.Client)
}

// Running returns the job as Nomad has it now.
func (j Job) Running(ctx context.Context, client *nomad.Client) (Submitted, error) {
	info, _, err := client.Jobs().Info(j.Name, (&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return Submitted{}, fmt.Errorf("job %s: %w", j.Name, err)
	}
	return Submitted{Job: j, Version: *info.Version, Release: info.Meta["release"]}, nil
}

// cliEnv is the caller's environment without variables that would point Nomad's
// command line at another cluster.
func (r Runner) cliEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "NOMAD_") })
	return append(env, "NOMAD_ADDR="+r.Address, "NOMAD_CLI_SHOW_HINTS=false")
}
