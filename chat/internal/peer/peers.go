// Package peer connects this chat server with the others: a link to each, on
// which events travel to their readers and messages to the server that owns
// their conversation.
//
// Who owns a conversation is computed from who is linked: it saves conflicts in
// the log and decides nothing else, so two servers may disagree for a while.
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

	"github.com/msrchat/msrchat/chat/internal/msglog"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/discovery"
)

// Log appends on this server.
type Log interface {
	Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error)
	// Stalled is how long the log has been working on the same events.
	Stalled() time.Duration
}

// Options are what Peers are made of.
type Options struct {
	// Instance and Boot name this process.
	Instance string
	Boot     uint64
	Log      Log
	// Members are those of a conversation as far as they are remembered, for peers
	// of revision 0.
	Members func(conversation uint64) []uint64
	// Deliver takes what a peer sends for users of this server. It must not block.
	Deliver func([]*relayv1.Delivery)
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

	// draining is read under locks of links, so it must not need mu.
	draining atomic.Bool
	// left is closed when draining is set.
	left      chan struct{}
	leaveOnce sync.Once
	// offered are the appends that peers offered, room the bytes that they may
	// take together.
	offered *door
	room    *semaphore.Weighted

	// mu owns the fields below. It may be held when a link's mutex is taken,
	// never the other way round.
	mu    sync.RWMutex
	links map[string]*link
	// listed are the instances in the catalog.
	listed map[string]discovery.Instance
	ctx    context.Context
	wg     sync.WaitGroup
	// heard remembers what came in from each peer.
	heard map[string]*ear
}

// New returns peers that link to nobody before Run.
func New(opts Options) *Peers {
	p := &Peers{
		opts: opts, metrics: newMetrics(opts.Registerer), hash: xxhash.Sum64String(opts.Instance),
		links: make(map[string]*link), heard: make(map[string]*ear),
		left: make(chan struct{}), offered: newDoor(), room: semaphore.NewWeighted(maxOffered),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "msrchat_peer_links", Help: "Peers whose link is up.",
		}, func() float64 { return float64(p.up()) }))
	}
	return p
}

// up counts the links that work.
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

// Run keeps links to the instances that watch reports until ctx ends. watch
// calls back with the whole catalog whenever it changes, and returns when its
// context ends.
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

// update starts links to new instances. A row that is gone ends nothing: a link
// ends when its peer says so or is silent and unlisted.
func (p *Peers) update(catalog []discovery.Instance) {
	for _, instance := range p.take(catalog) {
		p.opts.Logger.Info("peer gone without a farewell", "peer", instance)
		p.missed(instance)
	}
}

// take takes over a catalog and returns the peers that it says are gone, as far
// as no stream of theirs tells, or told, what they left behind. Such a peer may
// have died with messages committed that it could not send us.
func (p *Peers) take(catalog []discovery.Instance) (gone []string) {
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
		if l, known := p.links[i.ID]; known {
			l.setAddress(address)
			continue
		}
		l := newLink(p, i.ID, address)
		p.links[i.ID] = l
		p.wg.Go(func() { l.run(p.ctx) })
	}
	for id, was := range before {
		now, listed := p.listed[id]
		e := p.heard[id]
		tells := e != nil && (e.open > 0 || e.farewell)
		if (!listed || was.Passing && !now.Passing) && !tells {
			gone = append(gone, id)
		}
	}
	return gone
}

// isListed says whether the catalog still has an instance.
func (p *Peers) isListed(instance string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.listed[instance]
	return ok
}

// drop removes a link that gave up; it is called from the link's goroutine.
func (p *Peers) drop(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, listed := p.listed[l.instance]; !listed && p.links[l.instance] == l {
		delete(p.links, l.instance)
		p.forget(l.instance)
		l.stop()
	}
}

// Drain tells the peers that this server leaves: from now on it owns nothing.
func (p *Peers) Drain() {
	p.leaveOnce.Do(func() {
		p.draining.Store(true)
		close(p.left)
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
// offered before is through or ctx ends. What is committed after a server's
// fan-out has stopped would reach nobody in time, so this comes before.
func (p *Peers) EndAppends(ctx context.Context) { p.offered.close(ctx) }

// all needs the lock.
func (p *Peers) all() []*link {
	out := make([]*link, 0, len(p.links))
	for _, l := range p.links {
		out = append(out, l)
	}
	return out
}

// Instances are the peers that this server knows, linked or not.
func (p *Peers) Instances() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]string, 0, len(p.links))
	for instance := range p.links {
		out = append(out, instance)
	}
	return out
}

// Apart says that there is a peer which serves users, by its checks in Consul,
// and to which there is no link: what either appends does not reach the other's
// readers in time.
func (p *Peers) Apart() bool {
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
// peers whose links are up, chosen anew each time, in the order of their ids.
func (p *Peers) Alternates() []*chatv1.Endpoint {
	const most = 3
	p.mu.RLock()
	defer p.mu.RUnlock()
	var out []*chatv1.Endpoint
	for id, l := range p.links {
		i, listed := p.listed[id]
		if listed && l.up() && len(out) < most {
			out = append(out, &chatv1.Endpoint{Instance: id, Address: i.Address, TlsServerName: i.Meta[discovery.MetaTLSServerName]})
		}
	}
	slices.SortFunc(out, func(a, b *chatv1.Endpoint) int { return cmp.Compare(a.GetInstance(), b.GetInstance()) })
	return out
}

// owner returns the link to a conversation's owner, nil when that is this
// server: rendezvous hashing over those that are up and whose logs make progress,
// or over all that are up where no log does.
func (p *Peers) owner(conversation uint64) *link {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var owner *link
	var best uint64
	stuck := true // whether the best so far is
	if !p.isDraining() {
		best, stuck = weight(p.hash, conversation), p.stuck()
	}
	for _, l := range p.links {
		if !l.up() {
			continue
		}
		w, itIs := weight(l.hash, conversation), l.stuck.Load()
		if stuck && !itIs || stuck == itIs && w > best {
			owner, best, stuck = l, w, itIs
		}
	}
	return owner
}

// stuck says that this server's log makes no progress, perhaps because it alone
// of all servers cannot reach the database.
func (p *Peers) stuck() bool { return p.opts.Log.Stalled() > silence }

// weight mixes an instance with a conversation (the finaliser of splitmix64).
func weight(instance, conversation uint64) uint64 {
	x := instance ^ (conversation * 0x9e3779b97f4a7c15)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Append appends events where their conversation is owned: here or at a peer.
// It is lane.Appender. Events that a peer answers with nonsense are appended
// here, as any server may: their id keeps them single.
func (p *Peers) Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error) {
	if l := p.owner(conversation); l != nil {
		started := time.Now()
		results, err := l.append(ctx, conversation, events)
		p.metrics.forwardSeconds.Observe(time.Since(started).Seconds())
		if !errors.Is(err, errNonsense) {
			return results, err
		}
		p.opts.Logger.Error("append not understood", "peer", l.instance, "err", err)
	}
	return p.opts.Log.Append(ctx, conversation, events)
}

// Send queues deliveries for an instance; it does not block. false means that
// there is no link to it.
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

// Lost tells all peers that something for their users is lost, so that they
// compare them with the log. It does not block.
func (p *Peers) Lost() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, l := range p.links {
		l.lose()
	}
}
