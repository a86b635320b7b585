// Package device is a person's program without the person: a client that writes
// down what it typed, the outcome, and what it was shown. A Crowd is many
// of them in conversation.
package device

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/proof/journal"
)

// Options say what a device is. Gate and Session must be set.
type Options struct {
	Gate    client.Assigner
	Session client.Session
	// Name is unique among the devices of a run.
	Name string
	// Store is what the device keeps; a fresh one in memory if nil. The device
	// does not close it.
	Store store.Store
	// Journal is where it writes; a fresh one if nil. One journal belongs to one
	// store: a device that is opened again on its store gets its journal again.
	Journal *journal.Journal
	// Change may set more of the client's options.
	Change func(*client.Options)
}

// keepInMemory is how many messages of a conversation a store of the device's
// own remembers: the journal has them, so only what the client itself needs.
const keepInMemory = 16

// Device is one running client. Its methods may be called from any goroutine.
type Device struct {
	Name string

	client  *client.Client
	store   store.Store
	journal *journal.Journal
	done    chan struct{} // closed when all events are written down
	online  atomic.Bool

	mu      sync.Mutex
	pending map[client.MessageID]uint64 // typed and not settled: the text's digest
	// Of each conversation, the greatest number that was shown or acknowledged,
	// and the greatest that was shown.
	head, top map[uint64]uint64
}

// Open starts a device. It returns without waiting for a connection. The device
// ends with ctx or Close.
func Open(ctx context.Context, opt Options) (*Device, error) {
	if opt.Name == "" {
		return nil, errors.New("open device: it has no name")
	}
	if opt.Store == nil {
		opt.Store = store.NewMemory(keepInMemory)
	}
	if opt.Journal == nil {
		opt.Journal = journal.New(journal.Device{User: opt.Session.User.ID, Name: opt.Name})
	}
	d := &Device{
		Name: opt.Name, store: opt.Store, journal: opt.Journal, done: make(chan struct{}),
		pending: make(map[client.MessageID]uint64), head: make(map[uint64]uint64), top: make(map[uint64]uint64),
	}
	co := client.Options{
		Gate: opt.Gate, Session: opt.Session, Store: opt.Store, Program: "msrchat-bench",
		FirstPage: -1, // nobody scrolls back
	}
	if opt.Change != nil {
		opt.Change(&co)
	}
	if co.SendOnly {
		return nil, fmt.Errorf("open device %s: one that only sends proves nothing", opt.Name)
	}
	if err := d.resume(ctx); err != nil {
		return nil, fmt.Errorf("open device %s: %w", opt.Name, err)
	}
	var err error
	if d.client, err = client.Open(ctx, co); err != nil {
		return nil, fmt.Errorf("open device %s: %w", opt.Name, err)
	}
	d.journal.Add(journal.Entry{Kind: journal.LoggedIn})
	go d.read()
	return d, nil
}

// resume takes over what an earlier device left in the outbox of the store.
func (d *Device) resume(ctx context.Context) error {
	unsent, err := d.store.Unsent(ctx)
	if err != nil {
		return err
	}
	for _, out := range unsent {
		if out.State == client.Queued {
			d.pending[out.ID] = journal.Digest(out.Text())
		}
	}
	return nil
}

// Client is the device's client, for calls that leave nothing in a journal. Its
// events belong to the device.
func (d *Device) Client() *client.Client { return d.client }

// Journal is where the device writes.
func (d *Device) Journal() *journal.Journal { return d.journal }

// Online says whether the device has a connection.
func (d *Device) Online() bool { return d.online.Load() }

// Say types a message; it is in the outbox when Say returns. An error means that
// it was not accepted there, and is not in the journal.
func (d *Device) Say(ctx context.Context, conversation uint64, text string) (client.MessageID, error) {
	// Held over the call, so that the journal has the order of the outbox and the
	// outcome finds the message among the pending. Send does not wait for the
	// network, nor for anybody who reads events.
	d.mu.Lock()
	defer d.mu.Unlock()
	at := time.Now()
	// A store that was interrupted may have taken the message, which would then
	// be sent and be in no journal.
	out, err := d.client.Send(context.WithoutCancel(ctx), conversation, text)
	if err != nil {
		return client.MessageID{}, fmt.Errorf("%s types: %w", d.Name, err)
	}
	digest := journal.Digest(text)
	d.pending[out.ID] = digest
	d.journal.Add(journal.Entry{
		At: at, Kind: journal.Typed, ID: out.ID, Conversation: out.Conversation,
		Sender: d.journal.Device.User, Text: digest,
	})
	return out.ID, nil
}

// Mark has the person read a conversation up to what was shown last; it returns
// when that is stored.
func (d *Device) Mark(ctx context.Context, conversation uint64) error {
	top := d.Top(conversation)
	if top == 0 {
		return nil
	}
	if err := d.client.SetRead(context.WithoutCancel(ctx), conversation, top); err != nil {
		return fmt.Errorf("%s reads: %w", d.Name, err)
	}
	d.journal.Add(journal.Entry{Kind: journal.Marked, Conversation: conversation, Seq: top})
	return nil
}

// Draft has the person begin a text; it returns when that is stored.
func (d *Device) Draft(ctx context.Context, conversation uint64, text string) error {
	// Recorded before: another device may have it before SetDraft returns.
	d.journal.Add(journal.Entry{Kind: journal.Drafted, Conversation: conversation, Text: journal.Digest(text)})
	if err := d.client.SetDraft(context.WithoutCancel(ctx), conversation, text); err != nil {
		return fmt.Errorf("%s begins a text: %w", d.Name, err)
	}
	return nil
}

// stated records an own state that a server has.
func (d *Device) stated(conversation uint64, own client.OwnState) {
	if own.Number > 0 && !own.Unsent() {
		d.journal.Add(journal.Entry{
			Kind: journal.Stated, Conversation: conversation, Number: own.Number, Seq: own.Read,
			Text: journal.Digest(own.Draft),
		})
	}
}

// OwnNumbers are the numbers of the device's own states by conversation;
// synced says that a server has all of them as they are here.
func (d *Device) OwnNumbers(ctx context.Context) (numbers map[uint64]uint64, synced bool) {
	all, err := d.store.OwnStates(ctx, 0)
	if err != nil {
		return nil, false
	}
	numbers = make(map[uint64]uint64, len(all))
	synced = true
	for _, own := range all {
		numbers[own.Conversation] = own.Number
		synced = synced && !own.Unsent()
	}
	return numbers, synced
}

// User is whose device it is.
func (d *Device) User() uint64 { return d.journal.Device.User }

// Unsettled is how many messages were typed and are neither acknowledged nor
// refused.
func (d *Device) Unsettled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

// Top is the greatest number that was shown of a conversation, 0 for none.
func (d *Device) Top(conversation uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.top[conversation]
}

// Head is the greatest number that the device knows of in a conversation: shown
// to it, or of its own message; 0 for none.
func (d *Device) Head(conversation uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.head[conversation]
}

// Join waits until the device has its conversations and records from where it
// shows each. What is written there afterwards must reach it.
func (d *Device) Join(ctx context.Context) error {
	for {
		if _, err := d.client.WaitOnline(ctx); err != nil {
			return fmt.Errorf("%s joins: %w", d.Name, err)
		}
		// The client shows a conversation from the head that its own listing had.
		// Only a listing that is requested after that one is complete is sure to
		// have heads as high; the request before it waits meanwhile.
		have, err := d.store.State(ctx)
		if err != nil {
			return fmt.Errorf("%s joins: %w", d.Name, err)
		}
		all, err := d.client.Conversations(ctx)
		if err != nil {
			return fmt.Errorf("%s joins: %w", d.Name, err)
		}
		if have.Listed {
			for _, c := range all {
				d.journal.Add(journal.Entry{Kind: journal.Joined, Conversation: c.ID, Seq: c.Head})
			}
			d.journal.Add(journal.Entry{Kind: journal.Joined})
			return nil
		}
	}
}

// Close ends the device when everything that its client still reports is
// recorded. The outbox stays in the store.
func (d *Device) Close() {
	d.client.Close()
	<-d.done
}

// read records what the client reports, until it has ended.
func (d *Device) read() {
	defer close(d.done)
	for e := range d.client.Events() {
		switch e := e.(type) {
		case client.Received:
			d.shown(e.Message)
		case client.SendChanged:
			d.settled(e.Outgoing)
		case client.OutboxChanged:
			d.lookUp()
		case client.OwnStateChanged:
			d.stated(e.Conversation, e.Own)
		case client.LinkChanged:
			d.linked(e.Link)
		case client.Reset:
			d.journal.Add(journal.Entry{Kind: journal.Reset})
		}
	}
	d.online.Store(false)
	d.journal.Add(journal.Entry{Kind: journal.Left})
}

func (d *Device) shown(m client.Message) {
	d.journal.Add(journal.Entry{
		Kind: journal.Shown, ID: m.ID, Conversation: m.Conversation, Seq: m.Seq,
		Sender: m.Sender, Text: journal.Digest(m.Text()),
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.top[m.Conversation] = max(d.top[m.Conversation], m.Seq)
	d.head[m.Conversation] = max(d.head[m.Conversation], m.Seq)
}

// settled records an outcome, once for each message.
func (d *Device) settled(out client.Outgoing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, typed := d.pending[out.ID]
	if !typed || out.State == client.Queued {
		return
	}
	delete(d.pending, out.ID)
	e := journal.Entry{
		Kind: journal.Acked, ID: out.ID, Conversation: out.Conversation, Seq: out.Seq,
		Sender: d.journal.Device.User, Text: text,
	}
	if out.State == client.Failed {
		e.Kind, e.Seq, e.Detail = journal.Refused, 0, string(out.Code)+": "+out.Reason
	}
	d.journal.Add(e)
	d.head[e.Conversation] = max(d.head[e.Conversation], e.Seq)
}

// lookUp asks the store for outcomes that the client could not report because its
// events were not read fast enough.
func (d *Device) lookUp() {
	d.mu.Lock()
	ids := slices.Collect(maps.Keys(d.pending))
	d.mu.Unlock()
	for _, id := range ids {
		// One that cannot be read stays unsettled, and the next change asks again.
		if out, err := d.store.Outgoing(context.Background(), id); err == nil {
			d.settled(out)
		}
	}
}

func (d *Device) linked(l client.Link) {
	switch l.State {
	case client.Online:
		d.online.Store(true)
		d.journal.Add(journal.Entry{Kind: journal.Online, Detail: l.Instance})
	case client.Offline, client.LoggedOut, client.Stopped:
		d.online.Store(false)
		d.journal.Add(journal.Entry{Kind: journal.Offline, Detail: l.State.String() + ": " + client.Describe(l.Cause)})
	case client.Connecting:
		// It was offline before.
	}
}
