package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/internal/link"
	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/wire"
)

const (
	// reserved is the room in the event queue that messages leave to the rest.
	reserved = 16
	// frameBatch is how many frames are handled before their messages are stored
	// together.
	frameBatch = 256
	// pollOften is how often a shared store is looked at while somebody waits for
	// what another process does; pollSeldom otherwise. A look costs microseconds.
	pollOften  = 25 * time.Millisecond
	pollSeldom = 250 * time.Millisecond
	// answerLimit is how many times the patience a request may stay unanswered
	// by a server that is alive: two minutes, since servers hold sends while their
	// database is away. It is for answers that got lost.
	answerLimit = 12
)

// owner is all mutable state of a client. Only its one goroutine, run, calls its
// methods. It calls the store, which blocks for disk access, and never waits for the
// network.
type owner struct {
	*Client
	ctx  context.Context
	disk context.Context // for the store: what was received is kept even after ctx has ended

	// The connection: see connect.go.
	state      LinkState
	live       *link.Link
	frames     <-chan *chatv1.ServerFrame // nil while not online
	since      time.Time                  // online since
	retryAt    time.Time                  // when the next attempt is due, zero if none
	attempts   int                        // failed in a row
	dialing    bool                       // an attempt is under way
	dialed     chan dialOutcome           // its outcome; holds one
	assignment *Assignment
	avoid      map[string]time.Time // instance: until when
	known      []Endpoint           // servers, the most recent first
	kept       string               // the addresses of known that the store has
	linkOwed   bool                 // a LinkChanged did not fit into the queue
	online     []chan struct{}      // closed when online or ended

	// Requests: see requests.go.
	pending   map[uint64]question // sent on this link, unanswered
	lastID    uint64
	busySince time.Time // when pending became non-empty
	probedAt  time.Time
	agedAt    time.Time // when the ages of pending were last looked at
	calls     []*call   // not sent yet

	sync   syncState   // see sync.go
	outbox outboxState // see outbox.go
	own    ownSync     // see ownstate.go
	moved  int64       // the order of the last move that was taken over; see moves.go

	// first are the events that come before all others: Reset and
	// ConversationResolved. While they wait for room nothing else is reported or
	// accepted, so at most one for each provisional conversation waits.
	first []Event
}

func newOwner(ctx context.Context, c *Client) (*owner, error) {
	o := &owner{
		Client: c, ctx: ctx, disk: context.WithoutCancel(ctx),
		dialed: make(chan dialOutcome, 1), assignment: c.opt.Assignment,
		avoid: map[string]time.Time{}, pending: map[uint64]question{}, lastID: 1,
	}
	o.outbox.init()
	for _, load := range []func() error{o.initSync, o.initOwn, o.initMoves} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	o.known = o.rememberedEndpoints()
	o.kept = addresses(o.known)
	return o, nil
}

func (o *owner) run() {
	defer o.end()
	o.connect()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-o.ctx.Done():
			return
		case d := <-o.dialed:
			o.onDialed(d)
		case f, ok := <-o.frames:
			o.onFrames(f, ok)
		case fn := <-o.ops:
			fn(o)
		case <-o.wake:
			o.outbox.maybe, o.outbox.more = true, true
		case <-timer.C:
		}
		now := time.Now()
		o.tick(now)
		timer.Reset(o.nextWake(now))
	}
}

// end releases everything. The application's goroutines see done.
func (o *owner) end() {
	if o.live != nil {
		o.live.Close()
	}
	if o.dialing {
		// The context ends the attempt; its link must not outlive us.
		if got := <-o.dialed; got.link != nil {
			got.link.Close()
		}
	}
	o.flush()
	o.unlock()
	for _, call := range o.calls {
		call.reply <- result{err: errClosed}
	}
	close(o.events)
	close(o.done)
	o.cancel()
}

// onFrames handles a frame and those that wait behind it.
func (o *owner) onFrames(f *chatv1.ServerFrame, ok bool) {
	for n := 0; ; {
		if !ok {
			o.onLost(o.live.Err())
			return
		}
		if o.live.Err() == nil || !errors.Is(o.live.Err(), wire.ErrProtocol) {
			o.onFrame(f)
		}
		if n++; n == frameBatch {
			return
		}
		select {
		case f, ok = <-o.frames:
		default:
			return
		}
	}
}

// tick does all that is due or possible.
func (o *owner) tick(now time.Time) {
	if o.state == Offline && !o.retryAt.IsZero() && !now.Before(o.retryAt) {
		o.connect()
	}
	o.poll(now)
	if o.state == Online {
		o.probe(now)
		o.sendCalls()
		o.send(now)
		o.readOwn(now)
		o.pull(now)
	}
	o.flush()
	o.settleOwed()
}

// settleOwed queues the events that did not fit before.
func (o *owner) settleOwed() {
	o.notifyFirst()
	if o.linkOwed {
		o.notifyLink()
	}
	o.notifyOwed()
	if o.outbox.owed && o.notify(OutboxChanged{}) {
		o.outbox.owed = false
	}
}

// nextWake is the time until something is due by itself.
func (o *owner) nextWake(now time.Time) time.Duration {
	wake := time.Hour
	at := func(t time.Time) {
		if !t.IsZero() {
			wake = min(wake, max(t.Sub(now), time.Millisecond))
		}
	}
	if o.state == Offline {
		at(o.retryAt)
	}
	if o.linkOwed || len(o.first) > 0 || len(o.own.owed) > 0 || o.outbox.owed {
		wake = min(wake, pollOften)
	}
	if len(o.pending) > 0 && o.state == Online {
		wake = min(wake, max(o.probeEvery()/2, time.Millisecond))
	}
	if due, ok := o.nextPoll(); ok {
		wake = min(wake, max(due.Sub(now), time.Millisecond))
	}
	if o.state == Online {
		at(o.outbox.nextAt)
		at(o.own.nextAt)
		at(o.own.readAt)
		at(o.sync.nextAt)
	}
	return wake
}

// probeEvery is half of the patience.
func (o *owner) probeEvery() time.Duration { return min(o.opt.Patience/2, o.live.Heartbeat) }

// probe gives up a server that is silent while we wait for its answers.
func (o *owner) probe(now time.Time) {
	if len(o.pending) == 0 {
		return
	}
	quietSince := o.live.LastFrame()
	if o.busySince.After(quietSince) {
		quietSince = o.busySince
	}
	if limit := answerLimit * o.opt.Patience; now.Sub(o.agedAt) > limit/8 {
		o.agedAt = now
		for _, q := range o.pending {
			if now.Sub(q.at) > limit {
				o.live.Fail(fmt.Errorf("no answer from the server for %v", limit))
				return
			}
		}
	}
	switch quiet := now.Sub(quietSince); {
	case quiet > 2*o.probeEvery():
		o.live.Fail(fmt.Errorf("%w for %v", wire.ErrSilent, quiet.Round(time.Millisecond)))
	case quiet > o.probeEvery() && o.probedAt.Before(quietSince):
		o.probedAt = now
		o.live.Ping()
	}
}

// setLink publishes a state of the connection.
func (o *owner) setLink(l Link) {
	o.state = l.State
	o.mu.Lock()
	o.link = l
	o.mu.Unlock()
	o.notifyLink()
	if l.State == Online || l.State == LoggedOut || l.State == Stopped {
		for _, reply := range o.online {
			close(reply)
		}
		o.online = nil
	}
	level := slog.LevelInfo
	if l.State == Connecting {
		level = slog.LevelDebug
	}
	o.log.Log(o.ctx, level, "link changed", "state", l.State.String(), "instance", l.Instance, "cause", l.Cause)
}

// notifyLink queues the latest state for the application, or tries again later.
func (o *owner) notifyLink() { o.linkOwed = !o.notify(LinkChanged{o.Client.Link()}) }

func (o *owner) whenOnline(reply chan struct{}) {
	if o.state == Online || o.state == LoggedOut || o.state == Stopped {
		close(reply)
		return
	}
	o.online = append(o.online, reply)
}

// violate ends the link: the server broke the protocol.
func (o *owner) violate(format string, args ...any) {
	err := fmt.Errorf("%w: %s", wire.ErrProtocol, fmt.Sprintf(format, args...))
	o.log.Warn("protocol violation", "err", err)
	if o.live != nil {
		o.live.Fail(err)
	}
}

// jitter spreads d over d/2..d.
func jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2+1)
}

// Describe is an error's text for a person.
func Describe(err error) string {
	var bye *wire.GoodbyeError
	var e *errs.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Message
	case errors.As(err, &bye):
		return bye.Error()
	case errors.Is(err, store.ErrNotFound):
		return store.ErrNotFound.Error()
	}
	return err.Error()
}
