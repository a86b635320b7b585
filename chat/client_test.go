package chat_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/cache"
	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/discovery/consul"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/session"
	"github.com/msrchat/msrchat/shared/testenv"
)

// heartbeat of the servers under test.
const heartbeat = time.Second

// fleet is some chat servers on real databases and a real Consul.
type fleet struct {
	t        *testing.T
	db       database.Config
	sql      *sql.DB
	maria    *testenv.MariaDBServer // nil when shared
	redis    cache.Config
	consul   *testenv.ConsulAgent
	sessions *session.Store
	users    int
}

// newFleet starts what the servers need. A test that stops its database needs one
// of its own.
func newFleet(t *testing.T, ownDatabase bool) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: testenv.Redis(t), consul: testenv.StartConsul(t)}
	if ownDatabase {
		f.maria = testenv.StartMariaDB(t)
		f.db = f.maria.Database(t)
	} else {
		f.db = testenv.MariaDB(t)
	}
	f.sql = testenv.Open(t, f.db)
	f.sessions = session.NewStore(f.sql, nil)
	return f
}

// running is a server that a test may stop.
type running struct {
	*chat.Server
	stop func() // waits for the end
}

// catalog is a client of its own for each process.
func (f *fleet) catalog() discovery.Catalog {
	f.t.Helper()
	catalog, err := consul.New(f.consul.Addr)
	if err != nil {
		f.t.Fatal(err)
	}
	return catalog
}

func (f *fleet) start(instance string, change ...func(*chat.Config)) *running {
	f.t.Helper()
	local := chat.Listener{Bind: "127.0.0.1:0"}
	cfg := chat.Config{
		Instance:  instance,
		Release:   "test",
		Client:    local,
		Relay:     local,
		Health:    local,
		HTTP:      local,
		Database:  f.db,
		Redis:     f.redis,
		Catalog:   f.catalog(),
		Register:  true,
		Heartbeat: heartbeat,
		Drain:     300 * time.Millisecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("MSRCHAT_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := chat.New(cfg, log)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			f.t.Errorf("%s ended: %v", instance, err)
		}
	}()
	stop := func() {
		cancel()
		<-done
	}
	f.t.Cleanup(stop)
	return &running{s, stop}
}

// linked waits until every server has links to all others.
func linked(t *testing.T, servers ...*running) {
	t.Helper()
	want := fmt.Sprintf("\nmsrchat_peer_links %d\n", len(servers)-1)
	for _, s := range servers {
		testenv.Until(t, "the servers link", func() bool {
			return strings.Contains(get(t, "http://"+s.HTTPAddr()+"/metrics"), want)
		})
	}
}

// person is a user with a session.
type person struct {
	id    uint64
	name  string
	token []byte
	sess  session.Session
}

func (f *fleet) person() person {
	f.t.Helper()
	f.users++
	p := person{name: fmt.Sprintf("user%d", f.users)}
	made, err := f.sql.Exec("INSERT INTO users (name, name_key, email, email_key, password_hash, created_at)"+
		" VALUES (?, ?, ?, ?, '', 1)", p.name, p.name, p.name+"@x", p.name+"@x")
	if err != nil {
		f.t.Fatal(err)
	}
	id, err := made.LastInsertId()
	if err != nil {
		f.t.Fatal(err)
	}
	p.id = uint64(id)
	if p.token, p.sess, err = f.sessions.Create(f.t.Context(), p.id, "test", ""); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// wire is a bare client: it writes and reads frames and keeps the pushes.
type wire struct {
	t       *testing.T
	nc      net.Conn
	writing sync.Mutex
	request uint64
	welcome *chatv1.Welcome
	pushes  []*chatv1.ServerFrame
}

// patience bounds every wait for a frame.
const patience = 30 * time.Second

func dial(t *testing.T, address string) *wire {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &wire{t: t, nc: nc}
}

// login connects and waits for Welcome and the first heads.
func login(t *testing.T, s *running, p person) *wire {
	t.Helper()
	w := dial(t, s.ClientAddr())
	w.write(helloFrame(1, p.token))
	f := w.read()
	if w.welcome = f.GetWelcome(); w.welcome == nil {
		t.Fatalf("no Welcome but %v", f)
	}
	heads := w.await("the first heads", func(f *chatv1.ServerFrame) bool { return f.GetHeads() != nil })
	w.pushes = append(w.pushes, heads)
	go w.ping()
	return w
}

// helloFrame is the first frame of a client with this protocol version and token.
func helloFrame(protocol uint32, token []byte) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_Hello{
		Hello: &chatv1.Hello{Protocol: protocol, Token: token, Client: "test"},
	}}
}

// ping keeps the connection alive until it is closed.
func (w *wire) ping() {
	b, _ := frame.Append(nil, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	for range time.Tick(heartbeat / 2) {
		w.writing.Lock()
		_, err := w.nc.Write(b)
		w.writing.Unlock()
		if err != nil {
			return
		}
	}
}

func (w *wire) write(f *chatv1.ClientFrame) {
	w.t.Helper()
	b, err := frame.Append(nil, f)
	if err != nil {
		w.t.Fatal(err)
	}
	w.raw(b)
}

func (w *wire) raw(b []byte) {
	w.t.Helper()
	w.writing.Lock()
	defer w.writing.Unlock()
	if _, err := w.nc.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) read() *chatv1.ServerFrame {
	w.t.Helper()
	f, err := w.next(patience)
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return f
}

func (w *wire) next(limit time.Duration) (*chatv1.ServerFrame, error) {
	if err := w.nc.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	for {
		f := &chatv1.ServerFrame{}
		_, err := frame.Read(w.nc, 4<<20, nil, f)
		if err != nil || f.GetPong() == nil {
			return f, err
		}
	}
}

// call makes a request and returns its answer.
func (w *wire) call(f *chatv1.ClientFrame) *chatv1.ServerFrame {
	w.t.Helper()
	w.request++
	f.RequestId = w.request + 100
	w.write(f)
	for {
		answer := w.read()
		switch {
		case answer.GetRequestId() == f.GetRequestId():
			return answer
		case answer.GetGoodbye() != nil:
			w.t.Fatalf("goodbye instead of an answer: %v", answer)
		}
		w.pushes = append(w.pushes, answer)
	}
}

func (w *wire) openDirect(name string) *chatv1.Conversation {
	w.t.Helper()
	answer := w.call(openDirectFrame(name))
	if answer.GetConversation() == nil {
		w.t.Fatalf("open %s: %v", name, answer)
	}
	return answer.GetConversation()
}

func openDirectFrame(name string) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: name},
	}}
}

func listFrame() *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ListConversations{
		ListConversations: &chatv1.ListConversations{},
	}}
}

func message(conversation uint64, text string) *chatv1.ClientFrame {
	id := make([]byte, 16)
	rand.Read(id)
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{
		Send: &chatv1.Send{ConversationId: conversation, ClientMsgId: id, Body: []byte(text)},
	}}
}

func (w *wire) send(conversation uint64, text string) *chatv1.Sent {
	w.t.Helper()
	answer := w.call(message(conversation, text))
	if answer.GetSent() == nil {
		w.t.Fatalf("send %q: %v", text, answer)
	}
	return answer.GetSent()
}

// await reads pushes until one is wanted, and returns it.
func (w *wire) await(what string, wanted func(*chatv1.ServerFrame) bool) *chatv1.ServerFrame {
	w.t.Helper()
	for {
		for i, f := range w.pushes {
			if wanted(f) {
				w.pushes = append(w.pushes[:i:i], w.pushes[i+1:]...)
				return f
			}
		}
		f, err := w.next(patience)
		if err != nil {
			w.t.Fatalf("waiting for %s: %v", what, err)
		}
		w.pushes = append(w.pushes, f)
	}
}

func (w *wire) event(text string) *chatv1.Event {
	w.t.Helper()
	return w.await("event "+text, func(f *chatv1.ServerFrame) bool {
		return f.GetEvent() != nil && string(f.GetEvent().GetBody()) == text
	}).GetEvent()
}

// head waits for a head of a conversation that is at least seq.
func (w *wire) head(conversation, seq uint64) {
	w.t.Helper()
	w.await(fmt.Sprintf("head %d", seq), func(f *chatv1.ServerFrame) bool {
		for _, h := range f.GetHeads().GetHeads() {
			if h.GetConversationId() == conversation && h.GetSeq() >= seq {
				return true
			}
		}
		return false
	})
}

func (w *wire) goodbye() *chatv1.Goodbye {
	w.t.Helper()
	return w.await("goodbye", func(f *chatv1.ServerFrame) bool { return f.GetGoodbye() != nil }).GetGoodbye()
}

func historyFrame(conversation, after uint64) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
		History: &chatv1.History{ConversationId: conversation, After: after},
	}}
}

func (w *wire) history(conversation, after uint64) *chatv1.HistoryPage {
	w.t.Helper()
	answer := w.call(historyFrame(conversation, after))
	if answer.GetHistoryPage() == nil {
		w.t.Fatalf("history: %v", answer)
	}
	return answer.GetHistoryPage()
}
