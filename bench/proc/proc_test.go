package proc_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/bench/proc"
)

func onlyLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("not run: only Linux has /proc")
	}
}

func TestAProcessSeesWhatItUsed(t *testing.T) {
	onlyLinux(t)
	var set proc.Set
	set.Add(proc.Process{Name: "self 1", PID: os.Getpid()})
	before := set.Snapshot()
	held := make([]byte, 64<<20)
	testenv.Until(t, "this process has used CPU", func() bool {
		for i := range held {
			held[i]++
		}
		used, ok := set.Snapshot().Since(before, "self")
		return ok && used.CPU >= 50*time.Millisecond
	})
	used, ok := set.Snapshot().Since(before, "self")
	if !ok || used.Growth < 32<<20 || used.RSS < used.Growth || used.Instances != 1 {
		t.Errorf("64 MiB were touched, measured %+v", used)
	}
	runtime.KeepAlive(held)
}

func TestTheProcessBehindAPortIsFound(t *testing.T) {
	onlyLinux(t)
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		l, err := net.Listen("tcp", bind)
		if err != nil {
			t.Logf("no listener on %s: %v", bind, err)
			continue
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ask := l.Addr().String()
		if bind == "0.0.0.0:0" {
			ask = "127.0.0.1:" + port
		}
		if pid, err := proc.Listener(ask); err != nil || pid != os.Getpid() {
			t.Errorf("on %s listens %d, %v; want %d", ask, pid, err, os.Getpid())
		}
		_ = l.Close()
		if pid, err := proc.Listener(ask); !errors.Is(err, proc.ErrNotMeasured) {
			t.Errorf("on the closed %s listens %d, %v", ask, pid, err)
		}
	}
}

func TestAProcessThatEndedMakesItsGroupUnmeasured(t *testing.T) {
	a, b := proc.Process{Name: "chat 1", PID: 1}, proc.Process{Name: "chat 2", PID: 2}
	before := proc.Snapshot{a: {CPU: time.Second, RSS: 10}, b: {CPU: time.Second, RSS: 10}}
	after := proc.Snapshot{a: {CPU: 3 * time.Second, RSS: 15}, b: {CPU: 4 * time.Second, RSS: 25}}
	want := proc.Used{CPU: 5 * time.Second, RSS: 40, Growth: 20, Instances: 2}
	if used, ok := after.Since(before, "chat"); !ok || used != want {
		t.Errorf("both used %+v, %v", used, ok)
	}
	delete(after, b)
	if used, ok := after.Since(before, "chat"); ok {
		t.Errorf("with one gone: %+v", used)
	}
	if _, ok := after.Since(before, "nobody"); ok {
		t.Error("a group that does not exist was measured")
	}
}

func TestOnlyWellFormedNamesOfProcessesAreTaken(t *testing.T) {
	if p, err := proc.Parse("chat=42"); err != nil || p != (proc.Process{Name: "chat", PID: 42}) {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, bad := range []string{"", "chat", "chat=", "=1", "chat=-1", "chat=x", "chat=0"} {
		if p, err := proc.Parse(bad); err == nil {
			t.Errorf("%q was taken as %+v", bad, p)
		}
	}
	if name, at, err := proc.ParseListener("redis=127.0.0.1:1"); err != nil || name != "redis" || at != "127.0.0.1:1" {
		t.Errorf("got %q, %q, %v", name, at, err)
	}
	for _, bad := range []string{"", "redis", "redis=1", "=127.0.0.1:1"} {
		if _, _, err := proc.ParseListener(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
