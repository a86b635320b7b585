package tui

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
)

// fakeBackend is a Backend without a network: a store in memory and a server
// that does what the test says.
type fakeBackend struct {
	me     client.User
	store  *store.Memory
	events chan client.Event
	clock  func() time.Time

	mu         sync.Mutex
	link       client.Link
	logs       map[uint64][]client.Message // the server's
	peers      map[uint64]client.Peer
	nextConv   uint64
	people     map[string]uint64 // who exists, by key
	hold       bool              // messages sent stay queued
	refuse     error             // what the server says to Send
	fail       error             // what every network call says
	slow       chan struct{}     // Messages waits for it, if set
	reconnects int
	fetched    int  // calls of Messages
	panics     bool // Messages does
}

func newFake(me string) *fakeBackend {
	return &fakeBackend{
		me: client.User{ID: 1, Name: me}, store: store.NewMemory(1 << 20),
		events: make(chan client.Event, 1<<16), clock: func() time.Time { return testNow },
		link: client.Link{State: client.Online, Instance: "chat-1", Address: "127.0.0.1:7801"},
		logs: map[uint64][]client.Message{}, peers: map[uint64]client.Peer{}, people: map[string]uint64{}, nextConv: 100,
	}
}

// testNow is a Monday.
var testNow = time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)

// person makes somebody known to the server.
func (f *fakeBackend) person(name string) client.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return client.Peer{ID: f.personID(name), Name: name}
}

func (f *fakeBackend) personID(name string) uint64 {
	id := f.people[store.PeerKey(name)]
	if id == 0 {
		id = uint64(len(f.people) + 2)
		f.people[store.PeerKey(name)] = id
	}
	return id
}

// line is a message of a conversation that a test begins with.
type line struct {
	mine bool
	ago  time.Duration
	text string
}

// conversation makes one with a log, of which the newest keep messages are
// stored on this machine.
func (f *fakeBackend) conversation(name string, keep int, lines ...line) uint64 {
	peer := f.person(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextConv++
	id := f.nextConv
	f.peers[id] = peer
	for _, l := range lines {
		f.append(id, l.mine, l.text, f.clock().Add(-l.ago))
	}
	all := f.logs[id]
	from := max(0, len(all)-keep)
	ctx := context.Background()
	must(f.store.PutConversations(ctx, 0, []store.Conversation{{ID: id, Peer: peer, Stored: &store.Range{Lo: uint64(from) + 1, Hi: uint64(from)}}}))
	if from < len(all) {
		if ok, err := f.store.Append(ctx, 0, all[from:]); !ok || err != nil {
			panic(fmt.Sprint("not stored: ", err))
		}
	}
	return id
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// append adds to the server's log; under mu.
func (f *fakeBackend) append(conv uint64, mine bool, text string, at time.Time) client.Message {
	m := client.Message{Conversation: conv, Seq: uint64(len(f.logs[conv]) + 1), Kind: store.KindText, Text: text, At: at, Sender: f.me.ID}
	if !mine {
		m.Sender = f.peers[conv].ID
	}
	m.ID, _ = store.NewMessageID()
	f.logs[conv] = append(f.logs[conv], m)
	return m
}

// say has the peer write, and the client tell it.
func (f *fakeBackend) say(conv uint64, text string) client.Message {
	f.mu.Lock()
	m := f.append(conv, false, text, f.clock())
	peer := f.peers[conv]
	f.mu.Unlock()
	f.received(m, peer)
	return m
}

func (f *fakeBackend) received(m client.Message, peer client.Peer) {
	_, err := f.store.Append(context.Background(), 0, []client.Message{m})
	must(err)
	f.events <- client.Received{Message: m, Peer: peer, Mine: m.Sender == f.me.ID}
}

func (f *fakeBackend) setLink(l client.Link) {
	f.mu.Lock()
	f.link = l
	f.mu.Unlock()
	f.events <- client.LinkChanged{Link: l}
}

// deliver has the server take, or refuse, what is queued.
func (f *fakeBackend) deliver() {
	ctx := context.Background()
	queued, err := f.store.Queued(ctx, 0, 1000)
	must(err)
	for _, o := range queued {
		f.mu.Lock()
		refuse := f.refuse
		conv := o.Conversation
		if conv == 0 && refuse == nil {
			var known bool
			if conv, known = f.direct(o.Peer); !known {
				refuse = errs.New(errs.CodeNotFound, "there is nobody of that name")
			}
		}
		peer := f.peers[conv]
		var m client.Message
		if refuse == nil {
			m = f.append(conv, true, o.Text, f.clock())
			m.ID = o.ID
			f.logs[conv][m.Seq-1] = m
		}
		f.mu.Unlock()
		s := store.Settlement{ID: o.ID, State: store.Acknowledged, Seq: m.Seq, LoggedAt: m.At}
		if refuse != nil {
			s = store.Settlement{ID: o.ID, State: store.Failed, Code: errs.CodeOf(refuse), Reason: refuse.Error()}
		} else {
			must(f.store.Resolve(ctx, 0, store.PeerKey(peer.Name), store.Conversation{ID: conv, Peer: peer}))
		}
		must(f.store.Settle(ctx, []store.Settlement{s}))
		settled, err := f.store.Outgoing(ctx, o.ID)
		must(err)
		f.events <- client.SendChanged{Outgoing: settled}
		if refuse == nil {
			f.received(m, peer)
		}
	}
}

// direct is the conversation with a person; under mu.
func (f *fakeBackend) direct(name string) (uint64, bool) {
	key := store.PeerKey(name)
	for id, p := range f.peers {
		if store.PeerKey(p.Name) == key {
			return id, true
		}
	}
	id, ok := f.people[key]
	if !ok {
		return 0, false
	}
	f.nextConv++
	f.peers[f.nextConv] = client.Peer{ID: id, Name: name}
	return f.nextConv, true
}

func (f *fakeBackend) User() client.User           { return f.me }
func (f *fakeBackend) Events() <-chan client.Event { return f.events }

func (f *fakeBackend) Link() client.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.link
}

func (f *fakeBackend) Reconnect(context.Context) error {
	f.mu.Lock()
	f.reconnects++
	f.hold = false
	f.mu.Unlock()
	f.setLink(client.Link{State: client.Online, Instance: "chat-2"})
	f.deliver()
	return nil
}

func (f *fakeBackend) Chats(ctx context.Context) ([]client.Cached, error) {
	return f.store.Conversations(ctx)
}

func (f *fakeBackend) Unsent(ctx context.Context) ([]client.Outgoing, error) {
	return f.store.Unsent(ctx)
}

func (f *fakeBackend) Drafts(ctx context.Context) (map[string]string, error) {
	return f.store.Drafts(ctx)
}

func (f *fakeBackend) Stored(ctx context.Context, conv, before uint64, limit int) ([]client.Message, error) {
	return f.store.Messages(ctx, conv, before, limit)
}

func (f *fakeBackend) Messages(ctx context.Context, conv, before uint64, limit int) ([]client.Message, error) {
	f.mu.Lock()
	slow, panics := f.slow, f.panics
	f.fetched++
	f.mu.Unlock()
	if panics {
		panic("a panic for the test")
	}
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	all := f.logs[conv]
	if before != 0 && before <= uint64(len(all)) {
		all = all[:before-1]
	}
	return slices.Clone(all[max(0, len(all)-limit):]), nil
}

func (f *fakeBackend) OpenDirect(_ context.Context, name string) (client.Conversation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return client.Conversation{}, f.fail
	}
	id, ok := f.direct(name)
	if !ok {
		return client.Conversation{}, errs.New(errs.CodeNotFound, "there is nobody of that name")
	}
	return client.Conversation{ID: id, Peer: f.peers[id], Head: uint64(len(f.logs[id]))}, nil
}

func (f *fakeBackend) Send(ctx context.Context, to client.Target, text string) (client.Outgoing, error) {
	id, err := store.NewMessageID()
	if err != nil {
		return client.Outgoing{}, err
	}
	out, err := f.store.Enqueue(ctx, client.Outgoing{
		ID: id, Conversation: to.Conversation, Peer: to.Peer, PeerKey: store.PeerKey(to.Peer), Text: text, At: f.clock(),
	})
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if err == nil && !hold {
		f.deliver()
	}
	return out, err
}

func (f *fakeBackend) Discard(ctx context.Context, id client.MessageID) error {
	return f.store.Discard(ctx, id)
}

func (f *fakeBackend) SetDraft(ctx context.Context, key, text string) error {
	return f.store.SetDraft(ctx, key, text)
}

func (f *fakeBackend) Meta(ctx context.Context, name string) (string, error) {
	return f.store.Meta(ctx, name)
}

func (f *fakeBackend) SetMeta(ctx context.Context, name, value string) error {
	return f.store.SetMeta(ctx, name, value)
}
