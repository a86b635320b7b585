package job

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/msrchat/msrchat/tools/state"
)

// Explain says, for people, why the job is not up: why Nomad could not place
// it, the last events of its newest allocation, and the end of its log with the
// path. It is empty if Nomad has no allocation.
func (j Job) Explain(ctx context.Context, client *nomad.Client, dir state.Dir) string {
	var text strings.Builder
	query := (&nomad.QueryOptions{}).WithContext(ctx)
	if evals, _, err := client.Jobs().Evaluations(j.Name, query); err == nil {
		for _, eval := range evals {
			if eval.Status == "blocked" {
				text.WriteString(placementFailures(eval))
				break
			}
		}
	}
	allocs, _, err := client.Jobs().Allocations(j.Name, true, query)
	if err != nil {
		return text.String()
	}
	newest := Newest(allocs)
	if newest == nil {
		return text.String()
	}
	for _, task := range suspectTasks(newest.TaskStates) {
		text.WriteString(lastEvents(newest.ID, task, newest.TaskStates[task]))
		text.WriteString(logTail(dir, newest.ID, task))
	}
	return text.String()
}

func placementFailures(eval *nomad.Evaluation) string {
	var text strings.Builder
	for group, metric := range eval.FailedTGAllocs {
		fmt.Fprintf(&text, "  no node accepts the group %s:", group)
		for reason, count := range metric.DimensionExhausted {
			fmt.Fprintf(&text, " %s (%d nodes)", reason, count)
		}
		for reason, count := range metric.ConstraintFiltered {
			fmt.Fprintf(&text, " %s (%d nodes)", reason, count)
		}
		text.WriteString("\n")
	}
	return text.String()
}

// suspectTasks are those that do not run and did not end well, or all if every
// task looks fine (then a check fails).
func suspectTasks(states map[string]*nomad.TaskState) []string {
	var suspect, all []string
	for name, task := range states {
		all = append(all, name)
		if task.State != "running" && (task.State != "dead" || task.Failed) || task.Restarts > 0 {
			suspect = append(suspect, name)
		}
	}
	if len(suspect) == 0 {
		suspect = all
	}
	slices.Sort(suspect)
	return suspect
}

func lastEvents(alloc, task string, state *nomad.TaskState) string {
	const shown = 4 // older ones repeat
	var text strings.Builder
	fmt.Fprintf(&text, "  allocation %s, task %s is %s:\n", ShortID(alloc), task, state.State)
	for _, event := range state.Events[max(0, len(state.Events)-shown):] {
		fmt.Fprintf(&text, "    %s: %s\n", event.Type, event.DisplayMessage)
	}
	return text.String()
}

func logTail(dir state.Dir, alloc, task string) string {
	const shown = 8 // lines; the rest is in the file
	logs := filepath.Join(dir.Nomad(), "data", "alloc", alloc, "alloc", "logs")
	var text strings.Builder
	for _, stream := range []string{"stderr", "stdout"} {
		files, _ := filepath.Glob(filepath.Join(logs, task+"."+stream+".*"))
		if len(files) == 0 {
			continue
		}
		slices.Sort(files)
		file := files[len(files)-1]
		lines := tail(file, shown)
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(&text, "  end of %s:\n", file)
		for _, line := range lines {
			fmt.Fprintf(&text, "    %s\n", line)
		}
	}
	return text.String()
}

// tail returns the last lines of a file, of which it reads only the last 16 KiB.
func tail(path string, count int) []string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	const most = 16 << 10
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	text, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil || len(strings.TrimSpace(string(text))) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return lines[max(0, len(lines)-count):]
}

// ShortID is how Nomad's own tables shorten an id.
func ShortID(id string) string { return id[:min(8, len(id))] }
