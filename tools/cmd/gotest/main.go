// Command gotest runs go test with the given arguments and prints a short
// account: a line for each package, what failed, and what was not run and why.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/msrchat/msrchat/tools/internal/testlog"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	// Ctrl-C reaches go test by itself; this program stays to tell what it says.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT)
	defer stop()
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		return 1
	}
	log := testlog.New(os.Stdout)
	readErr := log.Read(events)
	failed := log.Close()
	waitErr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return 130
	case readErr != nil:
		fmt.Fprintln(os.Stderr, "gotest:", readErr)
		return 1
	case failed || waitErr != nil:
		return 1
	}
	return 0
}
