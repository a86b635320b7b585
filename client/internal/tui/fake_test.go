package tui

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
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
	moved      int64             // the last move of the store that was told
	fetched    int               // calls of Messages
	panics     bool              // Messages does
	sets       map[uint64]uint64 // calls of SetDraft
}

func newFake(me string) *fakeBackend {
	return &fakeBackend{
		me: client.User{ID: 1, Name: me}, store: store.NewMemory(1 << 20),
		events: make(chan client.Event, 1<<16), clock: func() time.Time { return testNow },
		link: client.Link{State: client.Online, Instance: "chat-1", Address: "127.0.0.1:7801"},
		logs: map[uint64][]client.Message{}, peers: map[uint64]client.Peer{}, people: map[string]uint64{},
		nextConv: 100, sets: map[uint64]uint64{},
	}
}

// testNow is a Monday.
var testNow = time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)

// person makes an account.
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
	head, begin := uint64(len(all)), &store.Range{Lo: uint64(from) + 1, Hi: uint64(from)}
	must(f.store.PutConversations(ctx, f.epoch(), []store.Conversation{
		{ID: id, Peer: peer, Stored: begin, Head: head, HeadOrdinal: head},
	}))
	f.tellMoves()
	if from < len(all) {
		if ok, err := f.store.Append(ctx, f.epoch(), all[from:]); !ok || err != nil {
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

func (f *fakeBackend) epoch() uint64 {
	s, err := f.store.State(context.Background())
	must(err)
	return s.Epoch
}

// append adds to the server's log; under mu.
func (f *fakeBackend) append(conv uint64, mine bool, text string, at time.Time) client.Message {
	seq := uint64(len(f.logs[conv]) + 1)
	m := client.Message{
		Conversation: conv, Seq: seq, Ordinal: seq, Kind: content.Text, Body: []byte(text), At: at, Sender: f.me.ID,
	}
	if !mine {
		m.Sender = f.peers[conv].ID
	}
	m.ID, _ = store.NewMessageID()
	f.logs[conv] = append(f.logs[conv], m)
	return m
}

// say has the peer write, and the client receive it.
func (f *fakeBackend) say(conv uint64, text string) client.Message {
	f.mu.Lock()
	m := f.append(conv, false, text, f.clock())
	peer := f.peers[conv]
	f.mu.Unlock()
	f.received(m, peer)
	return m
}

func (f *fakeBackend) received(m client.Message, peer client.Peer) {
	_, err := f.store.Append(context.Background(), f.epoch(), []client.Message{m})
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
		conv, err := f.resolve(ctx, o.Conversation)
		f.mu.Lock()
		if f.refuse != nil {
			err = f.refuse
		}
		peer := f.peers[conv]
		var m client.Message
		if err == nil {
			m = f.append(conv, true, o.Text(), f.clock())
			m.ID = o.ID
			f.logs[conv][m.Seq-1] = m
		}
		f.mu.Unlock()
		o.State, o.Seq, o.LoggedAt = client.Acknowledged, m.Seq, m.At
		if err != nil {
			o.State, o.Code, o.Reason = client.Failed, errs.CodeOf(err), err.Error()
		}
		must(f.store.Settle(ctx, []client.Outgoing{o}))
		settled, serr := f.store.Outgoing(ctx, o.ID)
		must(serr)
		f.events <- client.SendChanged{Outgoing: settled}
		if err == nil {
			f.received(m, peer)
		}
	}
}

// resolve returns the real conversation of a provisional one, and has the client
// say where it moved.
func (f *fakeBackend) resolve(ctx context.Context, id uint64) (uint64, error) {
	if !client.Provisional(id) {
		return id, nil
	}
	known, there, err := f.store.Conversation(ctx, id)
	must(err)
	if !there {
		return 0, store.ErrNoConversation
	}
	if known.ID != id {
		return known.ID, nil
	}
	c, err := f.OpenDirect(ctx, known.Peer.Name)
	return c.ID, err
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

func (f *fakeBackend) Contact(ctx context.Context, name string) (client.Cached, error) {
	return f.store.Contact(ctx, name)
}

func (f *fakeBackend) OpenDirect(ctx context.Context, name string) (client.Conversation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return client.Conversation{}, f.fail
	}
	id, ok := f.direct(name)
	if !ok {
		return client.Conversation{}, errs.New(errs.CodeNotFound, "there is nobody of that name")
	}
	head := uint64(len(f.logs[id]))
	conv := client.Conversation{ID: id, Peer: f.peers[id], Head: head, Ordinal: head}
	must(f.store.Resolve(ctx, f.epoch(), store.PeerKey(name), store.Conversation{
		ID: id, Peer: conv.Peer, Head: head, HeadOrdinal: head,
	}))
	f.tellMoves()
	return conv, nil
}

// tellMoves has the client say what the store moved; under mu.
func (f *fakeBackend) tellMoves() {
	moves, err := f.store.Moved(context.Background(), f.moved)
	must(err)
	for _, move := range moves {
		f.moved = move.Order
		f.sets[move.To] += f.sets[move.From]
		f.events <- client.ConversationResolved{From: move.From, To: move.To}
	}
}

func (f *fakeBackend) Epoch() uint64 { return f.epoch() }

func (f *fakeBackend) Send(ctx context.Context, to Target, text string) (client.Outgoing, error) {
	id, err := store.NewMessageID()
	if err != nil {
		return client.Outgoing{}, err
	}
	out, err := f.store.Enqueue(ctx, to.Epoch, client.Outgoing{
		ID: id, Conversation: to.ID, Kind: content.Text, Body: []byte(text), At: f.clock(),
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

func (f *fakeBackend) SetRead(ctx context.Context, of Target, seq uint64) (own client.OwnState, err error) {
	err = f.store.ChangeOwn(ctx, of.Epoch, []uint64{of.ID}, func(_ uint64, o *client.OwnState) {
		o.SetRead(seq, seq)
		own = *o
	})
	return own, err
}

func (f *fakeBackend) SetDraft(ctx context.Context, of Target, known, text string) (own client.OwnState, err error) {
	c, there, err := f.store.Conversation(ctx, of.ID)
	must(err)
	if !there {
		c.ID = of.ID
	}
	err = f.store.ChangeOwn(ctx, of.Epoch, []uint64{c.ID}, func(_ uint64, o *client.OwnState) {
		if o.Draft != known {
			text = store.JoinDrafts(o.Draft, text)
		}
		o.SetDraft(text, f.clock())
		own = *o
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sets[c.ID]++
	return own, err
}

// elsewhere changes the own state as another window of the profile does, and has
// the client say so.
func (f *fakeBackend) elsewhere(conv uint64, change func(own *client.OwnState)) {
	var own client.OwnState
	must(f.store.ChangeOwn(context.Background(), f.epoch(), []uint64{conv}, func(_ uint64, o *client.OwnState) {
		change(o)
		own = *o
	}))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events <- client.OwnStateChanged{Conversation: conv, Own: own, Sets: f.sets[conv]}
}

// own is what the store has of the user's own state.
func (f *fakeBackend) own(conv uint64) client.OwnState {
	c, _, err := f.store.Conversation(context.Background(), conv)
	must(err)
	return c.Own
}

// with is the conversation with a person as the store has it.
func (f *fakeBackend) with(name string) uint64 {
	c, err := f.store.Contact(context.Background(), name)
	must(err)
	return c.ID
}
