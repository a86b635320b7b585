package process

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// helpers are the subcommands with which Nomad starts itself for its tasks. They
// outlive the agent by design.
var helpers = []string{"agent", "executor", "logmon", "docker_logger"}

// Tasks lists the processes that the Nomad of the fleet in dir runs as tasks, and
// their children. The shell or editor of a person who works in that folder is not
// among them.
func Tasks(dir string) []Process {
	return slices.DeleteFunc(all(), func(p Process) bool { return isHelper(p, dir) || !isTask(p, dir) })
}

// Helpers lists the agents of the fleet in dir and Nomad's helpers for its tasks.
func Helpers(dir string) []Process {
	return slices.DeleteFunc(all(), func(p Process) bool { return !isHelper(p, dir) })
}

// OwnedBy says whether p is a task or a helper of the fleet in dir.
func OwnedBy(p Process, dir string) bool { return isHelper(p, dir) || isTask(p, dir) }

func isHelper(p Process, dir string) bool {
	return len(p.Args) > 1 && slices.Contains(helpers, p.Args[1]) && within(p.Dir, dir)
}

// isTask recognises a task by its environment, by a helper among its ancestors,
// or by its pid file. Each alone is not enough: Redis overwrites its
// environment with its title, and a task whose helper was killed has another
// parent.
func isTask(p Process, dir string) bool {
	return hasTaskEnvironment(p, dir) || hasHelperAbove(p, dir) || hasPidFile(p, dir)
}

// hasTaskEnvironment: Nomad sets NOMAD_ALLOC_DIR for every task, and children
// inherit it.
func hasTaskEnvironment(p Process, dir string) bool {
	environ, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "environ"))
	if err != nil {
		return false
	}
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		if path, ok := strings.CutPrefix(entry, "NOMAD_ALLOC_DIR="); ok {
			return within(path, dir)
		}
	}
	return false
}

func hasHelperAbove(p Process, dir string) bool {
	for p.Parent > 1 {
		parent, ok := Find(p.Parent)
		if !ok {
			return false
		}
		if isHelper(parent, dir) {
			return true
		}
		p = parent
	}
	return false
}

// hasPidFile: the databases write data/NAME/*.pid and run in that folder.
func hasPidFile(p Process, dir string) bool {
	data := filepath.Join(dir, "data")
	if !within(p.Dir, data) {
		return false
	}
	files, _ := filepath.Glob(filepath.Join(data, "*", "*.pid"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(p.PID) {
			return true
		}
	}
	return false
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator))
}
