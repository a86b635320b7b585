package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/internal/fake"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/client/timeline"
)

// patience bounds every wait in these tests; the machine may be busy.
const patience = 30 * time.Second

// quick are waits for tests.
var quick = client.Backoff{
	First: 5 * time.Millisecond, Base: 10 * time.Millisecond, Cap: 50 * time.Millisecond, Stable: 20 * time.Millisecond,
}

// world is a chat service with servers s1, s2, … and the users alice and bob.
type world struct {
	log     *fake.Log
	gate    *fake.Gate
	servers []*fake.Server
	api     *client.Gate
	session map[string]client.Session
	conv    uint64 // of alice and bob
}

func newWorld(t testing.TB, servers int) *world {
	t.Helper()
	w := &world{log: fake.NewLog(), session: map[string]client.Session{}}
	w.user("alice")
	w.user("bob")
	for i := range servers {
		w.servers = append(w.servers, fake.NewServer(t, w.log, fmt.Sprintf("s%d", i+1)))
	}
	w.gate = fake.NewGate(t, w.log)
	var err error
	if w.api, err = client.NewGate(w.gate.URL, nil); err != nil {
		t.Fatal(err)
	}
	w.conv = w.log.Open("alice", "bob")
	return w
}

func (w *world) user(name string) {
	id, token := w.log.AddUser(name)
	w.session[name] = client.Session{Token: token, User: client.User{ID: id, Name: name}}
}

// shut has every server refuse and drop its clients.
func (w *world) shut() {
	for _, s := range w.servers {
		s.Do(func(f *fake.Faults) {
			f.Hello = func(*chatv1.Hello) *chatv1.Goodbye {
				return &chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, Reconnect: true}
			}
		})
		s.Cut()
	}
}

// fresh is a store as it is right after registering.
func fresh(t testing.TB) store.Store {
	t.Helper()
	s := store.NewMemory(10_000)
	if err := s.SetListed(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// person is a client whose events are recorded.
type person struct {
	*client.Client
	t testing.TB

	mu       sync.Mutex
	received map[uint64][]client.Message // under mu
	rows     map[uint64]*timeline.Log    // as shown: what was received and paged; under mu
	links    []client.Link               // under mu
	sends    []client.Outgoing           // under mu
	resets   int                         // under mu
	own      map[uint64]client.OwnState  // as shown: read at the start, reported or set since; under mu
	sets     map[uint64]uint64           // calls of SetDraft; under mu
	moves    map[uint64]uint64           // conversations resolved; under mu
	about    map[uint64]bool             // conversations that something was reported about; under mu
	outbox   int                         // OutboxChanged events; under mu
	ended    chan struct{}
}

func (w *world) open(t testing.TB, name string, change ...func(*client.Options)) *person {
	t.Helper()
	opt := client.Options{Gate: w.api, Session: w.session[name], Program: "test/1", Backoff: quick}
	for _, fn := range change {
		fn(&opt)
	}
	if opt.Store == nil {
		opt.Store = fresh(t)
	}
	if testing.Verbose() {
		opt.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil)).With("who", name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c, err := client.Open(ctx, opt)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p := &person{
		Client: c, t: t, received: map[uint64][]client.Message{}, rows: map[uint64]*timeline.Log{},
		own: map[uint64]client.OwnState{}, sets: map[uint64]uint64{}, moves: map[uint64]uint64{},
		about: map[uint64]bool{}, ended: make(chan struct{}),
	}
	all, err := c.Chats(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	for _, chat := range all {
		p.own[chat.ID] = chat.Own
	}
	go p.record()
	t.Cleanup(func() {
		c.Close()
		cancel()
		<-p.ended
	})
	return p
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

// record checks the promise of Received as it records: in order, once, no gap.
func (p *person) record() {
	defer close(p.ended)
	for e := range p.Events() {
		p.mu.Lock()
		switch e := e.(type) {
		case client.Received:
			m := e.Message
			list := p.received[m.Conversation]
			if n := len(list); n > 0 && m.Seq != list[n-1].Seq+1 {
				p.t.Errorf("message %d came after %d", m.Seq, list[n-1].Seq)
			}
			if want := m.Sender == p.Session().User.ID; e.Mine != want {
				p.t.Errorf("message %d: mine is %v", m.Seq, e.Mine)
			}
			p.received[m.Conversation] = append(list, m)
			p.log(m.Conversation).Append(m)
			p.about[m.Conversation] = true
		case client.LinkChanged:
			p.links = append(p.links, e.Link)
		case client.SendChanged:
			p.sends = append(p.sends, e.Outgoing)
			p.about[e.Outgoing.Conversation] = true
		case client.OutboxChanged:
			p.outbox++
		case client.OwnStateChanged:
			e.Own.Read = max(e.Own.Read, p.own[e.Conversation].Read)
			if p.sets[e.Conversation] > e.Sets {
				e.Own.Draft = p.own[e.Conversation].Draft
			}
			p.own[e.Conversation] = e.Own
			p.about[e.Conversation] = true
		case client.ConversationChanged:
			p.about[e.Conversation] = true
		case client.ConversationResolved:
			p.moves[e.From] = e.To
			p.sets[e.To] += p.sets[e.From]
			if p.about[e.To] {
				p.t.Errorf("conversation %d was resolved after something about it", e.To)
			}
		case client.Reset:
			p.resets++
			p.received, p.rows = map[uint64][]client.Message{}, map[uint64]*timeline.Log{}
			p.own, p.sets = map[uint64]client.OwnState{}, map[uint64]uint64{}
		}
		p.mu.Unlock()
	}
}

// log needs the lock.
func (p *person) log(conv uint64) *timeline.Log {
	l := p.rows[conv]
	if l == nil {
		l = &timeline.Log{}
		p.rows[conv] = l
	}
	return l
}

// reaches is the last message of a conversation that is shown, or would be.
func (p *person) reaches(conv uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hi := p.log(conv).Hi(); hi > 0 {
		return hi
	}
	if c := p.chat(conv); c.Last != nil {
		return c.Last.Seq
	}
	return 0
}

// scrollUp loads pages up to the first message and returns all rows.
func (p *person) scrollUp(conv uint64) (rows []string) {
	p.t.Helper()
	for {
		p.mu.Lock()
		lo := p.log(conv).Lo()
		p.mu.Unlock()
		page, err := p.Messages(context.Background(), conv, lo, 7)
		if err != nil {
			p.t.Fatal(err)
		}
		p.mu.Lock()
		p.log(conv).Prepend(page...)
		done := len(page) == 0 || p.log(conv).Lo() == 1
		for _, r := range p.log(conv).Rows() {
			if done {
				rows = append(rows, fmt.Sprint(r.Event.Seq, r.Event.Ordinal, r.Text, r.Hidden))
			}
		}
		p.mu.Unlock()
		if done {
			return rows
		}
	}
}

func (p *person) texts(conv uint64) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []string{}
	for _, m := range p.received[conv] {
		out = append(out, m.Text())
	}
	return out
}

// shown is the own state that the application shows.
func (p *person) shown(conv uint64) client.OwnState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own[conv]
}

// chat is what the person's store has of a conversation.
func (p *person) chat(conv uint64) client.Cached {
	p.t.Helper()
	all, err := p.Chats(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range all {
		if c.ID == conv {
			return c
		}
	}
	return client.Cached{}
}

func (p *person) draft(conv uint64, text string) {
	p.t.Helper()
	p.mu.Lock()
	own := p.own[conv]
	own.Draft = text
	p.own[conv] = own
	p.sets[conv]++
	p.mu.Unlock()
	if err := p.SetDraft(context.Background(), conv, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) read(conv, seq uint64) {
	p.t.Helper()
	p.mu.Lock()
	own := p.own[conv]
	own.Read = max(own.Read, seq)
	p.own[conv] = own
	p.mu.Unlock()
	if err := p.SetRead(context.Background(), conv, seq); err != nil {
		p.t.Fatal(err)
	}
}

// until polls a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond) // between looks at a condition
	}
}

func (p *person) untilTexts(conv uint64, want []string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := p.texts(conv)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("received %d messages %.300q, want %d %.300q", len(got), got, len(want), want)
		}
		time.Sleep(time.Millisecond) // between looks at a condition
	}
}

func (p *person) untilState(s client.LinkState) client.Link {
	p.t.Helper()
	var l client.Link
	until(p.t, s.String(), func() bool { l = p.Link(); return l.State == s })
	return l
}

func (p *person) send(conversation uint64, text string) client.Outgoing {
	p.t.Helper()
	out, err := p.Send(context.Background(), conversation, text)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// contact is the conversation with somebody, as far as it is known.
func (p *person) contact(name string) client.Cached {
	p.t.Helper()
	c, err := p.Contact(context.Background(), name)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p *person) sendTo(name, text string) client.Outgoing {
	p.t.Helper()
	return p.send(p.contact(name).ID, text)
}

func (p *person) wait(out client.Outgoing) client.Outgoing {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := p.Wait(ctx, out.ID)
	if err != nil {
		p.t.Fatalf("wait for %q: %v", out.Text(), err)
	}
	return got
}

// numbered are the texts "prefix 1" to "prefix n".
func numbered(prefix string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s %d", prefix, i+1))
	}
	return out
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
