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

// Appender appends events, in order, to a conversation. An error leaves their outcome
// unknown.
type Appender interface {
	Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error)
	// Begin does the same and does not wait: take is called for the events when their turn
	// has come, and ended once with what Append would return, both from another goroutine,
	// which they must not block. When take returns none, ended is not called. false means
	// that Append must be called instead.
	Begin(conversation uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool
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

	mu       sync.Mutex // owns the fields below and those of each lane
	lanes    map[uint64]*lane
	attempts uint64 // numbers those of Begin
	closed   bool
}

// lane exists only while its conversation has messages under way.
type lane struct {
	queue batch
	// attempt is the number of the Begin under way, which began at began; 0 when there is
	// none, or nobody waits for it any more. batch is what it took.
	attempt uint64
	began   time.Time
	batch   batch
}

// batch is events, each with who waits for its result.
type batch struct {
	events  []msglog.Event
	waiting []waiting
}

// waiting is a request of a sender.
type waiting struct {
	sender  Sender
	request uint64
	since   time.Time
}

// Sender sends messages.
type Sender interface {
	// Sent takes results of its messages, in the order in which they were sent. It is called
	// once for each message, from any goroutine, and must not block.
	Sent([]Answer)
}

// Answer is the result of a request.
type Answer struct {
	Request, Conversation uint64
	Waited                time.Duration
	Result                msglog.Result
}

// New returns lanes that append through a and hold at most most sends, 0 for the
// default. Close ends them.
func New(a Appender, most int, log *slog.Logger) *Lanes {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Lanes{
		appender: a,
		most:     int64(cmp.Or(most, DefaultMaxWaiting)),
		log:      log,
		ctx:      ctx,
		cancel:   cancel,
		lanes:    make(map[uint64]*lane),
	}
	go l.watch()
	return l
}

// retries are the waits before an append is offered again.
var retries = retry.Policy{Min: 10 * time.Millisecond, Max: 500 * time.Millisecond}

var (
	errFull   = errs.New(errs.CodeExhausted, "too many messages wait for the database").Retry(time.Second)
	errClosed = errs.New(errs.CodeUnavailable, "the server is stopping").Retry(time.Second)
)

// Send queues an event for its conversation. It does not block. An error means that the
// event was not taken and that the sender gets no answer to the request.
func (l *Lanes) Send(e msglog.Event, sender Sender, request uint64) error {
	if l.hold(&e); l.waiting.Load() > l.most || l.bytes.Load() > MaxWaitingBytes {
		l.release(&e)
		return errFull
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.release(&e)
		return errClosed
	}
	busy, ok := l.lanes[e.Conversation]
	if !ok {
		busy = new(lane)
		l.lanes[e.Conversation] = busy
		l.running.Add(1)
	}
	busy.queue.events = append(busy.queue.events, e)
	busy.queue.waiting = append(busy.queue.waiting, waiting{sender, request, time.Now()})
	l.mu.Unlock()
	if !ok {
		l.proceed(e.Conversation)
	}
	return nil
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
	l.closed = true
	l.mu.Unlock()
	stop := context.AfterFunc(ctx, l.cancel)
	l.running.Wait()
	stop()
	l.cancel()
}

// proceed appends what is queued, or removes the lane when nothing is. It does not block.
// It is called by the goroutine that made the lane or ended what was under way.
//
// Usually this server appends, and then the log's own goroutine ends the attempt and goes
// on here: a message needs no goroutine that waits for it.
func (l *Lanes) proceed(conversation uint64) {
	attempt := l.begin(conversation)
	if attempt == 0 {
		return
	}
	take := func() []msglog.Event { return l.taken(conversation, attempt) }
	ended := func(results []msglog.Result, err error) { l.ended(conversation, attempt, results, err) }
	if l.ctx.Err() == nil && l.appender.Begin(conversation, take, ended) {
		return
	}
	if b, ok := l.claim(conversation, attempt); ok {
		go l.finish(conversation, b)
	}
}

// begin numbers an attempt, or removes the lane when nothing is queued; then it returns 0.
func (l *Lanes) begin(conversation uint64) (attempt uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	busy := l.lanes[conversation]
	if len(busy.queue.events) == 0 {
		delete(l.lanes, conversation)
		l.running.Done()
		return 0
	}
	l.attempts++
	busy.attempt, busy.began = l.attempts, time.Now()
	return busy.attempt
}

// taken are the events of an attempt, none when somebody else has claimed it. What was
// queued until now goes with it.
func (l *Lanes) taken(conversation, attempt uint64) []msglog.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	busy := l.lanes[conversation]
	if busy == nil || busy.attempt != attempt {
		return nil
	}
	busy.batch = busy.queue.take()
	return busy.batch.events
}

// claim ends an attempt for its caller, who alone goes on with the batch. false means that
// another one did so before.
func (l *Lanes) claim(conversation, attempt uint64) (batch, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	busy := l.lanes[conversation]
	if busy == nil || busy.attempt != attempt {
		return batch{}, false
	}
	return busy.claim(), true
}

// claim needs the lock.
func (b *lane) claim() batch {
	taken := b.batch
	if len(taken.events) == 0 {
		taken = b.queue.take()
	}
	b.attempt, b.batch = 0, batch{}
	return taken
}

// ended takes the outcome of an attempt.
func (l *Lanes) ended(conversation, attempt uint64, results []msglog.Result, err error) {
	b, ok := l.claim(conversation, attempt)
	switch {
	case !ok: // it took too long, and is offered again
	case err != nil:
		go l.finish(conversation, b)
	default:
		l.settle(b, results)
		l.proceed(conversation)
	}
}

// finish offers a batch until its outcome is known.
func (l *Lanes) finish(conversation uint64, b batch) {
	l.settle(b, l.append(conversation, b.events))
	l.proceed(conversation)
}

// settle answers a batch. What one sender sent is answered together, so that it leaves in
// one write.
func (l *Lanes) settle(b batch, results []msglog.Result) {
	answers := make([]Answer, len(b.waiting))
	now := time.Now()
	first := 0
	for i, w := range b.waiting {
		l.release(&b.events[i])
		answers[i] = Answer{w.request, b.events[i].Conversation, now.Sub(w.since), results[i]}
		if i+1 == len(b.waiting) || b.waiting[i+1].sender != w.sender {
			w.sender.Sent(answers[first : i+1])
			first = i + 1
		}
	}
	l.sends.Add(int64(len(b.waiting)))
}

// take removes what may be appended together.
func (q *batch) take() batch {
	n, size := 0, 0
	for n < len(q.events) && n < maxPerAppend && (n == 0 || size+len(q.events[n].Body) <= maxBytes) {
		size += len(q.events[n].Body)
		n++
	}
	b := batch{q.events[:n:n], q.waiting[:n:n]}
	q.events, q.waiting = q.events[n:], q.waiting[n:]
	if planted.Has(planted.LanesReordered) {
		slices.Reverse(b.events)
		slices.Reverse(b.waiting)
	}
	return b
}

// watch offers again what takes longer than attemptLimit, until the lanes have given up,
// and then answers what is under way.
func (l *Lanes) watch() {
	ticker := time.NewTicker(attemptLimit / 10)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			l.overdue(now.Add(-attemptLimit))
		case <-l.ctx.Done():
			l.overdue(time.Now())
			return
		}
	}
}

// overdue claims the attempts that began before a time. append answers them once the lanes
// have given up.
func (l *Lanes) overdue(before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conversation, busy := range l.lanes {
		if busy.attempt != 0 && !busy.began.After(before) {
			go l.finish(conversation, busy.claim())
		}
	}
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
