package engines_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/device"
	"github.com/msrchat/msrchat/shared/testenv"
)

// The node of a Galera cluster that is written to is killed and cut off from the
// others, again and again, while people talk; the journals and the log prove that nothing was lost.
func TestGalera(t *testing.T) {
	if rounds() == 0 {
		t.Skip("not run: it takes minutes; ./justw engines runs it")
	}
	g := testenv.StartGalera(t)
	cfg := g.Database(t)
	c := cluster.Run(t, cluster.Config{Chats: 3, MySQL: &cfg})
	crowd := newCrowd(t, c)
	defer crowd.Close()
	w := newWatch()
	witnesses := pairs(t, c, w, len(c.Chats))

	const rate = 250 // messages a second
	talking, stop := context.WithCancel(t.Context())
	var talk errgroup.Group
	talk.Go(func() error { return crowd.Talk(talking, rate) })
	var writer *testenv.Process
	for i := range rounds() {
		for _, f := range []struct {
			name string
			do   func()
		}{
			{"killed", func() {
				writer.Signal(t, syscall.SIGSTOP) // it shall have messages under way
				testenv.Until(t, "messages are unacknowledged", func() bool { return crowd.Unsettled() >= 20 })
				writer.Kill()
			}},
			{"cut off", func() { g.Isolate(t, writer, true) }},
		} {
			said := crowd.Counts().Typed
			testenv.Until(t, "a second of talk", func() bool { return crowd.Counts().Typed >= said+rate })
			writer = g.Writer(t, cfg.Name)
			f.do()
			under, at := crowd.Unsettled(), time.Now()
			var sending sync.WaitGroup
			for _, p := range witnesses {
				sending.Go(func() { w.send(t, p, "the writer's node "+f.name) })
			}
			sending.Wait()
			t.Logf("round %2d: %s %s, %d unacknowledged; acknowledged again after %.1f s",
				i+1, writer.Addr, f.name, under, time.Since(at).Seconds())
			// Started again in both cases: after a cut that ends by itself it takes Galera a
			// while to connect each node with each other one, and nothing says when. A node
			// that dies before that may leave the other two without a majority.
			writer.Kill()
			writer.Start(t)
			g.Settle(t)
		}
	}
	stop()
	if err := talk.Wait(); err != nil {
		t.Fatal(err)
	}
	w.allShown(t)
	w.print(t, testenv.Patience)
	judge(t, c, crowd, rate)
}

// newCrowd is twenty people.
func newCrowd(t *testing.T, c *cluster.Cluster) *device.Crowd {
	t.Helper()
	people, conversations, err := account.MakePairs(t.Context(), testenv.Open(t, c.Database()),
		account.Order{Run: "crowd", Count: 20})
	if err != nil {
		t.Fatal(err)
	}
	crowd, err := device.NewCrowd(t.Context(), device.CrowdOptions{
		Gate: c.GateClient(), People: people, Conversations: conversations, Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return crowd
}

// judge compares what a crowd typed, had acknowledged and was shown with the log.
func judge(t *testing.T, c *cluster.Cluster, crowd *device.Crowd, minimum int) {
	t.Helper()
	waiting, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	quiet, err := crowd.Quiet(waiting, cluster.Heartbeat)
	if err != nil {
		t.Error(err) // the report says more
	}
	run, err := check.Read(t.Context(), testenv.Open(t, c.Database()), crowd.Journals())
	if err != nil {
		t.Fatal(err)
	}
	run.Quiet, run.Heartbeat, run.Minimum = quiet, cluster.Heartbeat, minimum
	report := run.Check()
	t.Logf("%s", report)
	if err := report.Err(); err != nil {
		dir, saving := os.MkdirTemp("", "msrchat-run-") //nolint:usetesting // it outlives the test
		if saving == nil {
			saving = run.Save(dir)
		}
		t.Error(err, fmt.Sprintf("the run is in %s (%v)", dir, saving))
	}
}
