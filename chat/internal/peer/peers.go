// Package peer connects this chat server with the others. A link is the connection
// between two chat servers. On it events travel to the servers of their readers, and
// messages to the server that owns their conversation.
//
// The owner of a conversation is computed from the links that are up. Ownership
// saves conflicts in the log and decides nothing else, so two servers may disagree
// for a while.
package peer

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/discovery"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// Log appends on this server.
type Log interface {
	Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error)
	// Begin is Append without waiting; false: it would have to wait.
	Begin(conversation uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool
	// Stalled is how long the log has been working on the same events.
	Stalled() time.Duration
	// Conflicted says that another server took this one's number in a conversation lately.
	Conflicted(conversation uint64) bool
}

// Options are what Peers are made of.
type Options struct {
	// Instance and Boot name this process.
	Instance string
	Boot     uint64
	Log      Log
	// Members are the cached members of a conversation, for peers of revision 0.
	Members func(conversation uint64) []uint64
	// Deliver takes what a peer sent for users of this server. It must not block.
	Deliver func(from string, deliveries []*relayv1.Delivery)
	// Missed is called when something that a peer sent may be lost.
	Missed func(peer string)
	// Dial are the options for connections to peers (credentials).
	Dial       []grpc.DialOption
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Peers are the other chat servers as this one sees them.
type Peers struct {
	opts    Options
	metrics *metrics
	hash    uint64

	// draining is read under the mutexes of links, so it must not need mu.
	draining atomic.Bool
	// drainBegan is closed when draining is set.
	drainBegan chan struct{}
	drainOnce  sync.Once
	// offered counts the appends that peers offered, room the bytes that these may
	// take together.
	offered *inflight
	room    *semaphore.Weighted
	// queued are the bytes that wait for all links.
	queued atomic.Int64

	// mu owns the fields below. A link's mutex may be taken while it is held, never
	// the other way round.
	mu    sync.RWMutex
	links map[string]*link
	// listed are the instances in the catalog.
	listed map[string]discovery.Instance
	ctx    context.Context
	wg     sync.WaitGroup
	// inbound is what came in from each peer.
	inbound map[string]*inbound
}

// New returns Peers. Before Run there are no links.
func New(opts Options) *Peers {
	p := &Peers{
		opts:       opts,
		metrics:    newMetrics(opts.Registerer),
		hash:       xxhash.Sum64String(opts.Instance),
		drainBegan: make(chan struct{}),
		offered:    newInflight(),
		room:       semaphore.NewWeighted(MaxOffered),
		links:      make(map[string]*link),
		inbound:    make(map[string]*inbound),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "msrchat_peer_links", Help: "Peers whose link is up.",
		}, func() float64 { return float64(p.up()) }))
	}
	return p
}

// up counts the links that are up.
func (p *Peers) up() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := 0
	for _, l := range p.links {
		if l.up() {
			n++
		}
	}
	return n
}

// Run keeps links to the instances in the catalog until ctx ends. watch calls back
// with the whole catalog whenever it changes, and returns when its context ends.
func (p *Peers) Run(ctx context.Context, watch func(context.Context, func([]discovery.Instance)) error) error {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	err := watch(ctx, p.update)
	<-ctx.Done()
	p.mu.RLock()
	for _, l := range p.links {
		l.stop()
	}
	p.mu.RUnlock()
	p.wg.Wait()
	return err
}

// update starts links to new instances. An instance that is not in the catalog any
// more keeps its link until it closes its streams, or is silent.
func (p *Peers) update(catalog []discovery.Instance) {
	for _, instance := range p.setCatalog(catalog) {
		p.opts.Logger.Info("peer is away without an orderly end", "peer", instance)
		p.missed(instance)
	}
}

// setCatalog replaces the catalog and returns the peers that vanished from it or
// began to fail there. It leaves out those with an open stream, whose end will show
// whether something is missing, and those that ended it in order. The others may have
// died with committed messages that they could not send.
func (p *Peers) setCatalog(catalog []discovery.Instance) (vanished []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.listed
	p.listed = make(map[string]discovery.Instance, len(catalog))
	for _, i := range catalog {
		address := i.Meta[discovery.MetaRelay]
		if i.ID == "" || i.ID == p.opts.Instance || address == "" {
			continue
		}
		p.listed[i.ID] = i
		if l, ok := p.links[i.ID]; ok {
			l.setAddress(address)
			continue
		}
		l := newLink(p, i.ID, address)
		p.links[i.ID] = l
		p.wg.Go(func() { l.run(p.ctx) })
	}
	for id, was := range before {
		now, listed := p.listed[id]
		in := p.inbound[id]
		covered := in != nil && (in.open > 0 || in.orderly)
		if (!listed || was.Passing && !now.Passing) && !covered {
			vanished = append(vanished, id)
		}
	}
	return vanished
}

// isListed says whether the catalog still has an instance.
func (p *Peers) isListed(instance string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.listed[instance]
	return ok
}

// drop removes a link that gave up, unless its instance is listed again: then it must go
// on. It is called from the link's goroutine.
func (p *Peers) drop(l *link) (dropped bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, listed := p.listed[l.instance]; listed {
		return false
	}
	delete(p.links, l.instance)
	p.forgetInbound(l.instance)
	l.stop()
	l.forget()
	return true
}

// Drain tells the peers that this server drains: from now on it owns nothing.
func (p *Peers) Drain() {
	p.drainOnce.Do(func() {
		p.draining.Store(true)
		close(p.drainBegan)
	})
	p.mu.RLock()
	links := p.all()
	p.mu.RUnlock()
	for _, l := range links {
		l.wake()
	}
}

func (p *Peers) isDraining() bool { return p.draining.Load() }

// EndAppends refuses what peers offer from now on, and waits until what they
// offered before is appended or ctx ends. It must come before the fan-out stops,
// which would not push what is committed later.
func (p *Peers) EndAppends(ctx context.Context) { p.offered.close(ctx) }

// all needs the lock.
func (p *Peers) all() []*link {
	out := make([]*link, 0, len(p.links))
	for _, l := range p.links {
		out = append(out, l)
	}
	return out
}

// Instances are all peers, whether their link is up or not.
func (p *Peers) Instances() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]string, 0, len(p.links))
	for instance := range p.links {
		out = append(out, instance)
	}
	return out
}

// Partitioned says that a peer passes its checks in Consul, so that it serves users,
// and has no link that is up: what either server appends does not reach the other's
// readers in time.
func (p *Peers) Partitioned() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for id, i := range p.listed {
		if l := p.links[id]; i.Passing && (l == nil || !l.up()) {
			return true
		}
	}
	return false
}

// Alternates are the addresses where this server's clients may go: three of the
// peers whose links are up, chosen at random each time and sorted by id.
func (p *Peers) Alternates() []*chatv1.Endpoint {
	const most = 3
	p.mu.RLock()
	defer p.mu.RUnlock()
	var out []*chatv1.Endpoint
	for id, l := range p.links {
		i, listed := p.listed[id]
		if listed && l.up() && len(out) < most {
			out = append(out, &chatv1.Endpoint{
				Instance:      id,
				Address:       i.Address,
				TlsServerName: i.Meta[discovery.MetaTLSServerName],
			})
		}
	}
	slices.SortFunc(out, func(a, b *chatv1.Endpoint) int { return cmp.Compare(a.GetInstance(), b.GetInstance()) })
	return out
}

// owner returns the link to a conversation's owner, nil when that is this server:
// rendezvous hashing over the servers that are up and whose logs make progress, or
// over all that are up if every log is stalled.
func (p *Peers) owner(conversation uint64) *link {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var owner *link
	var best uint64
	stalled := true // whether the best so far is
	if !p.isDraining() {
		best, stalled = weight(p.hash, conversation), p.stalled()
	}
	for _, l := range p.links {
		if !l.up() {
			continue
		}
		w, s := weight(l.hash, conversation), l.stalled.Load()
		if stalled && !s || stalled == s && w > best {
			owner, best, stalled = l, w, s
		}
	}
	return owner
}

// appender returns the link to the server that is to append, nil when that is this one.
func (p *Peers) appender(conversation uint64) *link {
	if !p.isDraining() && !p.stalled() && !p.opts.Log.Conflicted(conversation) {
		return nil
	}
	return p.owner(conversation)
}

// stalled says that this server's log makes no progress, perhaps because it is the
// only server that cannot reach the database.
func (p *Peers) stalled() bool { return p.opts.Log.Stalled() > silenceLimit }

// weight mixes an instance with a conversation (the finaliser of splitmix64).
func weight(instance, conversation uint64) uint64 {
	x := instance ^ (conversation * 0x9e3779b97f4a7c15)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Append appends events here, or at the owner of their conversation where two servers took
// the same number lately, and where this server drains or its log makes no progress. It
// implements lane.Appender. If a peer's answer cannot be understood, the events are
// appended here, as any server may; the log stores each id once.
func (p *Peers) Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error) {
	if l := p.appender(conversation); l != nil {
		started := time.Now()
		results, err := l.append(ctx, conversation, events)
		p.metrics.forwardSeconds.Observe(time.Since(started).Seconds())
		if !errors.Is(err, errBadAnswer) {
			return results, err
		}
		p.opts.Logger.Error("append not understood", "peer", l.instance, "err", err)
	}
	return p.opts.Log.Append(ctx, conversation, events)
}

// Begin begins to append here, without waiting. false means that another server is to
// append, or that the log is full: then Append must be called. It implements lane.Appender.
func (p *Peers) Begin(conversation uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool {
	return p.appender(conversation) == nil && p.opts.Log.Begin(conversation, take, ended)
}

// Send queues deliveries for an instance. It does not block. false means that there
// is no link to it.
func (p *Peers) Send(instance string, deliveries ...*relayv1.Delivery) bool {
	p.mu.RLock()
	l := p.links[instance]
	p.mu.RUnlock()
	if l == nil {
		return false
	}
	l.send(deliveries)
	return true
}

// Connected tells all peers that a user has a new connection here. It does not block.
func (p *Peers) Connected(user uint64) {
	d := []*relayv1.Delivery{{What: &relayv1.Delivery_Connected{Connected: true}, UserId: user}}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, l := range p.links {
		l.send(d)
	}
}

// Told says that all peers tell this server of their users' new connections.
func (p *Peers) Told() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for id, l := range p.links {
		if in := p.inbound[id]; in == nil || in.open == 0 || l.revision.Load() < tellsConnections {
			return false
		}
	}
	return true
}

// Lost makes a gap in the count of every link, so that all peers compare their
// users with the log. It does not block.
func (p *Peers) Lost() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, l := range p.links {
		l.makeGap()
	}
}
