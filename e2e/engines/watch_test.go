// Package engines_test runs the whole system on a Redis Cluster and on a MariaDB
// Galera cluster, and harms these while people talk. See docs/engines.md for the
// results.
package engines_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/e2e/cluster"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/shared/testenv"
)

// rounds is how often each fault is done, 0 for the short form.
func rounds() int {
	n, _ := strconv.Atoi(os.Getenv("MSRCHAT_ENGINE_ROUNDS")) // 0 if there is no number
	return n
}

// pair is two people on two servers; the first writes to the second.
type pair struct {
	writer, reader *client.Client
	conversation   uint64
	readerID       uint64
	readerServer   string
	n              atomic.Int64 // messages so far
}

// watch has the time until each message was shown. The mutex owns the fields.
type watch struct {
	mu     sync.Mutex
	sent   map[string]time.Time // by text, of those not shown yet
	took   map[string][]time.Duration
	labels map[string]string // of a message by text
}

func newWatch() *watch {
	return &watch{
		sent: make(map[string]time.Time), took: make(map[string][]time.Duration), labels: make(map[string]string),
	}
}

// send has a pair's writer send a message, and waits until it is acknowledged. The
// label is where its time is counted.
func (w *watch) send(t testing.TB, p *pair, label string) {
	t.Helper()
	text := fmt.Sprintf("%d %d", p.conversation, p.n.Add(1))
	w.mu.Lock()
	w.sent[text], w.labels[text] = time.Now(), label
	w.mu.Unlock()
	out, err := p.writer.Send(context.Background(), p.conversation, text)
	if err != nil {
		t.Errorf("send: %v", err)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if _, err := p.writer.Wait(ctx, out.ID); err != nil && t.Context().Err() == nil {
		t.Errorf("send: %v", err)
	}
}

// read takes what a reader is shown until its client is closed.
func (w *watch) read(t testing.TB, c *client.Client) {
	t.Helper()
	for e := range c.Events() {
		got, ok := e.(client.Received)
		if !ok {
			continue
		}
		now, text := time.Now(), got.Message.Text()
		w.mu.Lock()
		if at, ok := w.sent[text]; ok {
			label := w.labels[text]
			w.took[label] = append(w.took[label], now.Sub(at))
			delete(w.sent, text)
			delete(w.labels, text)
		} else {
			t.Errorf("%q was shown and not sent, or shown twice", text)
		}
		w.mu.Unlock()
	}
}

// allShown waits until every message was shown.
func (w *watch) allShown(t testing.TB) {
	t.Helper()
	testenv.Until(t, "every message is shown", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.sent) == 0
	})
}

// print prints the times of each label, and fails the test where a message took
// longer than a limit.
func (w *watch) print(t testing.TB, limit time.Duration) {
	t.Helper()
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "what\tmessages\tshown after: median\tworst")
	w.mu.Lock()
	defer w.mu.Unlock()
	labels := make([]string, 0, len(w.took))
	for label := range w.took {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	for _, label := range labels {
		took := w.took[label]
		slices.Sort(took)
		worst := took[len(took)-1]
		fmt.Fprintf(table, "%s\t%d\t%.3f s\t%.3f s\n", label, len(took), took[len(took)/2].Seconds(), worst.Seconds())
		if worst > limit {
			t.Errorf("%s: a message was shown after %v, want %v", label, worst, limit)
		}
	}
	_ = table.Flush() // into a string
	t.Logf("a heartbeat is %v\n%s", cluster.Heartbeat, out.String())
}

// pairs connects people, each pair on two servers, and waits until everybody's
// conversations are listed.
func pairs(t *testing.T, c *cluster.Cluster, w *watch, n int) []*pair {
	t.Helper()
	people, conversations, err := account.MakePairs(t.Context(), testenv.Open(t, c.Database()),
		account.Order{Run: "engines", Count: 2 * n})
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[uint64]uint64) // the conversation of a person
	for id, two := range conversations {
		of[two.A], of[two.B] = id, id
	}
	out := make([]*pair, n)
	for i := range out {
		a, b := people[2*i], people[2*i+1]
		from, to := c.Chats[i%len(c.Chats)], c.Chats[(i+1)%len(c.Chats)]
		p := &pair{conversation: of[a.ID], readerID: b.ID, readerServer: to.Name}
		p.writer = connect(t, c, a, client.Endpoint{Instance: from.Name, Address: from.Server.ClientAddr()})
		p.reader = connect(t, c, b, client.Endpoint{Instance: to.Name, Address: to.Server.ClientAddr()})
		go w.read(t, p.reader)
		go drain(p.writer)
		out[i] = p
	}
	for _, p := range out { // a client shows what comes after it listed its conversations
		for _, cl := range []*client.Client{p.writer, p.reader} {
			testenv.Until(t, "the conversation is listed", func() bool {
				list, err := cl.Chats(t.Context())
				return err == nil && len(list) == 1
			})
		}
	}
	return out
}

// connect connects a person to a server.
func connect(t *testing.T, c *cluster.Cluster, who account.Account, at client.Endpoint) *client.Client {
	t.Helper()
	cl, err := client.Open(context.Background(), client.Options{
		Gate: c.GateClient(), Session: who.Sessions[0], Store: store.NewMemory(1000), Program: "e2e", FirstPage: -1,
		Assignment: &client.Assignment{Server: at, ExpiresAt: time.Now().Add(testenv.Patience)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if link, err := cl.WaitOnline(t.Context()); err != nil || link.Instance != at.Instance {
		t.Fatalf("%s is on %s (%v), want %s", who.Name, link.Instance, err, at.Instance)
	}
	return cl
}

// drain takes events that nobody looks at.
func drain(c *client.Client) {
	for range c.Events() {
	}
}

// talk has pairs write rate messages a second together until ctx ends; done waits for
// that. label says where they are counted at the moment.
func (w *watch) talk(
	ctx context.Context, t testing.TB, pairs []*pair, rate int, label func() string,
) (done func()) {
	t.Helper()
	var talking sync.WaitGroup
	for _, p := range pairs {
		talking.Go(func() {
			ticker := time.NewTicker(time.Duration(len(pairs)) * time.Second / time.Duration(rate))
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					w.send(t, p, label())
				}
			}
		})
	}
	return talking.Wait
}
