package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/internal/state"
)

// varsFile is where Agents leaves what Terraform needs, in the state folder.
const varsFile = "terraform.tfvars.json"

// terraformVars are the input variables of terraform/environments/local.
type terraformVars struct {
	NomadAddress  string              `json:"nomad_address"`
	ConsulAddress string              `json:"consul_address"`
	Jobs          map[string]job.Vars `json:"jobs"` // HCL2 variables by job name, only what the job's file declares
}

// Agents starts Consul and Nomad and builds the programs, but runs no job: that
// is Terraform's. It writes the jobs' variables to a JSON file and prints its
// path as the last line.
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
	vars := terraformVars{
		NomadAddress:  f.nomadURL(),
		ConsulAddress: f.consulAddr(),
		Jobs:          map[string]job.Vars{},
	}
	for _, j := range job.All() {
		binDir := built.Folder
		if j.Program != "" {
			if binDir, err = f.builder().FolderOf(j.Program, built); err != nil {
				return err
			}
		}
		if vars.Jobs[j.Name], err = j.Declared(f.root, job.LocalVars(f.dir, f.ports, binDir)); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(vars, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(f.dir.Path(), varsFile)
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write terraform's variables: %w", err)
	}
	f.printf("%s\n", path)
	return nil
}

// Wait returns when every check of the jobs that run passes, and shows them.
func (f *Fleet) Wait(ctx context.Context) error {
	if !f.running() {
		return ErrDown
	}
	var running []job.Submitted
	for _, j := range job.All() {
		s, err := j.Running(ctx, f.nomad)
		if err != nil {
			return err
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
	f.howTo(job.All())
	return nil
}
