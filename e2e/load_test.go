package e2e_test

import (
	"testing"
	"time"

	"github.com/msrchat/msrchat/bench/crowd"
	"github.com/msrchat/msrchat/bench/dial"
	"github.com/msrchat/msrchat/bench/load"
	"github.com/msrchat/msrchat/bench/place"
	"github.com/msrchat/msrchat/bench/users"
	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/e2e/cluster"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/testenv"
	"github.com/msrchat/msrchat/shared/wire"
)

// benchUsers makes accounts that go where the gate assigns.
func benchUsers(t *testing.T, c *cluster.Cluster, n int) *users.Users {
	t.Helper()
	choose, err := place.Gate(c.GateURL())
	if err != nil {
		t.Fatal(err)
	}
	dialer := dial.New(nil)
	t.Cleanup(dialer.Keeper.Close)
	u, err := users.Make(t.Context(), testenv.Open(t, c.Database()), n, dialer, choose)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The load program's numbers are right: what it sent is in the log once, and
// was acknowledged and delivered; also where one push in fifty is dropped, and
// in a closed and an open loop.
func TestLoad(t *testing.T) {
	pushes := 0
	c := cluster.Run(t, cluster.Config{Chat: func(cfg *chat.Config) {
		if cfg.Instance == "chat-3" { // only one of the two, whose fan-out is one goroutine
			cfg.Hooks.DropPush = func(*chatv1.Event) bool {
				pushes++
				return pushes%50 == 0
			}
		}
	}})
	const clients = 20
	p := benchUsers(t, c, clients)
	db := testenv.Open(t, c.Database())
	logged := int64(0)
	for name, cfg := range map[string]load.Config{
		"closed": {Clients: clients, Window: 8, MinSize: 1, MaxSize: 500},
		"open":   {Clients: clients, Rate: 300, MinSize: 64, MaxSize: 64},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Warmup, cfg.Duration, cfg.Settle = 200*time.Millisecond, time.Second, testenv.Patience
			servers := make(map[string]bool)
			got, err := load.Run(t.Context(), cfg, p, load.Hooks{Connected: func(conns []*wire.Conn) {
				for _, c := range conns {
					servers[c.Address()] = true
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := got.Broken(); err != nil {
				t.Error(err)
			}
			if got.Sent == 0 || got.Acked != got.Sent || got.Delivered != got.Sent || got.Unanswered != 0 ||
				len(got.Errors) != 0 || got.Interrupted {
				t.Errorf("got %+v", got)
			}
			if got.Measured == 0 || got.Delivery.Count != got.Measured || got.Ack.Count == 0 || got.Delivery.P50 <= 0 {
				t.Errorf("measured %+v", got)
			}
			if len(servers) != 2 {
				t.Errorf("the load was on %v", servers)
			}
			var rows int64
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM events").Scan(&rows); err != nil {
				t.Fatal(err)
			}
			if logged += got.Sent; rows != logged {
				t.Errorf("%d messages are in the log, %d were sent", rows, logged)
			}
		})
	}
}

// All clients of a server that ends come back, and are told so.
func TestStorm(t *testing.T) {
	c := cluster.Run(t, cluster.Config{})
	const clients = 60
	p := benchUsers(t, c, clients)
	crowd := crowd.New(clients, p.Connect)
	defer crowd.Close()
	if err := crowd.Enter(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "everybody knows the heads", func() bool { return crowd.State().Synced == clients })
	c.Chats[0].Stop()
	testenv.Until(t, "some lost their server, and everybody is back", func() bool {
		s := crowd.State()
		return s.Lost > 0 && s.Synced == clients && s.Connected == clients
	})
	s := crowd.State()
	if got := crowd.Back(); got.Count != s.Lost || s.LastBack.Before(s.FirstLoss) || s.Lost >= clients {
		t.Errorf("%+v came back in %+v", s, got)
	}
	if got := crowd.Entered().Count; got != clients {
		t.Errorf("%d of %d entered", got, clients)
	}
}
