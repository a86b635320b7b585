package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/arena"
	"github.com/msrchat/msrchat/e2e/faults"
)

// folder is where the servers are that all tests share. TestMain owns it.
var folder string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if folder, err = os.MkdirTemp("", "msrchat-faults-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	return m.Run()
}

var build = sync.OnceValue(func() error { return arena.Build(context.Background(), "../..", folder) })

// servers returns the folder with the servers; a test that lacks the databases
// is left out.
func servers(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"mariadbd", "redis-server", "consul"} {
		testenv.Find(t, program)
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return folder
}

// The short form of ./justw faults: each family of faults at least once.
func TestNothingIsLost(t *testing.T) {
	kinds, err := faults.Named([]string{
		"kill-chat", "freeze-chat", "restart-chat", "kill-mysql", "flush-redis",
		"net-chat-chat", "net-client-chat", "relay-frames", "disk-full",
	})
	if err != nil {
		t.Fatal(err)
	}
	const seed = 1
	result, err := faults.Run(t.Context(), faults.Config{
		Bin: servers(t), Steps: faults.Plan(seed, kinds, len(kinds)), Interval: time.Second,
		Rate: 300, Clients: 60, Seed: seed,
		Output: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", result)
	if err := result.Err(); err != nil {
		t.Error(err)
	}
}

// Each bug that was planted in the servers is found, and without one nothing is.
func TestPlantedBugsAreFound(t *testing.T) {
	bin := servers(t)
	for _, trial := range faults.Trials {
		t.Run(trial.String(), func(t *testing.T) {
			result, err := trial.Run(t.Context(), bin, t.Output())
			if err != nil {
				t.Fatal(err)
			}
			if err := trial.Verdict(result); err != nil {
				t.Errorf("%v\n%s", err, result)
			}
		})
	}
}

// Ctrl-C ends the faults, and what was done until then is judged.
func TestInterruptedRunIsJudged(t *testing.T) {
	kinds, err := faults.Named([]string{"flush-redis"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	result, err := faults.Run(ctx, faults.Config{
		Bin: servers(t), Steps: faults.Plan(1, kinds, 1000), Interval: time.Second, Rate: 100, Clients: 10, Seed: 1,
		Output: onFault(interrupt),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Interrupted || len(result.Done) == 0 || len(result.Done) == 1000 || result.Err() != nil {
		t.Errorf("after an interrupt:\n%s", result)
	}
}

// onFault calls itself when a line about a fault is written.
type onFault func()

func (f onFault) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("whole again")) {
		f()
	}
	return len(b), nil
}
