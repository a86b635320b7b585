// Package fanout brings what was committed to its readers: to the connections
// on this server, and to the other servers where readers are connected, one
// delivery per event and server.
//
// It only saves time. What it drops is found by package repair.
package fanout

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/chat/internal/msglog"

	"github.com/msrchat/msrchat/chat/internal/conn"
	"github.com/msrchat/msrchat/chat/internal/route"
)

// maxWaiting batches may wait, of maxWaitingBytes together; beyond it events are
// dropped.
const (
	maxWaiting      = 1024
	maxWaitingBytes = 32 << 20
)

// maxTogether bounds how many events share one look-up of routes.
const maxTogether = 2048

// Hub is this server's connections.
type Hub interface {
	Deliver(users []uint64, except uint64, frames []byte) int
}

// Peers are the other servers.
type Peers interface {
	Instances() []string
	Send(instance string, deliveries ...*relayv1.Delivery) bool
}

// Routes says where users are connected.
type Routes interface {
	Lookup(ctx context.Context, users []uint64, peers []string) (at map[uint64][]route.Place, astray map[uint64]bool)
}

// Options are what Fanout is made of.
type Options struct {
	Hub    Hub
	Peers  Peers
	Routes Routes
	// Drop is a hook for tests: an event for which it returns true is not pushed
	// to anybody. nil drops nothing.
	Drop       func(*chatv1.Event) bool
	Registerer prometheus.Registerer
}

// Fanout delivers. Run is its goroutine.
type Fanout struct {
	opts    Options
	waiting chan []msglog.Committed
	bytes   atomic.Int64 // of what waits or is being delivered
	dropped prometheus.Counter
	pushed  prometheus.Counter
}

// New returns a Fanout.
func New(opts Options) *Fanout {
	f := &Fanout{
		opts: opts, waiting: make(chan []msglog.Committed, maxWaiting),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_fanout_dropped_total", Help: "Events not pushed because too many waited; readers pull them."}),
		pushed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "msrchat_fanout_events_total", Help: "Events pushed to their readers."}),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(f.dropped, f.pushed)
	}
	return f
}

// Committed queues what was committed; it does not block. It is for
// msglog.Options.
func (f *Fanout) Committed(batch []msglog.Committed) {
	size := weight(batch)
	if f.bytes.Add(size) <= maxWaitingBytes {
		select {
		case f.waiting <- batch:
			return
		default:
		}
	}
	f.bytes.Add(-size)
	f.dropped.Add(float64(len(batch)))
}

// weight is about what a batch keeps in memory, in bytes.
func weight(batch []msglog.Committed) (n int64) {
	const each = 128 // the entry itself and its result
	for i := range batch {
		n += int64(each + len(batch[i].Entry.Body) + 8*len(batch[i].Audience))
	}
	return n
}

// Run delivers until ctx ends, and then what still waits.
func (f *Fanout) Run(ctx context.Context) error {
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

// together adds what waits.
func (f *Fanout) together(batch []msglog.Committed) []msglog.Committed {
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

// deliver pushes to the readers on this server at once, and to the others when
// Redis has said where they are. The connection that a message came in on is
// left out: its acknowledgement tells it the same.
func (f *Fanout) deliver(ctx context.Context, batch []msglog.Committed) {
	defer f.bytes.Add(-weight(batch))
	peers := f.opts.Peers.Instances()
	events := make([]*chatv1.Event, len(batch))
	for i := range batch {
		c := &batch[i]
		event := conn.Event(&msglog.Event{
			ConversationID: c.ConversationID, Seq: c.Result.Seq, CreatedAt: c.Result.CreatedAt, Entry: c.Entry,
		})
		if f.opts.Drop != nil && f.opts.Drop(event) {
			continue
		}
		events[i] = event
		f.pushed.Inc()
		f.opts.Hub.Deliver(c.Audience, c.Entry.Connection, conn.EventFrame(event))
	}
	if len(peers) == 0 {
		return
	}
	at, _ := f.opts.Routes.Lookup(ctx, audience(batch), peers)
	remote := make(map[string][]*relayv1.Delivery)
	for i, event := range events {
		if event == nil {
			continue
		}
		sender := batch[i].Entry.Connection
		for instance, users := range byInstance(batch[i].Audience, sender, at) {
			remote[instance] = append(remote[instance], &relayv1.Delivery{
				UserIds: users, What: &relayv1.Delivery_Event{Event: event}, ExceptConnection: sender,
			})
		}
	}
	for instance, deliveries := range remote {
		f.opts.Peers.Send(instance, deliveries...)
	}
}

// Telling is a head and the readers who are to learn it.
type Telling struct {
	Head  *chatv1.Head
	Users []uint64
}

// Heads tells readers, wherever they are, how far their conversations reach: by
// one look-up of routes and one message to each other server. For each telling
// it says whether all could be told; false means that somebody is connected to
// a server that this one does not know yet.
func (f *Fanout) Heads(ctx context.Context, tellings []Telling) (complete []bool) {
	at, astray := f.opts.Routes.Lookup(ctx, readers(tellings), f.opts.Peers.Instances())
	complete = make([]bool, len(tellings))
	remote := make(map[string][]*relayv1.Delivery)
	for i, t := range tellings {
		f.opts.Hub.Deliver(t.Users, 0, conn.HeadsFrames([]*chatv1.Head{t.Head}))
		for instance, there := range byInstance(t.Users, 0, at) {
			remote[instance] = append(remote[instance], &relayv1.Delivery{UserIds: there, What: &relayv1.Delivery_Head{Head: t.Head}})
		}
		complete[i] = !slices.ContainsFunc(t.Users, func(user uint64) bool { return astray[user] })
	}
	for instance, deliveries := range remote {
		f.opts.Peers.Send(instance, deliveries...)
	}
	return complete
}

// Received hands on what a peer sent for users of this server.
func (f *Fanout) Received(deliveries []*relayv1.Delivery) {
	for _, d := range deliveries {
		switch what := d.GetWhat().(type) {
		case *relayv1.Delivery_Event:
			f.opts.Hub.Deliver(d.GetUserIds(), d.GetExceptConnection(), conn.EventFrame(what.Event))
		case *relayv1.Delivery_Head:
			f.opts.Hub.Deliver(d.GetUserIds(), 0, conn.HeadsFrames([]*chatv1.Head{what.Head}))
		}
	}
}

// audience lists the batch's readers once each.
func audience(batch []msglog.Committed) []uint64 {
	var users []uint64
	for i := range batch {
		users = append(users, batch[i].Audience...)
	}
	return once(users)
}

// readers lists the readers of tellings once each.
func readers(tellings []Telling) []uint64 {
	var users []uint64
	for i := range tellings {
		users = append(users, tellings[i].Users...)
	}
	return once(users)
}

func once(users []uint64) []uint64 {
	slices.Sort(users)
	return slices.Compact(users)
}

// byInstance lists users by the servers where they have a connection besides
// one, 0 for none.
func byInstance(users []uint64, except uint64, at map[uint64][]route.Place) map[string][]uint64 {
	var out map[string][]uint64
	for _, user := range users {
		for _, place := range at[user] {
			if except != 0 && place.Only == except {
				continue
			}
			if out == nil {
				out = make(map[string][]uint64)
			}
			out[place.Instance] = append(out[place.Instance], user)
		}
	}
	return out
}
