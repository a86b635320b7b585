// Command gotest runs go test and prints a short account: a line for each
// package, what failed, and what was not run and why. A test that failed is run
// once more alone, when the rest is done; if it passes then, it is listed as
// flaky, and the run has passed.
//
//	gotest FLAG... PACKAGE...
//
// Packages begin with "./". What was flaky is appended to the file that
// MSRCHAT_FLAKY_LIST names, for a list at the end of several runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/msrchat/msrchat/tools/internal/testlog"
)

// mostAgain is how many failed tests of a module are run again. More at once
// have a reason in common, which is no accident.
const mostAgain = 5

const exitInterrupted = 130

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv("MSRCHAT_FLAKY_LIST"), os.Stdout))
}

// run returns the exit code. list is the file for what was flaky; "" for none.
func run(ctx context.Context, args []string, list string, out io.Writer) int {
	// Ctrl-C reaches go test by itself; this program stays to tell what it says.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT)
	defer stop()
	at := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "./") })
	if at < 0 {
		fmt.Fprintln(out, "gotest: name packages, as in: gotest -race ./...")
		return 2
	}
	g := gotest{flags: args[:at], out: out}
	outcome, err := g.test(args[at:]...)
	var flaky []string
	if err == nil && ctx.Err() == nil && !outcome.OK() {
		flaky, err = g.again(ctx, outcome)
	}
	if list != "" {
		err = errors.Join(err, add(list, flaky))
	}
	if err != nil {
		fmt.Fprintln(out, err)
	}
	fmt.Fprint(out, strings.Join(flaky, ""))
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case err != nil:
		return 1
	}
	return 0
}

// gotest calls go test with the same flags each time.
type gotest struct {
	flags []string
	out   io.Writer
}

// test runs go test once. An error says that its events do not tell all.
func (g gotest) test(args ...string) (testlog.Outcome, error) {
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json"}, g.flags, args)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return testlog.Outcome{}, fmt.Errorf("start go test: %w", err)
	}
	log := testlog.New(g.out)
	err = log.Read(events)
	outcome := log.Close()
	ended := cmd.Wait()
	if err == nil && ended != nil && outcome.OK() {
		err = fmt.Errorf("go test failed and names nothing: %w", ended)
	}
	return outcome, err
}

// again runs the failed tests once more, each alone, and then what their packages
// left out when they ended early. It returns a line for each test that passed; an
// error says that the run has failed.
func (g gotest) again(ctx context.Context, first testlog.Outcome) (flaky []string, err error) {
	if len(first.Unnamed) > 0 {
		return nil, fmt.Errorf("failed, not run again: %s failed outside of a test", testlog.Short(first.Unnamed[0]))
	}
	if n := len(first.Failed); n > mostAgain {
		return nil, fmt.Errorf("failed, not run again: %d tests at once are no accident", n)
	}
	for _, t := range first.Failed {
		fmt.Fprintf(g.out, "once more, alone: %s\n", t)
		second, terr := g.test("-run", "^"+t.Name+"$", "-count=1", t.Package)
		if ctx.Err() != nil {
			return flaky, errors.Join(err, ctx.Err())
		}
		if terr == nil && second.OK() && slices.Contains(second.Passed, t) {
			flaky = append(flaky, fmt.Sprintf("flaky: %s: failed, then passed alone\n", t))
		} else {
			err = errors.Join(err, terr, fmt.Errorf("failed: %s, also alone", t))
		}
	}
	if err != nil {
		return flaky, err
	}
	return flaky, g.rest(first)
}

// rest runs what did not run in the packages of failed tests: a panic and the
// time limit end the whole package.
func (g gotest) rest(first testlog.Outcome) (err error) {
	names := make(map[string][]string)
	for _, t := range slices.Concat(first.Failed, first.Passed, first.Skipped) {
		names[t.Package] = append(names[t.Package], t.Name)
	}
	var done []string
	for _, t := range first.Failed {
		if slices.Contains(done, t.Package) {
			continue
		}
		done = append(done, t.Package)
		fmt.Fprintf(g.out, "what has not run: %s\n", testlog.Short(t.Package))
		outcome, terr := g.test("-skip", "^("+strings.Join(names[t.Package], "|")+")$", t.Package)
		if terr != nil || !outcome.OK() {
			err = errors.Join(err, terr, fmt.Errorf("failed: the rest of %s", testlog.Short(t.Package)))
		}
	}
	return err
}

// add appends lines to a file.
func add(file string, lines []string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the caller's choice
	if err != nil {
		return fmt.Errorf("list flaky tests: %w", err)
	}
	_, err = io.WriteString(f, strings.Join(lines, ""))
	return errors.Join(err, f.Close())
}
