package process_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/tools/process"
)

func TestMain(m *testing.M) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		os.Stdout.WriteString("not run: no /proc on this system\n")
		return
	}
	if os.Getenv("PROCESS_TEST_WAIT") != "" { // started by helper
		child := exec.Command("cat") // ends when this process does and the pipe breaks
		if _, err := child.StdinPipe(); err != nil || child.Start() != nil {
			os.Exit(1)
		}
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM)
		<-terminated
	}
	os.Exit(m.Run())
}

func TestFindSeesARunningProcessAndNotAZombie(t *testing.T) {
	cmd := start(t, exec.Command("sleep", "60"))
	p := find(t, cmd)
	if !p.Running() || p.Args[0] != "sleep" {
		t.Errorf("got %v", p)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Not waited for, so it stays as a zombie, to which signal 0 still gets through.
	eventually(t, "the zombie counts as gone", func() bool { return !p.Running() })
	if err := syscall.Kill(p.PID, 0); err != nil {
		t.Errorf("signal 0: %v: this was no zombie, the test shows nothing", err)
	}
	if _, ok := process.Find(p.PID); ok {
		t.Error("Find returns a zombie")
	}
}

// Each sign of a task by itself, and none of them on others.
func TestTasksAndHelpersAreToldFromOthers(t *testing.T) {
	dir := t.TempDir()
	alloc := filepath.Join(dir, "nomad", "data", "alloc", "1234")
	database := filepath.Join(dir, "data", "redis")
	for _, folder := range []string{alloc, database} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	marked := exec.Command("sleep", "60")
	marked.Env = append(os.Environ(), "NOMAD_ALLOC_DIR="+alloc)
	marked.Dir = "/" // tasks may go where they like

	helper := exec.Command(os.Args[0]) // this test under another name
	helper.Args = []string{"nomad", "executor"}
	helper.Env = append(os.Environ(), "PROCESS_TEST_WAIT=child")
	helper.Dir = alloc

	recorded := exec.Command("sleep", "60")
	recorded.Dir = database

	person := exec.Command("sleep", "60") // somebody's shell in the folder
	person.Dir = database
	neighbour := exec.Command("sleep", "60") // another fleet's task
	neighbour.Env = append(os.Environ(), "NOMAD_ALLOC_DIR="+dir+"-other/alloc")

	tasks := map[int]string{find(t, start(t, marked)).PID: "marked", find(t, start(t, recorded)).PID: "recorded"}
	runningHelper := find(t, start(t, helper))
	start(t, person)
	start(t, neighbour)
	pid := []byte(strconv.Itoa(recorded.Process.Pid) + "\n")
	if err := os.WriteFile(filepath.Join(database, "redis.pid"), pid, 0o644); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff([]process.Process{runningHelper}, process.Helpers(dir)); diff != "" {
		t.Errorf("helpers: %s", diff)
	}
	eventually(t, "the helper has a child", func() bool { return len(process.Tasks(dir)) > len(tasks) })
	for _, p := range process.Tasks(dir) {
		if p.Parent == runningHelper.PID {
			tasks[p.PID] = "child"
		}
		if tasks[p.PID] == "" {
			t.Errorf("%v is counted as a task", p)
		}
		if !process.OwnedBy(p, dir) {
			t.Errorf("%v is a task and not owned", p)
		}
		delete(tasks, p.PID)
	}
	for _, name := range tasks {
		t.Errorf("the %s task is not found", name)
	}
}

func TestStopKillsWhatIgnoresTheSignal(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	polite := find(t, reaped(t, exec.Command("sleep", "60")))
	stubborn := find(t, reaped(t, exec.Command("sh", "-c", `trap "" TERM; : >"$0"; while :; do sleep 1; done`, ready)))
	eventually(t, "the trap is set", func() bool { _, err := os.Stat(ready); return err == nil })

	if err := process.Stop(t.Context(), []process.Process{polite, stubborn}, 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if polite.Running() || stubborn.Running() {
		t.Errorf("still running: polite %v, stubborn %v", polite.Running(), stubborn.Running())
	}
}

func TestStopEndsWithItsContext(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	stubborn := find(t, reaped(t, exec.Command("sh", "-c", `trap "" TERM; : >"$0"; while :; do sleep 1; done`, ready)))
	eventually(t, "the trap is set", func() bool { _, err := os.Stat(ready); return err == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := process.Stop(ctx, []process.Process{stubborn}, time.Hour); err == nil {
		t.Error("no error although the process runs on")
	}
	if !stubborn.Running() {
		t.Error("killed although the grace time was not over")
	}
}

func TestRecordedForgetsAnotherProcessWithTheSameNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p := find(t, start(t, exec.Command("sleep", "60")))
	if _, ok, err := process.Recorded(path); ok || err != nil {
		t.Errorf("no file: %v, %v", ok, err)
	}
	if err := process.Record(path, p); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := process.Recorded(path); !ok || err != nil || got.PID != p.PID {
		t.Errorf("got %v, %v, %v", got, ok, err)
	}
	p.Start++
	if err := process.Record(path, p); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := process.Recorded(path); ok {
		t.Error("a process that started at another time was taken for the recorded one")
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := process.Recorded(path); err == nil {
		t.Error("rubbish in the file gave no error")
	}
}

func TestListeningNamesTheHolder(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	taken, holder, known := process.Listening(port)
	if !taken || !known || holder.PID != os.Getpid() {
		t.Errorf("taken %v, known %v, holder %v; want this process", taken, known, holder)
	}
	if !strings.Contains(holder.String(), "process.test") {
		t.Errorf("%q does not name the program", holder.String())
	}
	_ = listener.Close()
	if taken, _, _ := process.Listening(port); taken {
		t.Error("taken after it was closed")
	}
}

func start(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// reaped starts cmd and waits for it at once, as an init would.
func reaped(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return cmd
}

func find(t *testing.T, cmd *exec.Cmd) process.Process {
	t.Helper()
	var p process.Process
	// For a moment after the start the kernel shows none.
	eventually(t, "the process shows its arguments", func() bool {
		var ok bool
		p, ok = process.Find(cmd.Process.Pid)
		return ok && p.Args[0] != ""
	})
	return p
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within 5 s: %s", what)
		case <-tick.C:
		}
	}
}
