package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/job"
	"github.com/msrchat/msrchat/tools/state"
)

// world answers for Nomad, Consul and a probe. The mutex owns its fields.
type world struct {
	mu         sync.Mutex
	version    uint64
	release    string
	deployment *nomad.Deployment
	allocs     []*nomad.AllocationListStub
	probe      string // its answer; "" passes
	failed     int    // how often the deployment was failed
	looked     func(w *world)
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answer := func(v any) { _ = json.NewEncoder(out).Encode(v) }
	switch r.URL.Path {
	case "/v1/job/chat":
		id := "chat"
		answer(&nomad.Job{ID: &id, Version: &w.version, Meta: map[string]string{"release": w.release}})
	case "/v1/job/chat/deployments":
		if w.looked != nil {
			w.looked(w)
		}
		list := []*nomad.Deployment{}
		if w.deployment != nil {
			list = append(list, w.deployment)
		}
		answer(list)
	case "/v1/job/chat/allocations":
		answer(w.allocs)
	case "/v1/deployment/fail/d1":
		w.failed++
		w.deployment.Status, w.deployment.StatusDescription = nomad.DeploymentStatusFailed, "marked as failed"
		w.version, w.release = 6, "old"
		for _, a := range w.allocs {
			if a.JobVersion == 5 {
				a.ClientStatus = nomad.AllocClientStatusComplete
			}
		}
		answer(&nomad.DeploymentUpdateResponse{})
	case "/v1/catalog/services":
		answer(map[string][]string{"probe": {}})
	case "/v1/health/service/probe":
		status := consul.HealthPassing
		if w.probe != "" {
			status = consul.HealthWarning
		}
		answer([]*consul.ServiceEntry{{
			Node: &consul.Node{Address: "127.0.0.1"},
			Service: &consul.AgentService{
				Service: "probe",
				Address: "192.0.2.1",
				Port:    9,
				Meta:    map[string]string{"instance": "new"},
			},
			Checks: consul.HealthChecks{{
				Name:   "proof",
				Status: status,
				Output: "HTTP GET http://x/readyz: 503 Service Unavailable Output: " + w.probe,
			}},
		}})
	default:
		answer([]any{})
	}
}

// start is a deployment of version 5 after version 4, one instance each.
func start(t *testing.T) (*world, *Fleet, *bytes.Buffer) {
	t.Helper()
	w := &world{version: 5, release: "new"}
	w.deployment = &nomad.Deployment{
		ID: "d1", JobVersion: 5, Status: nomad.DeploymentStatusRunning,
		TaskGroups: map[string]*nomad.DeploymentState{
			"chat": {PlacedCanaries: []string{"new"}, DesiredCanaries: 1, DesiredTotal: 1},
		},
	}
	w.allocs = []*nomad.AllocationListStub{
		{ID: "old", JobVersion: 4, ClientStatus: nomad.AllocClientStatusRunning},
		{ID: "new", JobVersion: 5, ClientStatus: nomad.AllocClientStatusRunning},
	}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	f := &Fleet{out: out, dir: dir}
	if f.nomad, err = nomad.NewClient(&nomad.Config{Address: server.URL}); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(server.URL, "http://")
	if f.consul, err = consul.NewClient(&consul.Config{Address: address}); err != nil {
		t.Fatal(err)
	}
	return w, f, out
}

func (f *Fleet) followed(ctx context.Context) error {
	return f.follow(ctx, job.Job{Name: "chat"}, job.Submitted{Version: 4, Release: "old"},
		job.Submitted{Version: 5, Release: "new"})
}

func TestFollowToTheEnd(t *testing.T) {
	w, f, out := start(t)
	looks := 0
	w.looked = func(w *world) {
		switch looks++; looks {
		case 2:
			w.deployment.TaskGroups["chat"].HealthyAllocs, w.deployment.TaskGroups["chat"].Promoted = 1, true
		case 3:
			w.deployment.Status = nomad.DeploymentStatusSuccessful
		case 5:
			w.allocs[0].ClientStatus = nomad.AllocClientStatusComplete
		}
	}
	if err := f.followed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0 of 1 new instances healthy", "promoted, 1 of 1", "1 old instances drain"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it did not print %q:\n%s", want, out)
		}
	}
	if looks < 5 {
		t.Errorf("it did not wait for the old instance: %d looks", looks)
	}
}

// A broken promise that a probe found ends the deployment at once.
func TestFollowFailsADeploymentWithABrokenPromise(t *testing.T) {
	w, f, _ := start(t)
	w.probe = brokenPromise + ": lost: message 12"
	err := f.followed(t.Context())
	if !errors.Is(err, ErrRolledBack) || w.failed != 1 {
		t.Fatalf("got %v, failed %d times", err, w.failed)
	}
	for _, want := range []string{
		"to release old", "marked as failed", "probe new: proof " + brokenPromise + ": lost: message 12",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}

func TestFollowSaysIfThereIsNothingToRollBackTo(t *testing.T) {
	w, f, _ := start(t)
	w.deployment.Status, w.deployment.StatusDescription = nomad.DeploymentStatusFailed, "no stable version"
	err := f.followed(t.Context())
	if err == nil || errors.Is(err, ErrRolledBack) ||
		!strings.Contains(err.Error(), "no version that Nomad rolls back to") {
		t.Errorf("got %v", err)
	}
}

func TestAnInterruptedFollowSaysWhatGoesOn(t *testing.T) {
	w, f, _ := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	w.looked = func(*world) {
		if looks++; looks == 2 {
			cancel()
		}
	}
	err := f.followed(ctx)
	if !errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), "nomad deployment fail d1") {
		t.Errorf("got %v", err)
	}
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.followed(late); err == nil || errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), "not done") {
		t.Errorf("after the limit: %v", err)
	}
}
