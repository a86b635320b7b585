package job

import (
	"context"
	"errors"
	"fmt"
	"slices"

	nomad "github.com/hashicorp/nomad/api"
)

// crashLoop is how many restarts of one task count as a failure. The job files
// restart after one or two seconds.
const crashLoop = 5

// ErrFailed marks a job that cannot come up any more.
var ErrFailed = errors.New("failed")

// Progress is how far Nomad got with a submitted job.
type Progress struct {
	Running []string // allocation ids of this version that run
	Done    bool     // deployed, or for a batch job ended well
	Waiting string   // why not, for people; "" when done
}

// Check asks Nomad how far the job is. The error is ErrFailed, wrapped with the
// reason, if waiting is of no use, and another one if Nomad does not answer.
func (s Submitted) Check(ctx context.Context, client *nomad.Client) (Progress, error) {
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	allocs, _, err := client.Jobs().Allocations(s.Name, true, query)
	if err != nil {
		return Progress{}, fmt.Errorf("allocations of %s: %w", s.Name, err)
	}
	allocs = slices.DeleteFunc(allocs, func(a *nomad.AllocationListStub) bool { return a.JobVersion != s.Version })
	if s.Batch {
		return batchProgress(allocs)
	}
	deployment, _, err := client.Jobs().LatestDeployment(s.Name, query)
	if err != nil {
		return Progress{}, fmt.Errorf("deployment of %s: %w", s.Name, err)
	}
	return serviceProgress(s.Version, allocs, deployment)
}

func batchProgress(allocs []*nomad.AllocationListStub) (Progress, error) {
	newest := Newest(allocs)
	switch {
	case newest == nil:
		return Progress{Waiting: "not placed yet"}, nil
	case newest.ClientStatus == nomad.AllocClientStatusComplete:
		return Progress{Done: true}, nil
	case newest.ClientStatus == nomad.AllocClientStatusFailed:
		return Progress{}, fmt.Errorf("%w: it ended with an error", ErrFailed)
	}
	return Progress{Waiting: newest.ClientStatus}, nil
}

func serviceProgress(
	version uint64, allocs []*nomad.AllocationListStub, deployment *nomad.Deployment,
) (Progress, error) {
	var p Progress
	for _, a := range allocs {
		if a.DesiredStatus != nomad.AllocDesiredStatusRun {
			continue
		}
		if a.ClientStatus == nomad.AllocClientStatusRunning {
			p.Running = append(p.Running, a.ID)
		}
		for name, task := range a.TaskStates {
			if task.Restarts >= crashLoop && task.State != "running" {
				return Progress{}, fmt.Errorf("%w: task %s ended %d times", ErrFailed, name, task.Restarts)
			}
		}
	}
	switch {
	case deployment == nil || deployment.JobVersion < version:
		p.Waiting = "not placed yet"
	case deployment.JobVersion > version:
		return Progress{}, fmt.Errorf("%w: version %d was replaced by version %d (rolled back?)", ErrFailed, version,
			deployment.JobVersion)
	case deployment.Status == nomad.DeploymentStatusSuccessful:
		p.Done = len(p.Running) > 0
		if !p.Done {
			p.Waiting = "starting again"
		}
	case deployment.Status == nomad.DeploymentStatusFailed || deployment.Status == nomad.DeploymentStatusCancelled:
		return Progress{}, fmt.Errorf("%w: %s", ErrFailed, deployment.StatusDescription)
	default:
		p.Waiting = deploymentState(deployment)
	}
	return p, nil
}

func deploymentState(deployment *nomad.Deployment) string {
	healthy, wanted := 0, 0
	for _, group := range deployment.TaskGroups {
		healthy += group.HealthyAllocs
		wanted += max(group.DesiredTotal, group.DesiredCanaries)
	}
	if healthy >= wanted && wanted > 0 {
		return "healthy, the deployment ends"
	}
	return fmt.Sprintf("%d of %d healthy", healthy, wanted)
}

// Newest returns the newest allocation, nil if there is none.
func Newest(allocs []*nomad.AllocationListStub) *nomad.AllocationListStub {
	var newest *nomad.AllocationListStub
	for _, a := range allocs {
		if newest == nil || a.CreateIndex > newest.CreateIndex {
			newest = a
		}
	}
	return newest
}
