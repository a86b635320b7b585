package nodes_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/tools/nodes"
)

// heartbeat of the chat servers: users notice that theirs is gone after two.
const heartbeat = 2 * time.Second

// folder is where the fleet's state is: beside the local fleet's, so that the
// next run and the recipe find what one left behind.
func folder(t testing.TB) (root, state string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	state = os.Getenv("MSRCHAT_STATE")
	if state == "" {
		state = filepath.Join(root, ".fleet")
	}
	return root, nodes.Folder(state)
}

// up starts the fleet, which ends with the test, also by Ctrl-C.
func up(t *testing.T) *nodes.Fleet {
	t.Helper()
	if os.Getenv("MSRCHAT_NODES") == "" {
		t.Skip("not run: ./justw nodes does it, in two minutes")
	}
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("not run: nodes are network namespaces, which need Linux and root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("not run: the program ip is not installed (Debian: iproute2)")
	}
	for _, program := range []string{"mariadbd", "redis-server"} { // Nomad runs them
		testenv.Find(t, program)
	}
	root, state := folder(t)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	f, err := nodes.Up(ctx, nodes.Config{
		Root: root, State: state, Consul: testenv.Find(t, "consul"), Nomad: testenv.Find(t, "nomad"),
		Heartbeat: heartbeat, Out: testWriter{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	down := context.AfterFunc(ctx, func() {
		err := f.Down(context.Background())
		fmt.Fprintln(os.Stderr, "interrupted; the nodes are removed:", err)
		stop() // the next one is deadly again
		_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	})
	t.Cleanup(func() {
		if !down() {
			<-make(chan struct{}) // interrupted: the signal ends the program
		}
		stop()
		if err := f.Down(context.Background()); err != nil {
			t.Errorf("take the nodes down: %v", err)
		}
	})
	return f
}

// testWriter shows progress as it comes.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
