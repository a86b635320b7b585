// Package msglog is the message log: for each conversation an append-only
// sequence of events in MySQL, numbered 1, 2, 3 … without a gap.
//
// Why a log is dense, has each message once and keeps it, with any number of
// writers:
//
//   - The committed rows of a conversation are always 1..h. A writer inserts
//     c+1..c+k in one atomic statement. It takes for c only a head that it knows to
//     be committed, never one from an attempt with an unknown outcome; so c <= h. If
//     c < h, the primary key refuses the whole statement. If c = h, the rows become
//     h+1..h+k.
//   - A unique key on (conversation, sender, client message id) lets only one copy
//     of a message commit. Every other copy gets the number of that one.
//   - A result is given only after the commit was confirmed. When a connection
//     breaks during a commit, the events are looked up before they are offered
//     again.
//
// This needs no lease, no clock and no single writer. Ownership of a conversation by
// one process only saves conflicts; settle.go says what a conflict costs.
//
// The proof needs heads that never decrease. So the last row of a conversation is
// never deleted (a policy may remove its beginning, see first_seq). And all cached
// heads are dropped when a connection breaks, because the next one may lead to
// another primary.
package msglog

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/shared/errs"
)

// Limits of one batch, which gains little beyond 512 rows (measured), and how many
// requests may wait for the writer before Append blocks.
const (
	maxBatchRows  = 512
	maxBatchBytes = 1 << 20
	queueLen      = 4096
)

// MaxBody is the largest body of an event in bytes.
const MaxBody = 64 << 10

// Event is an entry of a conversation's log, the one form of a message in this
// server. On its way into the log it has no Seq, Ordinal and CreatedAt yet.
type Event struct {
	Conversation uint64
	Seq          uint64
	// Ordinal is how many events up to this one are counted as unread messages.
	Ordinal   uint64
	CreatedAt int64 // Unix milliseconds
	Sender    uint64
	ID        [16]byte // chosen by the client; an event sent twice is stored once
	// Kind and Body are the content, see chat.proto. The log does not look into it.
	Kind uint8
	Body []byte
	// Uncounted events leave the ordinal as it is. Set only on the way in.
	Uncounted bool
	// Connection is the one that sent the event, 0 for none. It is handed to
	// Options.Committed and not stored.
	Connection uint64
}

// Result is the outcome of one append.
type Result struct {
	Seq, Ordinal uint64
	// CreatedAt is in Unix milliseconds by the clock of the process that
	// appended it first.
	CreatedAt int64
	// Existing says that the event was in the log already.
	Existing bool
	// Err is an *errs.Error when this event was refused: CodeConflict for an id
	// that was used with another body, CodeInvalid for a value that the database
	// refuses. The other events of the request are not affected.
	Err error
}

// Options configure a Log.
type Options struct {
	// Committed is called by the writer after each batch, before the requests are
	// answered, with all events of the batch that are in the log, in log order. It
	// must not block, because the writer waits for it. It may be nil.
	Committed func([]Event)
	Logger    *slog.Logger
	// Registerer gets the log's metrics; nil means none.
	Registerer prometheus.Registerer
}

// Log appends to and reads from the conversations of one database. All methods
// may be called from any goroutine.
type Log struct {
	db      *sql.DB
	opts    Options
	metrics *metrics
	// There is one writer, because with two the batches were half as large, and a
	// batch costs more than the rows in it.
	writer *writer
	others *others

	// offered counts the rows, for planted.DropThousandth alone.
	offered atomic.Int64

	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.RWMutex // owns closed; held for reading while a request is queued
	closed bool
}

var errClosed = errs.New(errs.CodeUnavailable, "the message log is closed")

// New starts the log's writer, which runs until Close.
func New(db *sql.DB, opts Options) *Log {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Log{db: db, opts: opts, metrics: newMetrics(opts.Registerer), cancel: cancel}
	l.others = newOthers()
	l.writer = newWriter(l)
	l.done.Go(func() { l.writer.run(ctx) })
	return l
}

// request is one Append or Begin on its way through the writer, which owns results and
// err until it calls ended.
type request struct {
	conversation uint64
	take         func() []Event
	events       []Event // what it returned
	results      []Result
	err          error
	queuedAt     time.Time
	ended        func([]Result, error)
}

// Append appends events, in order, to one conversation and returns a result for
// each after the commit. It blocks until then, also while the database is away. The
// events must not be changed afterwards.
//
// An error (ctx ended, the log closed) means that the outcome of all events is
// unknown. The same events may safely be offered again, which tells the outcome.
func (l *Log) Append(ctx context.Context, conversation uint64, events []Event) ([]Result, error) {
	if len(events) == 0 {
		return nil, nil
	}
	done := make(chan struct{})
	var results []Result
	var failed error
	r := &request{
		conversation: conversation,
		take:         func() []Event { return events },
		queuedAt:     time.Now(),
		ended: func(r []Result, err error) {
			results, failed = r, err
			close(done)
		},
	}
	if err := l.enqueue(ctx, r); err != nil {
		return nil, err
	}
	select {
	case <-done:
		return results, failed
	case <-ctx.Done():
		return nil, errs.Wrap(errs.CodeUnavailable, context.Cause(ctx), "the message was not confirmed in time")
	}
}

// Begin is Append without waiting. When the turn of the append has come, take is called for
// its events; for none nothing more happens. Else ended is called once with what Append
// would have returned. Both are called by the writer, and must not block. false means that
// the log is closed or too many appends wait; then neither is called.
func (l *Log) Begin(conversation uint64, take func() []Event, ended func([]Result, error)) bool {
	// The writer calls this too, from ended, and must not wait for Close, which may wait for
	// an Append that waits for the writer.
	if !l.mu.TryRLock() {
		return false
	}
	defer l.mu.RUnlock()
	if l.closed {
		return false
	}
	select {
	case l.writer.queue <- &request{conversation: conversation, take: take, queuedAt: time.Now(), ended: ended}:
		return true
	default:
		return false
	}
}

func (l *Log) enqueue(ctx context.Context, r *request) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return errClosed
	}
	w := l.writer
	select {
	case w.queue <- r:
		return nil
	default:
	}
	l.metrics.queueFull.Inc()
	select {
	case w.queue <- r:
		return nil
	case <-w.stopped:
		return errClosed
	case <-ctx.Done():
		return errs.Wrap(errs.CodeUnavailable, context.Cause(ctx), "too many messages wait for the database")
	}
}

// Close lets queued appends finish until ctx ends and then gives up the rest, whose
// outcome is unknown. Later calls of Append fail.
func (l *Log) Close(ctx context.Context) error {
	context.AfterFunc(ctx, l.cancel) // also ends an Append that waits in enqueue
	l.mu.Lock()
	already := l.closed
	if !already {
		l.closed = true
		close(l.writer.queue)
	}
	l.mu.Unlock()
	l.done.Wait()
	l.cancel()
	if ctx.Err() != nil {
		return errors.New("the log closed before every append was settled")
	}
	return nil
}

// QueueDelay is how long the oldest append has been waiting, 0 when none is.
func (l *Log) QueueDelay() time.Duration { return sinceMicro(l.writer.oldest.Load()) }

// Stalled is how long the present batch has been worked on, 0 when there is none.
// While the database can be reached that is some milliseconds, however many appends
// wait.
func (l *Log) Stalled() time.Duration { return sinceMicro(l.writer.began.Load()) }

// sinceMicro is the time since some Unix microseconds, 0 for none.
func sinceMicro(at int64) time.Duration {
	if at == 0 {
		return 0
	}
	return time.Since(time.UnixMicro(at))
}
