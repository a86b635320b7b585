// Package lane keeps messages in order on their way into the log. A lane is this
// server's queue for one conversation, in which at most one append is under way.
// Messages that arrive meanwhile go together as the next one. So a change of the
// conversation's owner, or an append whose outcome is unknown, never lets a later
// message overtake an earlier one.
package lane

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/retry"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// Appender appends events, in order, to a conversation. An error leaves their
// outcome unknown.
type Appender interface {
	Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error)
}

// Bounds. While the database is away, sends wait here. Beyond DefaultMaxWaiting,
// or MaxWaitingBytes (two thousand of the longest), they are refused with a time
// to retry, and stay in the client's outbox.
const (
	DefaultMaxWaiting = 20_000

	MaxWaitingBytes = 32 << 20
	// sendBytes is about the memory of a send beside its body.
	sendBytes    = 256
	maxPerAppend = 64
	maxBytes     = 128 << 10
	// attemptLimit is how long one attempt may take, less up to a tenth, before the
	// events are offered again to the owner of that time.
	attemptLimit = 15 * time.Second
	// maxIdle goroutines wait for the next lane: more than work at once on a busy
	// small machine. They keep half a megabyte.
	maxIdle = 64
)

// Lanes are the lanes of one server. All methods may be called from any
// goroutine.
type Lanes struct {
	appender Appender
	most     int64
	log      *slog.Logger
	ctx      context.Context // ends when the lanes give up
	cancel   context.CancelFunc
	running  sync.WaitGroup
	// waiting and bytes are what is held now, sends counts what was settled.
	waiting, bytes, sends atomic.Int64

	period atomic.Pointer[period] // of the attempts that begin now
	// next hands a new lane to an idle goroutine; idle counts those.
	next chan uint64
	idle atomic.Int32

	mu     sync.Mutex // owns lanes and closed
	lanes  map[uint64]*lane
	closed bool
}

// lane exists only while its conversation has messages under way. The mutex of
// Lanes owns queue.
type lane struct {
	queue []waiting
}

// waiting is an event in a lane with the callback for its result.
type waiting struct {
	event msglog.Event
	done  func(msglog.Result)
}

// New returns lanes that append through a and hold at most most sends, 0 for the
// default.
func New(a Appender, most int, log *slog.Logger) *Lanes {
	ctx, cancel := context.WithCancel(context.Background())
	return &Lanes{
		appender: a,
		most:     int64(cmp.Or(most, DefaultMaxWaiting)),
		log:      log,
		ctx:      ctx,
		cancel:   cancel,
		lanes:    make(map[uint64]*lane),
		next:     make(chan uint64),
	}
}

// retries are the waits before an append is offered again.
var retries = retry.Policy{Min: 10 * time.Millisecond, Max: 500 * time.Millisecond}

var (
	errFull   = errs.New(errs.CodeExhausted, "too many messages wait for the database").Retry(time.Second)
	errClosed = errs.New(errs.CodeUnavailable, "the server is stopping").Retry(time.Second)
)

// Send queues an event for its conversation. It does not block. done is called
// once, from the lane's goroutine, and must not block. An error means that the
// event was not taken and done is never called.
func (l *Lanes) Send(e msglog.Event, done func(msglog.Result)) error {
	if l.hold(&e); l.waiting.Load() > l.most || l.bytes.Load() > MaxWaitingBytes {
		l.release(&e)
		return errFull
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.release(&e)
		return errClosed
	}
	if busy, ok := l.lanes[e.Conversation]; ok {
		busy.queue = append(busy.queue, waiting{e, done})
		return nil
	}
	l.lanes[e.Conversation] = &lane{queue: []waiting{{e, done}}}
	select {
	case l.next <- e.Conversation:
	default:
		l.running.Go(func() { l.work(e.Conversation) })
	}
	return nil
}

// work runs a lane and then others. A new goroutine for the next lane would have to
// grow its stack again, a tenth of what a message costs.
func (l *Lanes) work(conversation uint64) {
	for more := true; more; {
		l.run(conversation)
		if l.idle.Add(1) > maxIdle {
			l.idle.Add(-1)
			return
		}
		conversation, more = <-l.next
		l.idle.Add(-1)
	}
}

// hold and release count what is under way.
func (l *Lanes) hold(e *msglog.Event) {
	l.waiting.Add(1)
	l.bytes.Add(int64(sendBytes + len(e.Body)))
}

func (l *Lanes) release(e *msglog.Event) {
	l.waiting.Add(-1)
	l.bytes.Add(-int64(sendBytes + len(e.Body)))
}

// Waiting is how many messages are under way.
func (l *Lanes) Waiting() int { return int(l.waiting.Load()) }

// Sent is how many messages were settled since the start.
func (l *Lanes) Sent() int64 { return l.sends.Load() }

// Close takes no more messages and waits for those under way until ctx ends. The
// rest is then answered as unavailable.
func (l *Lanes) Close(ctx context.Context) {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.next) // nothing is sent to it once closed is set
	}
	l.mu.Unlock()
	stop := context.AfterFunc(ctx, l.cancel)
	l.running.Wait()
	stop()
	l.cancel()
}

// run appends what is queued until nothing is left.
func (l *Lanes) run(conversation uint64) {
	for {
		batch := l.take(conversation)
		if len(batch) == 0 {
			return
		}
		events := make([]msglog.Event, len(batch))
		for i := range batch {
			events[i] = batch[i].event
		}
		results := l.append(conversation, events)
		for i := range batch {
			batch[i].done(results[i])
			l.release(&events[i])
		}
		l.sends.Add(int64(len(batch)))
	}
}

// take removes the next events to append, or the lane when there are none.
func (l *Lanes) take(conversation uint64) []waiting {
	l.mu.Lock()
	defer l.mu.Unlock()
	busy := l.lanes[conversation]
	n, size := 0, 0
	for n < len(busy.queue) && n < maxPerAppend && (n == 0 || size+len(busy.queue[n].event.Body) <= maxBytes) {
		size += len(busy.queue[n].event.Body)
		n++
	}
	if n == 0 {
		delete(l.lanes, conversation)
		return nil
	}
	batch := busy.queue[:n:n]
	busy.queue = busy.queue[n:]
	if planted.Has(planted.LanesReordered) {
		slices.Reverse(batch)
	}
	return batch
}

// attempt is the context of one attempt. Attempts that begin within a tenth of
// attemptLimit share it, which saves a timer for each message.
func (l *Lanes) attempt() context.Context {
	now := time.Now()
	if p := l.period.Load(); p != nil && now.Sub(p.began) < attemptLimit/10 {
		return p.ctx
	}
	ctx, cancel := context.WithCancelCause(l.ctx)
	time.AfterFunc(attemptLimit, func() { cancel(context.DeadlineExceeded) })
	l.period.Store(&period{ctx, now})
	return ctx
}

// period is a span of time. Attempts that begin in it have the same deadline.
type period struct {
	ctx   context.Context
	began time.Time
}

// append tries until the outcome is known or the lanes are closed.
func (l *Lanes) append(conversation uint64, events []msglog.Event) []msglog.Result {
	for attempt := 0; ; attempt++ {
		// Once the lanes have given up, nothing more is offered: earlier events may
		// still be on their way into the log through another owner, and these events
		// would overtake them.
		if l.ctx.Err() != nil {
			return failed(len(events), errClosed)
		}
		results, err := l.appender.Append(l.attempt(), conversation, events)
		if err == nil {
			return results
		}
		if l.ctx.Err() != nil {
			continue // which fails
		}
		if !errs.MayPass(err) || errs.CodeOf(err) == errs.CodeInternal {
			l.log.Error("append refused", "conversation", conversation, "err", err)
			return failed(len(events), err)
		}
		l.log.Debug("append failed and is retried", "conversation", conversation, "attempt", attempt, "err", err)
		retries.Wait(l.ctx, attempt+1)
	}
}

func failed(n int, err error) []msglog.Result {
	results := make([]msglog.Result, n)
	for i := range results {
		results[i].Err = err
	}
	return results
}
