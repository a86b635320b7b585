package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/msrchat/msrchat/tools/internal/catalog"
	"github.com/msrchat/msrchat/tools/internal/job"
)

// goal is what await waits for.
type goal int

const (
	passing  goal = iota // an instance of each job runs, and its checks pass
	deployed             // and Nomad's deployment was successful
)

const (
	// pollEvery is the pause between two polls, each of a few local requests.
	pollEvery = 250 * time.Millisecond
	// repeatEvery is how often an unchanged state is printed again.
	repeatEvery = 10 * time.Second
)

// obstacle is one reason why await still waits.
type obstacle struct {
	service string
	reason  string
}

// await returns when all jobs have reached the goal. It prints what it waits for
// whenever that changes. Its error explains what is wrong.
func (f *Fleet) await(ctx context.Context, jobs []job.Submitted, g goal) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	start := time.Now()
	var printed string
	var printedAt time.Time
	for {
		obstacles, err := f.obstacles(ctx, jobs, g)
		if err != nil {
			return err
		}
		if len(obstacles) == 0 {
			return nil
		}
		if names := services(obstacles); names != printed || time.Since(printedAt) >= repeatEvery {
			f.printf("  … waiting for %s (%.0f s)\n", describe(obstacles), time.Since(start).Seconds())
			printed, printedAt = names, time.Now()
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return f.explain(ctx, fmt.Sprintf("not up in time: %s", describe(obstacles)), obstacles)
		case <-tick.C:
		}
	}
}

// obstacles lists what is missing. An agent that does not answer is an obstacle
// too; a job that cannot come up any more is an error.
func (f *Fleet) obstacles(ctx context.Context, jobs []job.Submitted, g goal) ([]obstacle, error) {
	list, err := catalog.Read(ctx, f.consul)
	if err != nil {
		return []obstacle{{"consul", err.Error()}}, nil //nolint:nilerr // it is an obstacle
	}
	var found []obstacle
	for _, i := range list {
		// Nomad registers itself too, and its checks have to pass as well.
		if strings.HasPrefix(i.Service, "nomad") {
			found = append(found, failing(i)...)
		}
	}
	for _, j := range jobs {
		progress, err := j.Check(ctx, f.nomad)
		switch {
		case errors.Is(err, job.ErrFailed):
			return nil, f.explain(ctx, fmt.Sprintf("%s %v", j.Name, err), []obstacle{{service: j.Name}})
		case err != nil:
			found = append(found, obstacle{"nomad", err.Error()})
		case progress.Done || g == passing && len(progress.Running) > 0:
			found = append(found, unregistered(j.Name, progress.Running, list)...)
		default:
			found = append(found, obstacle{j.Name, progress.Waiting})
			for _, i := range list {
				if i.Service == j.Name {
					found = append(found, failing(i)...)
				}
			}
		}
	}
	return found, nil
}

// unregistered compares the running allocations with Consul's entries.
func unregistered(service string, allocs []string, list []catalog.Instance) []obstacle {
	var found []obstacle
	for _, alloc := range allocs {
		i := slices.IndexFunc(list, func(i catalog.Instance) bool { return i.Service == service && i.ID == alloc })
		if i < 0 {
			found = append(found, obstacle{service, job.ShortID(alloc) + " is not in Consul yet"})
			continue
		}
		found = append(found, failing(list[i])...)
	}
	return found
}

func failing(i catalog.Instance) []obstacle {
	var found []obstacle
	for _, check := range i.Failing() {
		found = append(found, obstacle{i.Service, catalog.ShortCheck(check)})
	}
	return found
}

// services names the services of the obstacles, each once.
func services(obstacles []obstacle) string {
	var names []string
	for _, o := range obstacles {
		if !slices.Contains(names, o.service) {
			names = append(names, o.service)
		}
	}
	return strings.Join(names, ", ")
}

// describe gives one reason for each service: "mysql: not placed yet, redis: …".
func describe(obstacles []obstacle) string {
	var texts []string
	seen := map[string]bool{}
	for _, o := range obstacles {
		if !seen[o.service] {
			seen[o.service] = true
			texts = append(texts, o.service+": "+o.reason)
		}
	}
	return strings.Join(texts, "; ")
}

// explain returns an error that says what is wrong with each service and where to
// look. It takes a few seconds, also when the caller's time is up.
func (f *Fleet) explain(ctx context.Context, what string, obstacles []obstacle) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var text strings.Builder
	text.WriteString(what + "\n")
	for name := range strings.SplitSeq(services(obstacles), ", ") {
		fmt.Fprintf(&text, "%s:\n", name)
		for _, o := range obstacles {
			if o.service == name && o.reason != "" {
				fmt.Fprintf(&text, "  %s\n", o.reason)
			}
		}
		text.WriteString(job.Job{Name: name}.Explain(ctx, f.nomad, f.dir))
		fmt.Fprintf(&text, "  whole log: ./justw logs %s\n", name)
	}
	text.WriteString("What runs goes on running: ./justw up continues from here, ./justw down stops it.")
	return errors.New(text.String())
}
