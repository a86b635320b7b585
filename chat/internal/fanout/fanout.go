// Package fanout brings committed events to their readers: to the connections on
// this server, and to the other servers where readers are connected, one delivery
// per event and server. Each server finds its own connections of the readers.
//
// It only saves time. Package repair makes up for what it drops.
package fanout

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/planted"

	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/member"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/route"
)

// maxWaiting batches may wait, of MaxWaitingBytes together. Beyond it events are
// dropped.
const (
	maxWaiting      = 1024
	MaxWaitingBytes = 16 << 20
)

// maxTogether bounds how many events share one look-up of routes.
const maxTogether = 2048

// maxUnresolved deliveries of peers may wait until the members of their
// conversation are read. Beyond it they are dropped, and all users of this server
// are compared with the log. readLimit bounds one query.
const (
	maxUnresolved = 4096
	readLimit     = 2 * time.Second
)

// Hub is this server's connections.
type Hub interface {
	Deliver(users []uint64, except uint64, frames []byte) int
}

// Peers are the other servers.
type Peers interface {
	Instances() []string
	Send(instance string, deliveries ...*relayv1.Delivery) bool
}

// Routes has the servers where users are connected; see package route.
type Routes interface {
	Recall(ctx context.Context, users []uint64, peers []string) (at map[uint64][]route.Place)
	Lookup(ctx context.Context, users []uint64, peers []string) (at map[uint64][]route.Place, unlinked map[uint64]bool)
}

// Members has the members of conversations; see package member.
type Members interface {
	AtLeast(conversation, number uint64) (member.Members, bool)
	LoadAll(ctx context.Context, conversations []uint64) (map[uint64]member.Members, error)
}

// Options are what Fanout is made of.
type Options struct {
	Hub     Hub
	Peers   Peers
	Routes  Routes
	Members Members
	// Missed is called when deliveries of a peer were dropped.
	Missed func()
	// Drop is a hook for tests: an event for which it returns true is not pushed
	// to anybody. nil drops nothing.
	Drop       func(*chatv1.Event) bool
	Registerer prometheus.Registerer
}

// Fanout delivers. Run is its goroutine.
type Fanout struct {
	opts    Options
	waiting chan []msglog.Event
	bytes   atomic.Int64 // of what waits or is being delivered
	// unresolved are deliveries of peers that wait for their members.
	unresolved chan *relayv1.Delivery
	dropped    prometheus.Counter
	pushed     prometheus.Counter
}

// New returns a Fanout.
func New(opts Options) *Fanout {
	f := &Fanout{
		opts:       opts,
		waiting:    make(chan []msglog.Event, maxWaiting),
		unresolved: make(chan *relayv1.Delivery, maxUnresolved),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_fanout_dropped_total",
			Help: "Events not pushed because too many waited; readers pull them.",
		}),
		pushed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_fanout_events_total",
			Help: "Events pushed to their readers.",
		}),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(f.dropped, f.pushed)
	}
	return f
}

// Committed queues events that were committed. It does not block. It is for
// msglog.Options.
func (f *Fanout) Committed(batch []msglog.Event) {
	size := weight(batch)
	if f.bytes.Add(size) <= MaxWaitingBytes {
		select {
		case f.waiting <- batch:
			return
		default:
		}
	}
	f.bytes.Add(-size)
	f.dropped.Add(float64(len(batch)))
}

// weight is about the memory of a batch in bytes.
func weight(batch []msglog.Event) (n int64) {
	const each = 128 // the event itself
	for i := range batch {
		n += int64(each + len(batch[i].Body))
	}
	return n
}

// Run delivers until ctx ends, and then the rest.
func (f *Fanout) Run(ctx context.Context) error {
	var reader sync.WaitGroup
	defer reader.Wait()
	reader.Go(func() { f.readMembers(ctx) })
	for {
		select {
		case batch := <-f.waiting:
			f.deliver(ctx, f.together(batch))
		case <-ctx.Done():
			f.flush()
			return nil
		}
	}
}

func (f *Fanout) flush() {
	for {
		select {
		case batch := <-f.waiting:
			f.deliver(context.Background(), batch)
		default:
			return
		}
	}
}

// together appends the batches that wait.
func (f *Fanout) together(batch []msglog.Event) []msglog.Event {
	for len(batch) < maxTogether {
		select {
		case more := <-f.waiting:
			batch = append(batch, more...)
		default:
			return batch
		}
	}
	return batch
}

// deliver pushes to the readers on this server at once, and to the others after
// Redis has answered where they are. The connection that sent an event is left out,
// because its acknowledgement says the same.
func (f *Fanout) deliver(ctx context.Context, batch []msglog.Event) {
	defer f.bytes.Add(-weight(batch))
	members := f.members(ctx, batch)
	events := make([]*chatv1.Event, len(batch))
	var users []uint64
	var frames []byte // of events with the same readers, which leave in one write
	for i := range batch {
		e := &batch[i]
		event := encode.Event(e)
		if f.opts.Drop == nil || !f.opts.Drop(event) {
			events[i] = event
			f.pushed.Inc()
			frames = encode.AppendEvent(frames, event)
		}
		if i+1 < len(batch) && len(frames) < maxRun &&
			batch[i+1].Conversation == e.Conversation && batch[i+1].Connection == e.Connection {
			continue // it has the same readers
		}
		readers := members[e.Conversation].Users
		users = append(users, readers...)
		f.opts.Hub.Deliver(readers, e.Connection, frames)
		frames = frames[:0]
	}
	peers := f.opts.Peers.Instances()
	if len(peers) == 0 {
		return
	}
	at := f.opts.Routes.Recall(ctx, unique(users), peers)
	remote := make(map[string][]*relayv1.Delivery)
	for i, event := range events {
		if event == nil {
			continue
		}
		m, sender := members[batch[i].Conversation], batch[i].Connection
		d := &relayv1.Delivery{
			What:             &relayv1.Delivery_Event{Event: event},
			ExceptConnection: sender,
			MembersNumber:    m.Number,
		}
		for _, instance := range instances(m.Users, sender, at) {
			remote[instance] = append(remote[instance], d)
		}
	}
	f.send(remote)
}

// maxRun bytes of events leave in one write, or one event: much less than may wait for a
// client.
const maxRun = 32 << 10

func (f *Fanout) send(remote map[string][]*relayv1.Delivery) {
	for instance, deliveries := range remote {
		f.opts.Peers.Send(instance, deliveries...)
	}
}

// members are those of the batch's conversations. Those that are not cached are
// read from the database, which has just committed the batch. If that fails, the
// events are not pushed, and repair announces the heads.
func (f *Fanout) members(ctx context.Context, batch []msglog.Event) map[uint64]member.Members {
	out := make(map[uint64]member.Members, len(batch))
	var unknown []uint64
	for i := range batch {
		id := batch[i].Conversation
		if _, ok := out[id]; ok {
			continue
		}
		m, ok := f.opts.Members.AtLeast(id, 0)
		if out[id] = m; !ok {
			unknown = append(unknown, id)
		}
	}
	f.load(ctx, unknown, out)
	return out
}

// load adds the members of conversations from the database.
func (f *Fanout) load(ctx context.Context, unknown []uint64, out map[uint64]member.Members) {
	if len(unknown) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	read, _ := f.opts.Members.LoadAll(ctx, unknown) // what is missing is not delivered
	maps.Copy(out, read)
}

// Announcement is a head that its readers are to learn.
type Announcement struct {
	Head *chatv1.Head
	// User is the only reader of an own state's number; 0 means all members.
	User uint64
}

// Announce sends heads to their readers on all servers, by one look-up of routes
// and one message to each other server. complete says of each whether all readers
// could be reached; false means that the members could not be read, or that one of
// them is connected to a server that is not linked.
func (f *Fanout) Announce(ctx context.Context, announcements []Announcement) (complete []bool) {
	members := f.readers(ctx, announcements)
	var users []uint64
	for i := range announcements {
		users = append(users, members[i].Users...)
	}
	at, unlinked := f.opts.Routes.Lookup(ctx, unique(users), f.opts.Peers.Instances())
	complete = make([]bool, len(announcements))
	remote := make(map[string][]*relayv1.Delivery)
	for i, a := range announcements {
		readers := members[i].Users
		f.opts.Hub.Deliver(readers, 0, encode.HeadsFrames(a.Head))
		d := &relayv1.Delivery{
			What:          &relayv1.Delivery_Head{Head: a.Head},
			MembersNumber: members[i].Number,
			UserId:        a.User,
		}
		for _, instance := range instances(readers, 0, at) {
			remote[instance] = append(remote[instance], d)
		}
		complete[i] = len(readers) > 0 &&
			!slices.ContainsFunc(readers, func(user uint64) bool { return unlinked[user] })
	}
	f.send(remote)
	return complete
}

// readers are the members of each announcement.
func (f *Fanout) readers(ctx context.Context, announcements []Announcement) []member.Members {
	found := make(map[uint64]member.Members)
	var unknown []uint64
	for _, a := range announcements {
		id := a.Head.GetConversationId()
		if m, ok := f.opts.Members.AtLeast(id, 0); ok {
			found[id] = m
		} else if a.User == 0 {
			unknown = append(unknown, id)
		}
	}
	f.load(ctx, unique(unknown), found)
	out := make([]member.Members, len(announcements))
	for i, a := range announcements {
		if out[i] = found[a.Head.GetConversationId()]; a.User != 0 {
			out[i].Users = []uint64{a.User}
		}
	}
	return out
}

// OwnState pushes a user's own state to all their connections but the one that
// set it.
func (f *Fanout) OwnState(ctx context.Context, user uint64, s *chatv1.OwnState, except uint64) {
	if planted.Has(planted.StateNotTold) {
		return
	}
	f.opts.Hub.Deliver([]uint64{user}, except, encode.OwnStateFrame(s))
	peers := f.opts.Peers.Instances()
	if len(peers) == 0 {
		return
	}
	at := f.opts.Routes.Recall(ctx, []uint64{user}, peers)
	for _, instance := range instances([]uint64{user}, except, at) {
		f.opts.Peers.Send(instance, &relayv1.Delivery{
			What:             &relayv1.Delivery_OwnState{OwnState: s},
			ExceptConnection: except,
			UserId:           user,
		})
	}
}

// Received pushes what a peer sent for readers on this server. It does not block:
// members that are not cached, or older than the delivery's, are read by Run.
func (f *Fanout) Received(deliveries []*relayv1.Delivery) {
	var frames []byte
	for len(deliveries) > 0 {
		d, n := deliveries[0], 0
		users := []uint64{d.GetUserId()}
		if d.GetUserId() == 0 {
			m, ok := f.opts.Members.AtLeast(conversation(d), d.GetMembersNumber())
			if !ok {
				f.unresolve(d)
				deliveries = deliveries[1:]
				continue
			}
			users = m.Users
		}
		for n == 0 || n < len(deliveries) && len(frames) < maxRun && sameReaders(d, deliveries[n]) {
			frames = appendFrames(frames, deliveries[n])
			n++
		}
		f.opts.Hub.Deliver(users, d.GetExceptConnection(), frames)
		deliveries, frames = deliveries[n:], frames[:0]
	}
}

// sameReaders says that two deliveries are events for the same readers.
func sameReaders(a, b *relayv1.Delivery) bool {
	return a.GetEvent() != nil && b.GetEvent() != nil && a.GetUserId() == b.GetUserId() &&
		a.GetEvent().GetConversationId() == b.GetEvent().GetConversationId() &&
		a.GetExceptConnection() == b.GetExceptConnection() && a.GetMembersNumber() == b.GetMembersNumber()
}

func (f *Fanout) unresolve(d *relayv1.Delivery) {
	select {
	case f.unresolved <- d:
	default:
		f.dropped.Inc()
		f.opts.Missed()
	}
}

// conversation is the one that a delivery is about.
func conversation(d *relayv1.Delivery) uint64 {
	return max(d.GetEvent().GetConversationId(), d.GetHead().GetConversationId(), d.GetOwnState().GetConversationId())
}

// appendFrames appends what a delivery says to clients.
func appendFrames(dst []byte, d *relayv1.Delivery) []byte {
	switch what := d.GetWhat().(type) {
	case *relayv1.Delivery_Event:
		return encode.AppendEvent(dst, what.Event)
	case *relayv1.Delivery_Head:
		return append(dst, encode.HeadsFrames(what.Head)...)
	case *relayv1.Delivery_OwnState:
		return append(dst, encode.OwnStateFrame(what.OwnState)...)
	}
	return dst
}

// readMembers serves the unresolved deliveries until ctx ends, those that wait
// together by one query.
func (f *Fanout) readMembers(ctx context.Context) {
	for {
		var together []*relayv1.Delivery
		select {
		case d := <-f.unresolved:
			together = append(together, d)
		case <-ctx.Done():
			return
		}
		for more := true; more && len(together) < maxTogether; {
			select {
			case d := <-f.unresolved:
				together = append(together, d)
			default:
				more = false
			}
		}
		var ids []uint64
		for _, d := range together {
			ids = append(ids, conversation(d))
		}
		members := make(map[uint64]member.Members)
		f.load(ctx, unique(ids), members)
		missed := false
		for _, d := range together {
			m, ok := members[conversation(d)]
			missed = missed || !ok
			f.opts.Hub.Deliver(m.Users, d.GetExceptConnection(), appendFrames(nil, d))
		}
		if missed && ctx.Err() == nil {
			f.opts.Missed()
		}
	}
}

// unique sorts ids in place and returns each once.
func unique(ids []uint64) []uint64 {
	slices.Sort(ids)
	return slices.Compact(ids)
}

// instances are the servers where users have a connection other than except, 0 for
// none.
func instances(users []uint64, except uint64, at map[uint64][]route.Place) []string {
	var out []string
	for _, user := range users {
		for _, place := range at[user] {
			if (except == 0 || place.Only != except) && !slices.Contains(out, place.Instance) {
				out = append(out, place.Instance)
			}
		}
	}
	return out
}
