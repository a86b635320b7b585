package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msrchat/msrchat/shared/testenv"
)

// job is what a job file becomes, as far as these tests look.
type job struct {
	Job struct {
		TaskGroups []struct {
			Tasks []struct {
				Name      string
				Env       map[string]string
				Templates []struct{ DestPath, Perms string }
			}
		}
	}
}

// parsed reads a job file as Nomad does, which needs no agent for it.
func parsed(t *testing.T, name string, vars ...string) job {
	t.Helper()
	file := filepath.Join("..", "nomad", name+".nomad.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"job", "run", "-output"}
	for _, v := range append(vars, "bin_dir=/programs/r1", "data_dir=/data") {
		if key, _, _ := strings.Cut(v, "="); strings.Contains(string(text), `variable "`+key+`"`) {
			args = append(args, "-var", v)
		}
	}
	out, err := exec.CommandContext(t.Context(), testenv.Find(t, "nomad"), append(args, file)...).CombinedOutput()
	var j job
	if err != nil || json.Unmarshal(out, &j) != nil || len(j.Job.TaskGroups) == 0 {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return j
}

// The networks of the balancers reach the gate.
func TestTheGateIsToldWhichProxiesToTrust(t *testing.T) {
	for value, want := range map[string]string{`["10.0.0.0/8","fd00::/8"]`: "10.0.0.0/8,fd00::/8", "[]": ""} {
		env := parsed(t, "gate", "trusted_proxies="+value).Job.TaskGroups[0].Tasks[0].Env
		if got, ok := env["MSRCHAT_TRUSTED_PROXY"]; got != want || !ok {
			t.Errorf("%s: the gate gets %q, want %q", value, got, want)
		}
	}
}

// What holds a secret is its owner's alone.
func TestFilesWithSecretsAreReadByTheirOwner(t *testing.T) {
	files, err := filepath.Glob("../nomad/*.nomad.hcl")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".nomad.hcl")
		for _, group := range parsed(t, name).Job.TaskGroups {
			for _, task := range group.Tasks {
				for _, template := range task.Templates {
					if !strings.HasPrefix(template.DestPath, "secrets/") {
						continue
					}
					if found++; template.Perms != "600" {
						t.Errorf("%s/%s: %s has mode %s", name, task.Name, template.DestPath, template.Perms)
					}
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d files with secrets were found", found)
	}
}
