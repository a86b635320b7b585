package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/release"
	"github.com/msrchat/msrchat/tools/state"
)

// Upgrade says which service gets which version.
type Upgrade struct {
	Service string
	// Version is a git ref of the checkout, a folder with programs, or "" and "."
	// for the working tree.
	Version string
	// Set are variables of the job file to change; the others stay as in the
	// running job.
	Set job.Vars
	// Limit bounds the wait for the deployment.
	Limit time.Duration
}

// upgradable are the services with programs of ours.
var upgradable = []string{"chat", "gate", "status"}

// Errors of Upgrade that a caller tells apart.
var (
	// ErrNoService: the service cannot be upgraded this way; the text says what
	// to do.
	ErrNoService = errors.New("cannot be upgraded")
	// ErrRolledBack: the new version failed, and the previous one runs.
	ErrRolledBack = errors.New("rolled back")
	// ErrLeft: the caller was interrupted during the deployment.
	ErrLeft = errors.New("left")
)

// Upgrade deploys another version of a service of the running fleet and follows
// the deployment until the new instances are promoted and the old ones are
// gone.
func (f *Fleet) Upgrade(ctx context.Context, u Upgrade) error {
	start := time.Now()
	j, err := f.admitUpgrade(u.Service)
	if err != nil {
		return err
	}
	unlock, err := f.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	built, err := f.obtain(ctx, j, u.Version)
	if err != nil {
		return err
	}
	_, nomadProgram, err := lookTools()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.Limit)
	defer cancel()
	runner := job.Runner{Program: nomadProgram, Root: f.root, Address: f.nomadURL(), Client: f.nomad}
	if err := f.migrateFirst(ctx, runner, built); err != nil {
		return err
	}
	before, err := j.Running(ctx, f.nomad)
	if err != nil {
		return err
	}
	changes, err := f.plan(ctx, &runner, j, built, u.Set)
	if err != nil {
		return err
	}
	newRelease := cmp.Or(changes["release"], filepath.Base(changes["bin_dir"]))
	f.printf("  nomad job run %s, release %s after %s\n", j.File(), newRelease, before.Release)
	after, err := runner.Run(ctx, j, changes)
	if err != nil {
		return err
	}
	if after.Version == before.Version {
		f.printf("%s already runs release %s with these variables: nothing to do.\n", j.Name, before.Release)
		return nil
	}
	if err := f.follow(ctx, j, before, after); err != nil {
		return err
	}
	f.printf("%s runs release %s, after %s.\n", j.Name, after.Release, seconds(time.Since(start)))
	return nil
}

// admitUpgrade refuses services that cannot be upgraded here.
func (f *Fleet) admitUpgrade(service string) (job.Job, error) {
	jobs, err := job.Select([]string{service})
	if err != nil {
		return job.Job{}, fmt.Errorf("%w: %w", ErrNoService, err)
	}
	if !slices.Contains(upgradable, service) {
		return job.Job{}, fmt.Errorf("%w: %s; those that can are %s. mysql and redis run the system's programs: "+
			"upgrade the packages, then `nomad job restart %s`; mail and migrate are upgraded by ./justw up",
			ErrNoService, service, strings.Join(upgradable, ", "), service)
	}
	manager, err := f.dir.Manager()
	if err != nil {
		return job.Job{}, err
	}
	if manager == state.ByTerraform {
		return job.Job{}, errors.New("this fleet is managed by Terraform, which would undo the upgrade: " +
			"give its jobs the new programs and run ./justw apply local (see terraform/README.md)")
	}
	if !f.running() {
		return job.Job{}, ErrDown
	}
	return jobs[0], nil
}

// obtain finds or builds the programs of a version.
func (f *Fleet) obtain(ctx context.Context, j job.Job, version string) (release.Release, error) {
	var packages []release.Package
	for _, p := range release.Services() {
		if slices.Contains(j.Programs(), p.Program()) || p.Program() == "migrate" {
			packages = append(packages, p)
		}
	}
	start := time.Now()
	stop := f.printEvery(repeatEvery, func() string {
		return fmt.Sprintf("building the programs (%.0f s)", time.Since(start).Seconds())
	})
	defer stop()
	built, err := f.obtainFrom(ctx, version, packages)
	if err != nil {
		return release.Release{}, err
	}
	if !built.Has(j.Program) {
		return release.Release{}, fmt.Errorf("%s has no program %s", version, j.Program)
	}
	f.printf("  programs ready, release %s (%s)\n", built.Label, seconds(time.Since(start)))
	return built, nil
}

func (f *Fleet) obtainFrom(ctx context.Context, version string, packages []release.Package) (release.Release, error) {
	if version == "" || version == "." {
		return f.builder().Make(ctx, packages)
	}
	if info, err := os.Stat(version); err == nil && info.IsDir() {
		return f.builder().Import(version, packages)
	}
	commit, err := release.Resolve(ctx, f.root, version)
	if err != nil {
		return release.Release{}, err
	}
	return f.builder().BuildCommit(ctx, commit, packages)
}

// printEvery prints the progress of something long until it is stopped.
func (f *Fleet) printEvery(every time.Duration, what func() string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				f.printf("  … %s\n", what())
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// migrateFirst expands the schema before a service needs it. An older migrate
// program has nothing to do, because it never reverts the schema; one that has
// run already is not run again.
func (f *Fleet) migrateFirst(ctx context.Context, runner job.Runner, built release.Release) error {
	if !built.Has("migrate") {
		return nil
	}
	migrate, err := job.Select([]string{"migrate"})
	if err != nil {
		return err
	}
	j := migrate[0]
	changes, err := f.plan(ctx, &runner, j, built, nil)
	if err != nil {
		return err
	}
	submitted, err := runner.Run(ctx, j, changes)
	if err != nil {
		return err
	}
	return f.await(ctx, []job.Submitted{submitted}, deployed)
}

// plan sets the runner's variables to those of the running job, and returns the
// changes.
func (f *Fleet) plan(
	ctx context.Context, runner *job.Runner, j job.Job, built release.Release, set job.Vars,
) (job.Vars, error) {
	binDir, err := f.binDir(j, built)
	if err != nil && !built.Has(j.Beside) { // a version without that program
		binDir, err = f.builder().FolderOf(j.Program, built)
	}
	if err != nil {
		return nil, err
	}
	running, _, err := f.nomad.Jobs().Info(j.Name, (&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("job %s: %w (./justw up starts it)", j.Name, err)
	}
	vars := job.LocalVars(f.dir, f.ports, binDir)
	// Variables that were given by hand stay, and the count of a job that was
	// scaled. Nomad does not keep the submissions of old jobs for ever.
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	if was, _, err := f.nomad.Jobs().Submission(j.Name, int(*running.Version), query); err == nil {
		maps.Copy(vars, was.VariableFlags)
	}
	delete(vars, "release") // the job file derives it from the folder
	vars["bin_dir"] = binDir
	if j.Program != "" && !j.Batch && len(running.TaskGroups) == 1 {
		vars["count"] = strconv.Itoa(*running.TaskGroups[0].Count)
	}
	changes := job.Vars{"bin_dir": binDir}
	if j.Beside != "" && !built.Has(j.Beside) {
		f.printf("  this version has no program %s: only its checks decide\n", j.Beside)
		changes[j.Beside] = "false"
	}
	if len(set) > 0 && !j.Batch {
		// The same programs with other variables get a release of their own,
		// because status prefers the newest: else it could send users to an old
		// instance.
		changes["release"] = fmt.Sprintf("%s.%d", filepath.Base(binDir), *running.Version+1)
	}
	maps.Copy(changes, set)
	if runner.Vars, err = j.Declared(f.root, vars); err != nil {
		return nil, err
	}
	if declared, err := j.Declared(f.root, changes); err != nil || len(declared) < len(changes) {
		return nil, errors.Join(err,
			fmt.Errorf("%s declares no variable of that name; see the top of the file", j.File()))
	}
	for name := range changes {
		delete(runner.Vars, name) // so that they are given as flags
	}
	return changes, nil
}
