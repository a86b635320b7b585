package job

import (
	"errors"
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"
)

func alloc(id, desired, client string, index uint64, restarts uint64, task string) *nomad.AllocationListStub {
	return &nomad.AllocationListStub{
		ID: id, DesiredStatus: desired, ClientStatus: client, CreateIndex: index,
		TaskStates: map[string]*nomad.TaskState{"main": {State: task, Restarts: restarts}},
	}
}

func TestServiceProgress(t *testing.T) {
	const version = 3
	running := []*nomad.AllocationListStub{
		alloc("a", "run", "running", 1, 0, "running"), alloc("b", "run", "running", 2, 7, "running"),
	}
	for name, tc := range map[string]struct {
		allocs     []*nomad.AllocationListStub
		deployment *nomad.Deployment
		done       bool
		failed     string // part of the error
		waiting    string // part of the reason
	}{
		"no deployment yet": {deployment: nil, waiting: "not placed"},
		"only the last version's": {
			deployment: &nomad.Deployment{JobVersion: 2, Status: "successful"}, allocs: running,
			waiting: "not placed",
		},
		"done, also after old crashes": {
			deployment: &nomad.Deployment{JobVersion: 3, Status: "successful"}, allocs: running, done: true,
		},
		"deployed, nothing runs now": {
			deployment: &nomad.Deployment{JobVersion: 3, Status: "successful"}, waiting: "starting again",
		},
		"failed": {
			deployment: &nomad.Deployment{JobVersion: 3, Status: "failed", StatusDescription: "progress deadline"},
			failed:     "progress deadline",
		},
		"rolled back": {
			deployment: &nomad.Deployment{JobVersion: 4, Status: "successful"}, failed: "rolled back",
		},
		"crash loop": {
			deployment: &nomad.Deployment{JobVersion: 3, Status: "running"},
			allocs:     []*nomad.AllocationListStub{alloc("a", "run", "pending", 1, crashLoop, "pending")},
			failed:     "ended 5 times",
		},
		"under way": {
			deployment: &nomad.Deployment{
				JobVersion: 3, Status: "running",
				TaskGroups: map[string]*nomad.DeploymentState{"g": {DesiredTotal: 2, HealthyAllocs: 1}},
			},
			allocs: running, waiting: "1 of 2 healthy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := serviceProgress(version, tc.allocs, tc.deployment)
			if tc.failed != "" {
				if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), tc.failed) {
					t.Fatalf("error %v, want ErrFailed with %q", err, tc.failed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Done != tc.done || !strings.Contains(p.Waiting, tc.waiting) || (p.Waiting == "") != tc.done {
				t.Errorf("got done %v, waiting %q; want %v, %q", p.Done, p.Waiting, tc.done, tc.waiting)
			}
		})
	}
}

func TestBatchProgressLooksAtTheNewestRun(t *testing.T) {
	failed, complete := alloc("a", "run", "failed", 1, 5, "dead"), alloc("b", "run", "complete", 2, 0, "dead")
	for name, tc := range map[string]struct {
		allocs []*nomad.AllocationListStub
		done   bool
		failed bool
	}{
		"none yet":            {},
		"pending":             {allocs: []*nomad.AllocationListStub{alloc("a", "run", "pending", 1, 0, "pending")}},
		"ended well":          {allocs: []*nomad.AllocationListStub{complete}, done: true},
		"ended with an error": {allocs: []*nomad.AllocationListStub{failed}, failed: true},
		"second run was fine": {allocs: []*nomad.AllocationListStub{complete, failed}, done: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := batchProgress(tc.allocs)
			if p.Done != tc.done || errors.Is(err, ErrFailed) != tc.failed {
				t.Errorf("got done %v, error %v; want %v, failed %v", p.Done, err, tc.done, tc.failed)
			}
			if !tc.done && !tc.failed && p.Waiting == "" {
				t.Error("waits without a reason")
			}
		})
	}
}
