package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/release"
	"github.com/msrchat/msrchat/tools/state"
)

// varsFile has Terraform's variables, in the state folder.
const varsFile = "terraform.tfvars.json"

// terraformVars are the input variables of terraform/environments/local.
type terraformVars struct {
	NomadAddress  string              `json:"nomad_address"`
	ConsulAddress string              `json:"consul_address"`
	Jobs          map[string]job.Vars `json:"jobs"` // by job name, only those that the job's file declares
}

// Agents starts Consul and Nomad and builds the programs. It runs no job and
// creates no secret, which Terraform does. It writes the jobs' variables to a
// JSON file and prints its path as the last line.
func (f *Fleet) Agents(ctx context.Context) error {
	unlock, err := f.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	_, built, err := f.prepare(ctx, state.ByTerraform, job.All(), true)
	if err != nil {
		return err
	}
	return f.writeVars(built)
}

// Vars builds the programs and writes the jobs' variables like Agents, but
// starts and claims nothing, because a plan changes nothing. It is refused
// while up manages the fleet, whose jobs are not in Terraform's state.
func (f *Fleet) Vars(ctx context.Context) error {
	unlock, err := f.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	holder, err := f.dir.Manager()
	if err != nil {
		return err
	}
	if holder == state.ByUp {
		return f.dir.Claim(state.ByTerraform) // an error that says how to take it down
	}
	built, err := f.build(ctx, job.All(), true)
	if err != nil {
		return err
	}
	return f.writeVars(built)
}

// writeVars writes the variables of Terraform's local environment, and prints
// the file's path.
func (f *Fleet) writeVars(built release.Release) error {
	vars := terraformVars{
		NomadAddress:  f.nomadURL(),
		ConsulAddress: f.consulAddr(),
		Jobs:          map[string]job.Vars{},
	}
	for _, j := range job.All() {
		binDir, err := f.binDir(j, built)
		if err != nil {
			return err
		}
		if vars.Jobs[j.Name], err = j.Declared(f.root, job.LocalVars(f.dir, f.ports, binDir)); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(vars, "", "  ")
	if err != nil {
		return err
	}
	path := f.varsPath()
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write terraform's variables: %w", err)
	}
	f.printf("%s\n", path)
	return nil
}

func (f *Fleet) varsPath() string { return filepath.Join(f.dir.Path(), varsFile) }

// Secrets writes the secrets at secretsPath in Nomad as a JSON object, {} if
// there are none. It is for a pipe: Terraform, whose state may have been lost,
// must not write new secrets while the databases run with these.
func (f *Fleet) Secrets(ctx context.Context) error {
	if err := f.foreign(); err != nil {
		return err
	}
	variable, _, err := f.nomad.Variables().Peek(secretsPath, (&nomad.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("read nomad variable %s: %w", secretsPath, err)
	}
	items := nomad.VariableItems{}
	if variable != nil {
		items = variable.Items
	}
	return json.NewEncoder(f.out).Encode(items)
}

// Wait returns when every check of the running jobs passes, and shows them. If
// a job runs another release than the one that was applied, that is an error:
// Nomad rolls a failed deployment back, and Terraform does not notice.
func (f *Fleet) Wait(ctx context.Context) error {
	if !f.running() {
		return ErrDown
	}
	applied, err := f.appliedReleases()
	if err != nil {
		return err
	}
	var running []job.Submitted
	for _, j := range job.All() {
		s, err := j.Running(ctx, f.nomad)
		if err != nil {
			return err
		}
		if want := applied[j.Name]; want != "" && s.Release != "" && s.Release != want {
			return fmt.Errorf("%s runs release %s, not %s, which was applied: Nomad rolled it back, "+
				"or somebody changed it (./justw logs %s)", j.Name, s.Release, want, j.Name)
		}
		running = append(running, s)
	}
	if err := f.await(ctx, running, deployed); err != nil {
		return err
	}
	if err := f.List(ctx); err != nil {
		return err
	}
	f.printf("\n")
	f.howTo(job.All(), "./justw destroy local")
	return nil
}

// appliedReleases returns the release of each job that has a program, as
// written by writeVars.
func (f *Fleet) appliedReleases() (map[string]string, error) {
	text, err := os.ReadFile(f.varsPath())
	if err != nil {
		return nil, fmt.Errorf("read terraform's variables: %w", err)
	}
	var vars terraformVars
	if err := json.Unmarshal(text, &vars); err != nil {
		return nil, fmt.Errorf("read terraform's variables: %s: %w", f.varsPath(), err)
	}
	releases := map[string]string{}
	for name, values := range vars.Jobs {
		if folder := values["bin_dir"]; folder != "" {
			releases[name] = filepath.Base(folder) // as the job files derive it
		}
	}
	return releases, nil
}
