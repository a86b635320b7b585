package msglog

import (
	"cmp"
	"context"
	"database/sql"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/msrchat/msrchat/shared/database"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/planted"
	"github.com/msrchat/msrchat/shared/retry"
)

// writer runs one transaction after the other. Its goroutine owns all fields but
// queue and the atomics.
type writer struct {
	log     *Log
	queue   chan *request
	stopped chan struct{}
	// oldest is when the oldest request of the running batch was queued (Unix
	// microseconds), 0 while idle.
	oldest atomic.Int64
	// began is when work on that batch began (Unix microseconds), 0 while idle.
	began atomic.Int64

	conn  *sql.Conn
	heads heads
	text  []byte
	seen  map[key]*row
}

// key identifies a message.
type key struct {
	conversation, sender uint64
	id                   [16]byte
}

// row is one event of a batch.
type row struct {
	req   *request
	index int
	// seq and ordinal are the event's in the statement under way.
	seq, ordinal uint64
	// first is the row of the same batch that this one repeats.
	first *row
}

func (r *row) event() *Event   { return &r.req.events[r.index] }
func (r *row) result() *Result { return &r.req.results[r.index] }
func (r *row) key() key {
	e := r.event()
	return key{r.req.conversation, e.Sender, e.ID}
}

// same says whether the event has this content.
func (r *row) same(kind uint8, body []byte) bool {
	return r.event().Kind == kind && slices.Equal(r.event().Body, body)
}

// repeat takes over the outcome of first.
func (r *row) repeat() {
	if err := r.first.req.err; err != nil {
		r.req.err = err // the outcome is unknown
		return
	}
	*r.result() = *r.first.result()
	switch e := r.first.event(); {
	case r.result().Err != nil:
	case r.same(e.Kind, e.Body):
		r.result().Existing = true
	default:
		*r.result() = Result{Err: errOtherBody}
	}
}

func newWriter(l *Log) *writer {
	return &writer{
		log:     l,
		queue:   make(chan *request, queueLen),
		stopped: make(chan struct{}),
		heads:   heads{},
		seen:    make(map[key]*row),
	}
}

// run takes what waits, commits it, and takes what waits then. It never waits for
// more to come.
func (w *writer) run(ctx context.Context) {
	defer close(w.stopped)
	defer w.disconnect()
	var batch []*request
	for {
		var ok bool
		if batch, ok = w.take(batch[:0]); !ok {
			return
		}
		if len(batch) == 0 {
			continue
		}
		w.oldest.Store(batch[0].queuedAt.UnixMicro())
		w.began.Store(time.Now().UnixMicro())
		w.process(ctx, batch)
		w.began.Store(0)
		w.oldest.Store(0)
		clear(batch)
	}
}

// take blocks for one request and adds those that wait behind it.
func (w *writer) take(batch []*request) ([]*request, bool) {
	first, ok := <-w.queue
	if !ok {
		return nil, false
	}
	// Goroutines that are ready to run go first, as long as they bring more: nine rows a
	// batch instead of seven on a busy machine. On an idle machine none is ready.
	for before := -1; len(w.queue) > before && len(w.queue) < maxBatchRows; {
		before = len(w.queue)
		runtime.Gosched()
	}
	rows, size := 0, 0
	for r := first; ; {
		if r.begin() {
			batch = append(batch, r)
			rows += len(r.events)
			size += r.size()
		}
		if rows >= maxBatchRows || size >= maxBatchBytes {
			return batch, true
		}
		select {
		case r, ok = <-w.queue:
			if !ok {
				return batch, true // the next take sees the end again
			}
		default:
			return batch, true
		}
	}
}

// begin takes the events; false means that there are none.
func (r *request) begin() bool {
	r.events = r.take()
	r.results = make([]Result, len(r.events))
	return len(r.events) > 0
}

func (r *request) size() (n int) {
	for i := range r.events {
		n += len(r.events[i].Body)
	}
	return n
}

// process brings every row of a batch to a result and ends the requests.
func (w *writer) process(ctx context.Context, batch []*request) {
	started := time.Now()
	// Sorted, so that the writers of several servers take their locks in the same
	// order; stable, so that one device's messages keep their order.
	slices.SortStableFunc(batch, func(a, b *request) int { return cmp.Compare(a.conversation, b.conversation) })
	rows, repeats := w.rows(batch)
	for at := 0; at < len(rows); at += maxBatchRows {
		w.commit(ctx, rows[at:min(at+maxBatchRows, len(rows))])
	}
	for _, r := range repeats {
		r.repeat()
	}
	w.log.metrics.batch(len(rows), time.Since(started))
	if w.log.opts.Committed != nil {
		w.log.opts.Committed(committed(batch))
	}
	// By the writer itself, because the lanes that go on now are a part of the next batch.
	for _, r := range batch {
		r.ended(r.results, r.err)
	}
}

var (
	errOtherBody = errs.New(errs.CodeConflict, "this message id was used for another text")
	errRefused   = errs.New(errs.CodeInvalid, "the message cannot be stored")
	errTooLong   = errs.New(errs.CodeTooLarge, "the message is longer than %d bytes", MaxBody)
)

// rows flattens a batch. It leaves out events that are too long and those that
// repeat an earlier one of the batch, because the unique key would refuse the whole
// statement.
func (w *writer) rows(batch []*request) (rows, repeats []*row) {
	clear(w.seen)
	n := count(batch)
	all := make([]row, n)
	rows = make([]*row, 0, n)
	for _, req := range batch {
		for i := range req.events {
			r := &all[0]
			all = all[1:]
			r.req, r.index = req, i
			if len(r.event().Body) > MaxBody {
				r.result().Err = errTooLong
				continue
			}
			if first, ok := w.seen[r.key()]; ok {
				r.first = first
				repeats = append(repeats, r)
				continue
			}
			w.seen[r.key()] = r
			rows = append(rows, r)
		}
	}
	return rows, repeats
}

// count is how many events a batch has.
func count(batch []*request) (n int) {
	for _, req := range batch {
		n += len(req.events)
	}
	return n
}

func committed(batch []*request) []Event {
	out := make([]Event, 0, count(batch))
	for _, req := range batch {
		for i, result := range req.results {
			if req.err == nil && result.Err == nil {
				e := req.events[i]
				e.Conversation, e.CreatedAt = req.conversation, result.CreatedAt
				e.Seq, e.Ordinal = result.Seq, result.Ordinal
				out = append(out, e)
			}
		}
	}
	return out
}

// commit brings rows to a result, by insert if no other writer interferes, else by
// settle. It returns when all rows have a result or ctx has ended.
func (w *writer) commit(ctx context.Context, rows []*row) {
	if planted.Has(planted.DropThousandth) {
		var dropped []*row
		rows, dropped = w.dropThousandth(rows)
		defer w.pretend(dropped)
		if len(rows) == 0 {
			return
		}
	}
	w.heads.learn(w.log.others.take())
	calm, contended := w.heads.split(rows)
	if len(calm) > 0 {
		if err := w.insert(ctx, calm); err != nil {
			w.failed(calm, err)
			w.settle(ctx, calm, true)
		}
	}
	w.settle(ctx, contended, false)
}

// insert is the fast path: one statement behind the cached heads.
func (w *writer) insert(ctx context.Context, rows []*row) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := w.loadHeads(ctx, rows); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	w.heads.number(rows)
	w.text = appendInsert(w.text[:0], rows, now)
	if planted.Has(planted.AckBeforeCommit) {
		w.insertLater(string(w.text))
	} else if _, err := w.conn.ExecContext(ctx, string(w.text)); err != nil {
		return err
	}
	w.record(rows, now)
	return nil
}

// record gives rows that were just committed their results.
func (w *writer) record(rows []*row, now int64) {
	for _, r := range rows {
		*r.result() = Result{Seq: r.seq, Ordinal: r.ordinal, CreatedAt: now}
	}
	w.heads.advance(rows)
}

// connect makes sure that there is a connection.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.log.db.Conn(ctx)
	if err != nil {
		return err
	}
	w.conn = conn
	return nil
}

func (w *writer) disconnect() {
	if w.conn != nil {
		_ = w.conn.Close() // it goes back to the pool, which drops a broken one
		w.conn = nil
	}
}

// failed drops what an error makes doubtful: the heads of the rows, or the
// connection.
func (w *writer) failed(rows []*row, err error) {
	switch {
	case database.IsDuplicate(err):
		w.log.metrics.conflicts.Inc() // appendLocked compares the heads
	case database.Answered(err):
		w.heads.forget(rows)
	default:
		w.lose(err)
	}
}

// lose gives up the connection and all cached heads, which were read or written on
// it.
func (w *writer) lose(err error) {
	w.log.metrics.lost.Inc()
	w.log.opts.Logger.Warn("message log lost its connection", "err", err)
	clear(w.heads)
	w.disconnect()
}

// retries are the waits between attempts while the database is away.
var retries = retry.Policy{Min: 20 * time.Millisecond, Max: time.Second}
