package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/internal/catalog"
	"github.com/msrchat/msrchat/tools/internal/job"
)

// brokenPromise begins the output of a probe's check that has failed for good
// (see probe): waiting longer would change nothing.
const brokenPromise = "BROKEN PROMISE"

// deployment is a deployment in progress. It belongs to the goroutine in follow.
type deployment struct {
	fleet         *Fleet
	job           job.Job
	before, after job.Submitted
	id            string
	printed       string
	printedAt     time.Time
	started       time.Time
	failing       []string // the last output of the new instances' failing checks
	stopped       bool     // failed by us
}

// follow returns when only the new version runs. Its error is ErrRolledBack if
// the previous version runs again, ErrLeft if ctx was cancelled.
func (f *Fleet) follow(ctx context.Context, j job.Job, before, after job.Submitted) error {
	d := &deployment{fleet: f, job: j, before: before, after: after, started: time.Now()}
	err := d.run(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	background := fmt.Sprintf("the deployment goes on in the background: `nomad deployment status %s` shows it, "+
		"`nomad deployment fail %s` stops it and rolls back (after eval \"$(./justw env)\")", d.id, d.id)
	if d.id == "" {
		background = "nomad goes on in the background: `nomad job status " + j.Name + "` shows it " +
			"(after eval \"$(./justw env)\")"
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%w: %s", ErrLeft, background)
	}
	return fmt.Errorf("not done after %s, last: %s; %s", seconds(time.Since(d.started)), d.printed, background)
}

func (d *deployment) run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, err := d.poll(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// poll checks the deployment once. An agent that does not answer is asked again
// later.
func (d *deployment) poll(ctx context.Context) (done bool, err error) {
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	list, _, err := d.fleet.nomad.Jobs().Deployments(d.job.Name, true, query)
	if err != nil {
		d.print("nomad does not answer")
		return false, nil //nolint:nilerr // it is printed, and polled again
	}
	i := slices.IndexFunc(list, func(n *nomad.Deployment) bool { return n.JobVersion == d.after.Version })
	if i < 0 {
		d.print("not placed yet")
		return false, nil
	}
	found := list[i]
	d.id = found.ID
	allocs, _, err := d.fleet.nomad.Jobs().Allocations(d.job.Name, true, query)
	if err != nil {
		d.print("nomad does not answer")
		return false, nil //nolint:nilerr // it is printed, and polled again
	}
	switch found.Status {
	case nomad.DeploymentStatusSuccessful:
		return d.drained(allocs), nil
	case nomad.DeploymentStatusFailed, nomad.DeploymentStatusCancelled:
		return d.rolledBack(ctx, found, allocs)
	}
	return false, d.progress(ctx, found)
}

// progress prints how far the new instances are, and fails a deployment in
// which a probe found a broken promise.
func (d *deployment) progress(ctx context.Context, found *nomad.Deployment) error {
	placed, healthy, wanted, promoted := []string{}, 0, 0, false
	for _, group := range found.TaskGroups {
		placed = append(placed, group.PlacedCanaries...)
		healthy += group.HealthyAllocs
		wanted += max(group.DesiredCanaries, group.DesiredTotal)
		promoted = promoted || group.Promoted
	}
	var texts []string
	if list, err := catalog.Read(ctx, d.fleet.consul); err == nil {
		texts = d.note(ctx, list, placed)
	}
	broken := slices.IndexFunc(texts, func(s string) bool { return strings.Contains(s, brokenPromise) })
	if broken >= 0 && !d.stopped {
		d.stopped = true
		d.print("a probe found a broken promise: " + texts[broken])
		// Nomad would do so itself, but only at the healthy_deadline.
		if _, _, err := d.fleet.nomad.Deployments().Fail(d.id, (&nomad.WriteOptions{}).WithContext(ctx)); err != nil {
			return fmt.Errorf("fail the deployment %s: %w", d.id, err)
		}
		return nil
	}
	state := fmt.Sprintf("%d of %d new instances healthy", healthy, wanted)
	if promoted {
		state = "promoted, " + state
	}
	if len(texts) > 0 {
		state += " (" + texts[0] + ")"
	}
	d.print(state)
	return nil
}

// note remembers and returns the output of the new instances' failing checks.
func (d *deployment) note(ctx context.Context, list []catalog.Instance, placed []string) (texts []string) {
	for _, i := range list {
		if !slices.Contains(placed, i.ID) {
			continue
		}
		for _, check := range i.Failing() {
			output := checkText(check.Output)
			if i.Service == probeService { // Consul has a new text only after the next check
				output = cmp.Or(askProbe(ctx, i.Address), output)
			}
			text := strings.TrimSpace(check.Name + " " + output)
			texts = append(texts, fmt.Sprintf("%s %s: %s", i.Service, job.ShortID(i.ID), text))
		}
	}
	d.failing = texts
	return texts
}

// probeService is the probes' name in Consul.
const probeService = "probe"

// askProbe returns what a probe answers to its check, "" if it does not answer.
func askProbe(ctx context.Context, address string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	const longest = 2 << 10
	text, _ := io.ReadAll(io.LimitReader(resp.Body, longest))
	return strings.TrimSpace(string(text))
}

// checkText is the answer of the checked program, without Consul's text before
// it.
func checkText(output string) string {
	if _, answer, ok := strings.Cut(output, "Output: "); ok {
		output = answer
	}
	return strings.TrimSpace(output)
}

// drained says whether the old instances have ended.
func (d *deployment) drained(allocs []*nomad.AllocationListStub) bool {
	left := 0
	for _, a := range allocs {
		if a.JobVersion < d.after.Version && !over(a) {
			left++
		}
	}
	if left > 0 {
		d.print(fmt.Sprintf("promoted, %d old instances drain", left))
	}
	return left == 0
}

func over(a *nomad.AllocationListStub) bool {
	switch a.ClientStatus {
	case nomad.AllocClientStatusComplete, nomad.AllocClientStatusFailed, nomad.AllocClientStatusLost:
		return true
	}
	return false
}

// rolledBack waits until Nomad has rolled back to the previous version, then
// says why.
func (d *deployment) rolledBack(
	ctx context.Context, found *nomad.Deployment, allocs []*nomad.AllocationListStub,
) (bool, error) {
	now, err := d.job.Running(ctx, d.fleet.nomad)
	if err != nil {
		d.print("nomad does not answer")
		return false, nil //nolint:nilerr // it is printed, and polled again
	}
	reverted := now.Version > d.after.Version && now.Release == d.before.Release
	left := slices.ContainsFunc(allocs, func(a *nomad.AllocationListStub) bool {
		return a.JobVersion == d.after.Version && !over(a)
	})
	if reverted && left {
		d.print("failed, the new instances end")
		return false, nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", d.job.Name, found.StatusDescription)
	for _, output := range d.failing {
		text.WriteString("\n  " + output)
	}
	if d.stopped {
		text.WriteString("\n  ./justw upgrade failed the deployment because of the broken promise")
	} else {
		text.WriteString("\n" + d.job.Explain(ctx, d.fleet.nomad, d.fleet.dir))
	}
	if reverted {
		return false, fmt.Errorf("%w to release %s: %s", ErrRolledBack, d.before.Release, text.String())
	}
	return false, fmt.Errorf("the deployment failed, and there is no version that Nomad rolls back to: %s",
		text.String())
}

// print prints a state when it changes, and an unchanged one every repeatEvery.
func (d *deployment) print(state string) {
	short, _, _ := strings.Cut(state, " (")
	before, _, _ := strings.Cut(d.printed, " (")
	if short != before || time.Since(d.printedAt) >= repeatEvery {
		d.fleet.printf("  … %s (%.0f s)\n", state, time.Since(d.started).Seconds())
		d.printedAt = time.Now()
	}
	d.printed = state
}
