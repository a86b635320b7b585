package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/retry"
)

// Both sides of a link send something every keepAliveInterval. A peer that is silent
// for silenceLimit is away: what was offered to it is offered elsewhere, and this
// server repairs what it may have missed. So a server that hangs holds up a sender
// for three seconds at most.
const (
	keepAliveInterval = time.Second
	silenceLimit      = 3 * time.Second
	// dialLimit bounds one attempt to reach a peer.
	dialLimit = 2 * time.Second
	// forgetAfter is how long an unlisted peer is dialled before it is forgotten.
	forgetAfter = 5 * time.Second
)

// redials are the waits between attempts to reach a peer.
var redials = retry.Policy{Min: 50 * time.Millisecond, Max: 2 * time.Second}

// Bounds of the outgoing side.
const (
	// maxQueued deliveries wait for a link, of maxQueuedBytes together (twice what
	// that many short texts take). Beyond it they are dropped, and the counter skips
	// a number, so that the receiver repairs.
	maxQueued      = 8192
	maxQueuedBytes = 4 << 20
	// MaxTogetherBytes wait for all links: four that hang, with everything that they may
	// hold. Beyond it a link may still have smallQueueBytes: those that hang must not stop
	// the others.
	MaxTogetherBytes = 16 << 20
	smallQueueBytes  = 64 << 10
	// A frame takes the deliveries that wait, up to maxPerFrame, until it has
	// maxFrameBytes.
	maxPerFrame   = 256
	maxFrameBytes = 1 << 20
)

var errDown = errors.New("the peer is away")

// link is the outgoing side of one peer. Its goroutine is run.
type link struct {
	peers    *Peers
	instance string
	hash     uint64
	cancel   context.CancelFunc
	ctx      context.Context
	// alive is set while both streams work and the peer does not drain.
	alive atomic.Bool
	// stalled is set while the peer reports that its log makes no progress.
	stalled atomic.Bool
	// revision is that of the protocol at the peer.
	revision atomic.Uint32
	woken    chan struct{}
	// linked is set once the streams worked. Owned by run.
	linked bool

	mu      sync.Mutex // owns the fields below
	address string
	queue   []*relayv1.Delivery
	bytes   int // of queue
	// counter numbers the frames with deliveries. It skips a number after a drop.
	counter uint64
	dropped bool
	// gone is set when the link was removed: nothing is queued any more.
	gone bool
	// appends is the stream for messages, nil while the link is down.
	appends *appends
}

func newLink(p *Peers, instance, address string) *link {
	return &link{
		peers:    p,
		instance: instance,
		hash:     xxhash.Sum64String(instance),
		address:  address,
		woken:    make(chan struct{}, 1),
		cancel:   func() {},
	}
}

func (l *link) up() bool { return l.alive.Load() }

func (l *link) setAddress(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.address = address
}

func (l *link) target() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.address
}

func (l *link) stop() { l.cancel() }

func (l *link) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// deliverySize is about the size of a delivery, in memory and on the wire.
func deliverySize(d *relayv1.Delivery) int {
	const each = 96
	return each + len(d.GetEvent().GetBody()) + len(d.GetOwnState().GetDraft().GetText())
}

// send queues deliveries, in order, as far as there is room.
func (l *link) send(deliveries []*relayv1.Delivery) {
	l.mu.Lock()
	if l.gone {
		deliveries = nil
	}
	for i, d := range deliveries {
		if !understood(d, l.revision.Load()) {
			continue
		}
		size := deliverySize(d)
		together := l.peers.queued.Add(int64(size))
		if len(l.queue) >= maxQueued || l.bytes+size > maxQueuedBytes ||
			together > MaxTogetherBytes && l.bytes+size > smallQueueBytes {
			l.peers.queued.Add(-int64(size))
			l.peers.metrics.dropped.Add(float64(len(deliveries) - i))
			l.dropped = true
			break
		}
		l.queue = append(l.queue, d)
		l.bytes += size
	}
	l.mu.Unlock()
	l.wake()
}

// forget drops what waits in a link that was removed.
func (l *link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peers.queued.Add(-int64(l.bytes))
	l.queue, l.bytes, l.gone = nil, 0, true
}

// makeGap makes the counter skip a number.
func (l *link) makeGap() {
	l.mu.Lock()
	l.dropped = true
	l.mu.Unlock()
	l.wake()
}

// take returns the next frame, a keepalive when nothing waits, and whether there is
// more to send.
func (l *link) take() (f *relayv1.DeliverRequest, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		l.counter++
		l.dropped = false
	}
	n, size := 0, 0
	for n < len(l.queue) && n < maxPerFrame && size < maxFrameBytes {
		size += deliverySize(l.queue[n])
		n++
	}
	f = l.frame()
	if n > 0 {
		l.counter++
		f.Counter, f.Deliveries = l.counter, l.queue[:n:n]
		if l.revision.Load() == 0 {
			f.Deliveries = l.nameUsers(f.GetDeliveries())
		}
		l.bytes -= size
		l.peers.queued.Add(-int64(size))
		if l.queue = l.queue[n:]; len(l.queue) == 0 {
			l.queue = nil
		}
	}
	return f, len(l.queue) > 0
}

// frame is a keepalive. It needs the lock.
func (l *link) frame() *relayv1.DeliverRequest {
	return &relayv1.DeliverRequest{
		Instance: l.peers.opts.Instance,
		BootId:   l.peers.opts.Boot,
		Counter:  l.counter,
		Draining: l.peers.isDraining(),
	}
}

// run connects, serves the link while it lasts, and connects again, until ctx
// ends or the peer is away and no longer listed.
func (l *link) run(parent context.Context) {
	l.peers.mu.Lock()
	l.ctx, l.cancel = context.WithCancel(parent)
	ctx := l.ctx
	l.peers.mu.Unlock()
	defer l.cancel()
	var since time.Time // when an unlisted peer was first found away
	for failures := 1; ctx.Err() == nil; failures++ {
		started := time.Now()
		l.linked = false
		err := l.serve(ctx)
		l.alive.Store(false)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > 2*silenceLimit {
			failures = 1
		}
		pause := redials.After(failures)
		l.peers.opts.Logger.Info("link ended", "peer", l.instance, "err", err, "again_in", pause)
		switch {
		case l.peers.isListed(l.instance):
			since = time.Time{}
		case since.IsZero() || l.linked:
			since = time.Now()
		case time.Since(since) > forgetAfter:
			if l.peers.drop(l) {
				return
			}
		}
		retry.Sleep(ctx, pause)
	}
}

// serve runs one connection until it breaks.
func (l *link) serve(parent context.Context) error {
	// The streams outlive parent for as long as it takes to send what is queued.
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+l.target(), l.peers.opts.Dial...)
	if err != nil {
		return err
	}
	defer cc.Close()
	client := relayv1.NewRelayServiceClient(cc)
	ctx = metadata.AppendToOutgoingContext(ctx, addressee, l.instance)
	// The streams last as long as ctx. Opening them has a limit and ends with parent.
	limit := time.AfterFunc(dialLimit, cancel)
	release := context.AfterFunc(parent, cancel)
	defer release()
	deliver, err := client.Deliver(ctx)
	if err != nil {
		return fmt.Errorf("open deliver: %w", err)
	}
	stream, err := client.Append(ctx)
	if err != nil {
		return fmt.Errorf("open append: %w", err)
	}
	l.mu.Lock()
	hello := l.frame()
	l.mu.Unlock()
	if err := deliver.Send(hello); err != nil {
		return err
	}
	first, err := deliver.Recv()
	if err != nil {
		return fmt.Errorf("first keepalive: %w", err)
	}
	if !limit.Stop() || !release() {
		return errDown
	}
	if first.GetInstance() != l.instance {
		return fmt.Errorf("at %s is instance %q", l.target(), first.GetInstance())
	}
	calls := newAppends(stream)
	l.mu.Lock()
	l.appends = calls
	l.mu.Unlock()
	l.linked = true
	l.revision.Store(first.GetRevision())
	l.alive.Store(!first.GetDraining())
	l.peers.opts.Logger.Info("link up", "peer", l.instance, "draining", first.GetDraining())

	ended := make(chan error, 3)
	go func() { ended <- l.watch(deliver, cancel) }()
	go func() { ended <- l.pump(parent, ctx, deliver) }()
	go func() { ended <- calls.receive() }()
	err = <-ended
	if err == nil { // the pump sent the rest and closed its side; the peer closes next
		late := time.AfterFunc(keepAliveInterval, cancel)
		defer late.Stop()
	} else {
		cancel()
	}
	l.mu.Lock()
	l.appends = nil
	l.mu.Unlock()
	calls.fail(err)
	if err == nil {
		_ = stream.CloseSend() // the peer then ends the stream
	}
	others := []error{<-ended, <-ended} // they end for the same reason
	l.peers.opts.Logger.Debug("link's streams ended", "peer", l.instance, "others", others)
	return err
}

// watch takes the peer's keepalives and calls cancel when they stop.
func (l *link) watch(stream relayv1.RelayService_DeliverClient, cancel func()) error {
	silent := time.AfterFunc(silenceLimit, cancel)
	defer silent.Stop()
	for {
		response, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive keepalives: %w", err)
		}
		silent.Reset(silenceLimit)
		l.stalled.Store(response.GetStuck())
		l.alive.Store(!response.GetDraining())
	}
}

// pump sends what is queued, and a keepalive when nothing is. When parent ends it
// sends the rest, closes its side and returns nil.
func (l *link) pump(parent, ctx context.Context, stream relayv1.RelayService_DeliverClient) error {
	ticker := time.NewTicker(keepAliveInterval)
	defer ticker.Stop()
	for leaving := false; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-parent.Done():
			leaving = true
		case <-l.woken:
		case <-ticker.C:
		}
		for more := true; more; {
			var f *relayv1.DeliverRequest
			f, more = l.take()
			if err := stream.Send(f); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			l.peers.metrics.frames.Inc()
		}
		if leaving {
			return stream.CloseSend()
		}
	}
}
