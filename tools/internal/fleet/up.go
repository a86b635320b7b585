package fleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/agent"
	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/release"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

// agentsLimit bounds the start of Consul and Nomad, ten times the three seconds
// that each takes on an idle machine.
const agentsLimit = 60 * time.Second

// Up starts the named services, or all without names, and returns when all
// their checks pass. It may be repeated: what runs and is unchanged is left
// alone. limit bounds the start of the services, without building them. When
// ctx ends early, what was started keeps running, and Up or Down continue from
// there.
func (f *Fleet) Up(ctx context.Context, names []string, limit time.Duration) error {
	start := time.Now()
	jobs, err := job.Select(names)
	if err != nil {
		return err
	}
	unlock, err := f.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	nomadProgram, built, err := f.prepare(ctx, state.ByUp, jobs, len(names) == 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	runner := job.Runner{
		Program: nomadProgram,
		Root:    f.root,
		Address: f.nomadURL(),
		Vars:    job.LocalVars(f.dir, f.ports, built.Folder),
		Client:  f.nomad,
	}
	submitted, err := f.runStages(ctx, runner, built, jobs)
	if err != nil {
		return err
	}
	if err := f.await(ctx, submitted, deployed); err != nil {
		return err
	}
	_ = f.builder().Prune(programs(), f.foldersInUse(ctx)...) // if it fails, old builds stay
	f.printf("\n")
	if err := f.List(ctx); err != nil {
		return err
	}
	f.printf("\nThe fleet is up, after %s.\n\n", seconds(time.Since(start)))
	f.howTo(jobs, "./justw down")
	return nil
}

// Build compiles the programs of all jobs.
func (f *Fleet) Build(ctx context.Context) (release.Release, error) {
	return f.build(ctx, job.All(), false)
}

// Deploy creates the secrets, runs all jobs on running agents, and returns when
// every check passes. of has the jobs' variables that differ from the local
// fleet's, by job.
func (f *Fleet) Deploy(ctx context.Context, nomadProgram string, built release.Release, of map[string]job.Vars) error {
	if err := f.ensureSecrets(ctx); err != nil {
		return err
	}
	runner := job.Runner{
		Program: nomadProgram, Root: f.root, Address: f.nomadURL(), Client: f.nomad,
		Vars: job.LocalVars(f.dir, f.ports, built.Folder), Of: of,
	}
	submitted, err := f.runStages(ctx, runner, built, job.All())
	if err != nil {
		return err
	}
	return f.await(ctx, submitted, deployed)
}

// prepare claims the fleet, starts the agents, builds the programs and, for Up,
// creates the secrets, so that jobs can run.
func (f *Fleet) prepare(
	ctx context.Context, manager string, jobs []job.Job, withClient bool,
) (nomadProgram string, built release.Release, err error) {
	consulProgram, nomadProgram, err := lookTools()
	if err != nil {
		return "", release.Release{}, err
	}
	before, err := f.dir.Manager()
	if err != nil {
		return "", release.Release{}, err
	}
	if err := f.dir.Claim(manager); err != nil {
		return "", release.Release{}, err
	}
	if lines := f.ports.Conflicts(f.holder); len(lines) > 0 {
		if before == "" { // nothing was started
			_ = f.dir.Remove(false)
		}
		return "", release.Release{}, portsTaken(lines, f.ports.Elsewhere())
	}
	if err := f.dir.SetPortBase(f.ports.Base()); err != nil {
		return "", release.Release{}, err
	}
	type buildResult struct {
		release.Release
		err error
	}
	building := make(chan buildResult, 1) // buffered, because an error below leaves it unread
	go func() {
		r, err := f.build(ctx, jobs, withClient)
		building <- buildResult{r, err}
	}()
	if err := f.startAgents(ctx, consulProgram, nomadProgram); err != nil {
		return "", release.Release{}, err
	}
	if manager == state.ByUp { // Terraform creates its own
		if err := f.ensureSecrets(ctx); err != nil {
			return "", release.Release{}, err
		}
	}
	tick := time.NewTicker(repeatEvery)
	defer tick.Stop()
	for start := time.Now(); ; {
		select {
		case result := <-building:
			return nomadProgram, result.Release, result.err
		case <-tick.C:
			f.printf("  … building the programs (%.0f s)\n", time.Since(start).Seconds())
		}
	}
}

// portsTaken says which programs hold the ports, and what to do.
func portsTaken(lines []string, elsewhere int) error {
	const shown = 3 // the rest is usually the same program: another fleet
	if more := len(lines) - shown; more > 0 {
		lines = append(lines[:shown:shown], fmt.Sprintf("and %d more ports", more))
	}
	return fmt.Errorf(
		"the fleet's ports are not free:\n  %s\nend that program, or use other ports, for example with %s=%d",
		strings.Join(lines, "\n  "), ports.EnvBase, elsewhere,
	)
}

// build compiles the programs of the jobs, and the client on request.
func (f *Fleet) build(ctx context.Context, jobs []job.Job, withClient bool) (release.Release, error) {
	wanted := map[string]bool{}
	for _, j := range jobs {
		for _, program := range j.Programs() {
			wanted[program] = true
		}
	}
	var services []release.Package
	for _, p := range release.Services() {
		if wanted[p.Program()] {
			services = append(services, p)
		}
	}
	if len(services) == 0 {
		return release.Release{Folder: f.dir.Bin()}, nil
	}
	var others []release.Package
	if withClient {
		others = append(others, release.Client)
	}
	start := time.Now()
	r, err := f.builder().Build(ctx, services, others...)
	if err != nil {
		return r, err
	}
	f.printf("  programs built, release %s (%s)\n", r.Label, seconds(time.Since(start)))
	return r, nil
}

func (f *Fleet) startAgents(ctx context.Context, consulProgram, nomadProgram string) error {
	ctx, cancel := context.WithTimeout(ctx, agentsLimit)
	defer cancel()
	agents := f.agents(f.ports.Reserved(f.holder))
	consulAgent, nomadAgent := agents[0], agents[1]

	if err := f.startAgent(consulAgent, consulProgram, func(p process.Process) error {
		return consulAgent.AwaitConsul(ctx, p, f.consul)
	}); err != nil {
		return err
	}
	if first, needed := agent.NomadFirst(f.dir, f.ports, agent.Local()); needed {
		p, err := first.Start(nomadProgram)
		if err != nil {
			return err
		}
		if err := first.AwaitKeys(ctx, p, f.nomad); err != nil {
			return err
		}
		if err := first.Stop(ctx); err != nil {
			return err
		}
	}
	return f.startAgent(nomadAgent, nomadProgram, func(p process.Process) error {
		return nomadAgent.AwaitNomad(ctx, p, f.nomad)
	})
}

func (f *Fleet) startAgent(a agent.Agent, program string, await func(process.Process) error) error {
	start := time.Now()
	_, ran, err := a.Process()
	if err != nil {
		return err
	}
	p, err := a.Start(program)
	if err != nil {
		return err
	}
	if err := await(p); err != nil {
		return err
	}
	if ran {
		f.printf("  %s runs already (pid %d)\n", a.Name(), p.PID)
	} else {
		f.printf("  %s runs (pid %d, %s)\n", a.Name(), p.PID, seconds(time.Since(start)))
	}
	return nil
}

// secretsPath is a Nomad variable that every job may read without a policy.
const secretsPath = "nomad/jobs"

// ensureSecrets creates the secrets that the services share, once: the
// database's password, the key of the gates' codes, and Redis's password unless
// Redis is on loopback, because without one it accepts only local connections.
// They are stored only in Nomad. The mysql job sets the database's password at
// each start, so a fleet that was taken down gets a new one.
func (f *Fleet) ensureSecrets(ctx context.Context) error {
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	variable, _, err := f.nomad.Variables().Peek(secretsPath, query)
	if err != nil {
		return fmt.Errorf("read nomad variable %s: %w", secretsPath, err)
	}
	if variable == nil {
		variable = &nomad.Variable{Path: secretsPath, Items: nomad.VariableItems{}}
	}
	complete := true
	keys := []string{"mysql_password", "code_secret"}
	if f.host != loopback {
		keys = append(keys, "redis_password")
	}
	for _, key := range keys {
		if variable.Items[key] != "" {
			continue
		}
		complete = false
		secret := make([]byte, 32)
		rand.Read(secret) // never fails: see its documentation
		variable.Items[key] = hex.EncodeToString(secret)
	}
	if complete {
		return nil
	}
	// Checked against the index that was read, so that no other change is lost.
	if _, _, err = f.nomad.Variables().CheckedUpdate(variable, (&nomad.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("write nomad variable %s: %w", secretsPath, err)
	}
	return nil
}

// Secret reads one of them.
func (f *Fleet) Secret(ctx context.Context, key string) (string, error) {
	variable, _, err := f.nomad.Variables().Read(secretsPath, (&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("read nomad variable %s: %w", secretsPath, err)
	}
	return variable.Items[key], nil
}

// runStages submits the jobs stage by stage.
func (f *Fleet) runStages(
	ctx context.Context, runner job.Runner, built release.Release, jobs []job.Job,
) ([]job.Submitted, error) {
	var submitted []job.Submitted
	for i, j := range jobs {
		if i > 0 && j.Stage > jobs[i-1].Stage {
			if err := f.await(ctx, submitted, passing); err != nil {
				return nil, err
			}
		}
		binDir, err := f.binDir(j, built)
		if err != nil {
			return nil, err
		}
		f.printf("  nomad job run %s\n", j.File())
		s, err := runner.Run(ctx, j, job.Vars{"bin_dir": binDir})
		if err != nil {
			return nil, err
		}
		submitted = append(submitted, s)
	}
	return submitted, nil
}

// binDir is the folder that a job of a release runs from.
func (f *Fleet) binDir(j job.Job, built release.Release) (string, error) {
	if j.Program == "" {
		return built.Folder, nil
	}
	return f.builder().FolderOf(j.Program, built, j.Programs()[1:]...)
}

// foldersInUse are those from which Nomad may start a program, now or when it
// rolls back to an earlier version of a job.
func (f *Fleet) foldersInUse(ctx context.Context) (folders []string) {
	for _, j := range job.All() {
		versions, _, _, err := f.nomad.Jobs().Versions(j.Name, false, (&nomad.QueryOptions{}).WithContext(ctx))
		if err != nil {
			continue // there is no such job
		}
		for _, version := range versions {
			for _, group := range version.TaskGroups {
				for _, task := range group.Tasks {
					if command, ok := task.Config["command"].(string); ok {
						folders = append(folders, filepath.Dir(command))
					}
				}
			}
		}
	}
	return folders
}

func programs() []string {
	var names []string
	for _, p := range release.Services() {
		names = append(names, p.Program())
	}
	return names
}

// howTo prints what to do with a whole fleet, and how to take it down.
func (f *Fleet) howTo(jobs []job.Job, takeDown string) {
	f.printf("Gate %s   Consul http://%s/ui   Nomad %s\n", f.gateURL(), f.consulAddr(), f.nomadURL())
	if len(jobs) < len(job.All()) {
		return
	}
	f.printf(`
To chat, in one terminal (and the same as ben in another):
  ./justw chat --profile anna code anna@example.org
  ./justw mail anna@example.org                      # shows the code
  ./justw chat --profile anna register --email anna@example.org --name anna --code CODE
  ./justw chat --profile anna                        # the terminal program
Also: ./justw ps, ./justw logs SERVICE, %s.
`, takeDown)
}
