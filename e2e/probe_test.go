package e2e_test

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/probe"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/e2e/cluster"
)

// probing is a running probe.
type probing struct {
	t       *testing.T
	address string // of its HTTP
}

// startProbe starts a probe beside the first chat server of a cluster.
func startProbe(t *testing.T, c *cluster.Cluster, slot, messages int) *probing {
	t.Helper()
	home := c.Chats[0]
	p, err := probe.New(probe.Config{
		Instance: home.Name, Release: "test", Home: home.Server.ClientAddr(), Slot: slot, HTTPBind: "127.0.0.1:0",
		ConsulAddr: c.Consul.Addr, Database: c.Database(), Messages: messages, Every: 20 * time.Millisecond,
	}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); err != nil {
			t.Errorf("the probe ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return &probing{t, p.HTTPAddr()}
}

// check asks what Consul's check would.
func (p *probing) check() (code int, text string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.address+"/readyz", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// passes waits until the check passes; a broken promise on the way fails the test.
func (p *probing) passes(when string) {
	p.t.Helper()
	testenv.Until(p.t, "the check passes "+when, func() bool {
		code, text := p.check()
		if strings.Contains(text, probe.Broken) {
			p.t.Fatalf("%s: %s", when, text)
		}
		return code == http.StatusOK
	})
}

// verified is how many messages the check says are verified.
func (p *probing) verified() string {
	_, text := p.check()
	return text
}

// A probe proves a fleet that works, and reports no false loss: pushes that are
// dropped and repaired, servers and databases that are killed.
func TestProbe(t *testing.T) {
	var pushes atomic.Uint64
	c := cluster.Run(t, cluster.Config{Chats: 3, Own: true, Chat: func(cfg *chat.Config) {
		cfg.Hooks.DropPush = func(*chatv1.Event) bool { return pushes.Add(1)%300 == 0 }
	}})
	p := startProbe(t, c, 1, 2000)
	if code, text := p.check(); code == http.StatusOK {
		t.Errorf("it passes before the proof: %s", text)
	}
	p.passes("after the proof")
	again := startProbe(t, c, 1, 200) // the same accounts, at the same time
	again.passes("beside the first")

	more := func(what string) {
		t.Helper()
		before := p.verified()
		testenv.Until(t, "more is verified "+what, func() bool {
			code, text := p.check()
			if strings.Contains(text, probe.Broken) {
				t.Fatalf("%s: %s", what, text)
			}
			return code == http.StatusOK && text != before
		})
	}
	more("at rest")
	c.MariaDB.Kill()
	c.MariaDB.Start(t)
	more("after the database's death")
	c.Chats[1].Stop()
	c.AddChat()
	more("after a chat server left and another came")
	c.Redis.Kill()
	c.Redis.Start(t)
	more("after Redis' death")
	c.Consul.Kill()
	more("without Consul")
	c.Consul.Start(t)
	more("with Consul again")
	p.passes("at the end")
	again.passes("at the end")
}

// A log that loses one row in a hundred is detected in the proof, and the check
// never passes.
func TestProbeFindsLostMessages(t *testing.T) {
	c := cluster.Run(t, cluster.Config{Chats: 2})
	db := testenv.Open(t, c.Database())
	stop := make(chan struct{})
	defer close(stop)
	go steal(db, stop)
	p := startProbe(t, c, 2, 4000)
	testenv.Until(t, "the probe finds a loss", func() bool {
		code, text := p.check()
		if code == http.StatusOK {
			t.Fatalf("the proof succeeded: %s", text)
		}
		return strings.Contains(text, probe.Broken+": lost")
	})
	_, text := p.check()
	for _, want := range []string{"acknowledged as number", "chat-"} {
		if !strings.Contains(text, want) {
			t.Errorf("the verdict does not say %q: %s", want, text)
		}
	}
	t.Log(text)
}

// steal removes rows that are not the last of their conversation.
func steal(db *sql.DB, stop chan struct{}) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			_, _ = db.Exec("DELETE e FROM events e JOIN (SELECT conversation_id, MAX(seq) - 1 AS seq" +
				" FROM events GROUP BY conversation_id ORDER BY RAND() LIMIT 1) x" +
				" ON e.conversation_id = x.conversation_id AND e.seq = x.seq")
		}
	}
}

// Probe users are out of reach: people can neither register such a name nor
// write to one.
func TestProbeUsersAreOutOfReach(t *testing.T) {
	c := cluster.Run(t, cluster.Config{Chats: 1})
	p := startProbe(t, c, 3, 32)
	p.passes("after the proof")
	db := testenv.Open(t, c.Database())
	var users int
	row := db.QueryRow("SELECT COUNT(*) FROM users WHERE name LIKE 'probe:3:%'")
	if err := row.Scan(&users); err != nil || users != 8 {
		t.Fatalf("%d probe users, %v", users, err)
	}
	a := c.Register("ann").Connect()
	if _, err := a.WaitOnline(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.OpenDirect(t.Context(), "probe:3:here:0"); err == nil {
		t.Error("a person opened a conversation with a probe")
	}
}
