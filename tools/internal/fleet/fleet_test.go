package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/internal/fleet"
	"github.com/msrchat/msrchat/tools/ports"
	"github.com/msrchat/msrchat/tools/process"
	"github.com/msrchat/msrchat/tools/state"
)

// The life of a small fleet, without the services, which e2e tests: up, up again,
// mail, an agent killed, down, down again, data kept.
func TestLifeOfAFleet(t *testing.T) {
	needTools(t)
	dir := openState(t)
	base := freeBase(t)
	out := &bytes.Buffer{}
	services := []string{"mysql", "redis", "mail"}

	up(t, dir, base, out, services)
	for _, line := range []string{"nomad job run nomad/mysql.nomad.hcl", "passing (3 checks)", "The fleet is up"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("output of up lacks %q:\n%s", line, out)
		}
	}
	before := pids(dir)
	start := time.Now()
	up(t, dir, base, out, services)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("up when already up took %s", took)
	}
	if diff := cmp.Diff(before, pids(dir)); diff != "" {
		t.Errorf("up when already up changed processes:\n%s", diff)
	}

	mailGoesThrough(t, dir, base)
	otherManagerIsRefused(t, dir, base)
	anotherCheckoutIsLeftAlone(t, dir, base)

	// Down works without Nomad too, and leaves nothing.
	tasks := process.Tasks(dir.Path())
	kill(t, filepath.Join(dir.Run(), "nomad.pid"))
	if err := open(t, dir, base, out).List(t.Context()); !errors.Is(err, fleet.ErrDown) {
		t.Errorf("ps with a dead nomad: %v", err)
	}
	down(t, dir, base, false)
	for _, p := range tasks {
		if p.Running() {
			t.Errorf("left running: %v", p)
		}
	}
	if left := append(process.Tasks(dir.Path()), process.Helpers(dir.Path())...); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir.Data(), "mysql", "ibdata1")); err != nil {
		t.Errorf("the database's files: %v", err)
	}
	if _, err := os.Stat(dir.Nomad()); !os.IsNotExist(err) {
		t.Errorf("nomad's state: %v, want it gone", err)
	}
	down(t, dir, base, false) // nothing runs: no error
}

func TestUpNamesThePortThatIsTaken(t *testing.T) {
	needTools(t)
	dir := openState(t)
	base := freeBase(t)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+20))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = open(t, dir, base, &bytes.Buffer{}).Up(t.Context(), nil, time.Minute)
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		fmt.Sprintf("port %d (mysql)", base+20), fmt.Sprintf("pid %d", os.Getpid()), ports.EnvBase,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
	if who, _ := dir.Manager(); who != "" {
		t.Errorf("managed by %q although nothing was started", who)
	}
}

// If a service cannot start, up fails soon, with the end of its log.
func TestUpExplainsAFailure(t *testing.T) {
	needTools(t)
	dir := openState(t)
	base := freeBase(t)
	// Redis refuses a folder in the place of its file.
	manifest := filepath.Join(dir.Data(), "redis", "appendonlydir", "appendonly.aof.manifest")
	if err := os.MkdirAll(manifest, 0o755); err != nil {
		t.Fatal(err)
	}
	defer down(t, dir, base, true)
	err := open(t, dir, base, &bytes.Buffer{}).Up(t.Context(), []string{"redis"}, 90*time.Second)
	if err == nil || strings.Contains(err.Error(), "not up in time") {
		t.Fatalf("got %v, want a failure before the time is up", err)
	}
	for _, part := range []string{"redis failed", "Exit Code: 1", "appendonly", "./justw logs redis"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("lacks %q:\n%v", part, err)
		}
	}
}

func mailGoesThrough(t *testing.T, dir state.Dir, base int) {
	t.Helper()
	var out bytes.Buffer
	f := open(t, dir, base, &out)
	if err := f.Mail(t.Context(), "anna@example.org"); !errors.Is(err, fleet.ErrNoMail) {
		t.Errorf("before any mail: %v", err)
	}
	text := "Subject: =?utf-8?q?caf=C3=A9?=\r\n\r\nthe code is 123456\r\n"
	if err := smtp.SendMail(fmt.Sprintf("127.0.0.1:%d", base+25), nil,
		"gate@localhost", []string{"anna@example.org"}, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := f.Mail(t.Context(), "anna@example.org"); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Subject: café", "the code is 123456"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("mail lacks %q:\n%s", part, out.String())
		}
	}
	logs := func() string { // what a task prints passes through Nomad first
		out.Reset()
		if err := f.Logs(t.Context(), "mail", false); err != nil {
			t.Fatalf("logs: %v", err)
		}
		return out.String()
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(logs(), "mail accepted") {
		if time.Now().After(deadline) {
			t.Fatalf("the mail is not in the log:\n%s", out.String())
		}
	}
}

func otherManagerIsRefused(t *testing.T, dir state.Dir, base int) {
	t.Helper()
	f := open(t, dir, base, &bytes.Buffer{})
	if err := f.Agents(t.Context()); err == nil || !strings.Contains(err.Error(), "./justw down") {
		t.Errorf("terraform's agents while up holds the fleet: %v", err)
	}
	if err := f.Down(t.Context(), state.ByTerraform, false); err == nil ||
		!strings.Contains(err.Error(), "./justw down") {
		t.Errorf("terraform's down while up holds the fleet: %v", err)
	}
	if _, err := fleet.New(checkout(t), dir, base+1, &bytes.Buffer{}); err == nil {
		t.Error("another port base is taken while the fleet is up")
	}
}

// anotherCheckoutIsLeftAlone takes down and asks for secrets from a checkout whose
// own fleet is not up, on the same ports.
func anotherCheckoutIsLeftAlone(t *testing.T, dir state.Dir, base int) {
	t.Helper()
	before := pids(dir)
	out := &bytes.Buffer{}
	other := open(t, openState(t), base, out)
	if err := other.Down(t.Context(), state.ByUp, true); err != nil || !strings.Contains(out.String(), "left alone") {
		t.Errorf("down: %v\n%s", err, out)
	}
	if err := other.Secrets(t.Context()); err == nil || strings.Contains(out.String(), "password") {
		t.Errorf("secrets of another checkout: %v\n%s", err, out)
	}
	if diff := cmp.Diff(before, pids(dir)); diff != "" {
		t.Errorf("another checkout's down (-before +after):\n%s", diff)
	}
}

func needTools(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, name := range []string{"consul", "nomad", "mariadbd", "redis-server"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not on PATH: ./justw test tools brings it", name)
		}
	}
}

func openState(t *testing.T) state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "fleet"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func checkout(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func open(t *testing.T, dir state.Dir, base int, out *bytes.Buffer) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(checkout(t), dir, base, out)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func up(t *testing.T, dir state.Dir, base int, out *bytes.Buffer, services []string) {
	t.Helper()
	t.Cleanup(func() { down(t, dir, base, true) })
	if err := open(t, dir, base, out).Up(t.Context(), services, 3*time.Minute); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
}

func down(t *testing.T, dir state.Dir, base int, purge bool) {
	t.Helper()
	// Also at the end of the test, when its context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if err := open(t, dir, base, &bytes.Buffer{}).Down(ctx, state.ByUp, purge); err != nil {
		t.Errorf("down: %v", err)
	}
}

func kill(t *testing.T, pidFile string) {
	t.Helper()
	p, ok, err := process.Recorded(pidFile)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", pidFile, ok, err)
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := process.AwaitGone(ctx, []process.Process{p}); err != nil {
		t.Fatalf("%v: %v", p, err)
	}
}

// pids are those of tasks and agents, without checks that are running.
func pids(dir state.Dir) map[string]int {
	found := map[string]int{}
	for _, p := range append(process.Tasks(dir.Path()), process.Helpers(dir.Path())...) {
		switch name := filepath.Base(p.Args[0]); name {
		case "mariadbd", "mailbox", "nomad", "consul":
			found[name+" "+strings.Join(p.Args[1:min(2, len(p.Args))], "")] = p.PID
		default:
			if strings.HasPrefix(name, "redis-server") {
				found["redis"] = p.PID
			}
		}
	}
	return found
}

// freeBase finds a port base whose whole table is free, apart from the default
// one and below the kernel's ephemeral ports.
func freeBase(t *testing.T) int {
	t.Helper()
	for base := 11000 + os.Getpid()%50*200; base < 30000; base += 200 {
		table, err := ports.New(base)
		if err != nil {
			t.Fatal(err)
		}
		free := func(port int) (taken, ours bool, who string) {
			taken, _, _ = process.Listening(port)
			return taken, false, ""
		}
		if len(table.Conflicts(free)) == 0 && table.Reserved(free) == "" {
			return base
		}
	}
	t.Fatal("no free range of ports")
	return 0
}
