package device_test

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/proof/account"
	"github.com/msrchat/msrchat/shared/conversation"
	"github.com/msrchat/msrchat/shared/discovery/memory"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

const heartbeat = time.Second

// world is one chat server with its databases, and people in pairs. It is the
// gate, too: it assigns that server, or is away.
type world struct {
	db            *sql.DB
	people        []account.Account
	conversations map[uint64]conversation.Pair
	conversation  uint64 // that of the first two

	address string
	stop    func() // ends the server
	away    atomic.Bool
}

// Assign implements client.Assigner.
func (w *world) Assign(context.Context, client.Token, []string) (client.Assignment, error) {
	if w.away.Load() {
		return client.Assignment{}, errs.New(errs.CodeUnavailable, "the gate is away")
	}
	return client.Assignment{
		Server: client.Endpoint{Instance: "chat-1", Address: w.address}, ExpiresAt: time.Now().Add(time.Minute),
	}, nil
}

func newWorld(t *testing.T, people, devices int) *world {
	t.Helper()
	cfg := testenv.MariaDB(t)
	w := &world{db: testenv.Open(t, cfg)}
	var err error
	order := account.Order{Run: "d", Count: people, Devices: devices}
	w.people, w.conversations, err = account.MakePairs(t.Context(), w.db, order)
	if err != nil {
		t.Fatal(err)
	}
	for id, pair := range w.conversations {
		if pair.A == w.people[0].ID || pair.B == w.people[0].ID {
			w.conversation = id
		}
	}
	catalog := memory.New()
	t.Cleanup(catalog.Close)
	local := chat.Listener{Bind: "127.0.0.1:0"}
	server, err := chat.New(chat.Config{
		Instance: "chat-1", Release: "test", Client: local, Relay: local, Health: local, HTTP: local,
		Database: cfg, Redis: testenv.Redis(t),
		Catalog: catalog, Register: true,
		Heartbeat: heartbeat, Drain: 100 * time.Millisecond,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("chat server: %v", err)
		}
	})
	t.Cleanup(w.stop)
	w.address = server.ClientAddr()
	return w
}
