// Package mail sends gate's mails, which are few: it puts them into a bounded
// queue and tries until the mail server accepts them or they expire.
package mail

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/retry"
)

// Message is one mail to one address.
type Message struct {
	To      string
	Subject string
	Text    string
	// Expires is when it is of no use any more.
	Expires time.Time
}

// Transport sends one message to a mail server and returns once the server has
// accepted it. After an error for which Permanent is true there is no other
// attempt. It is called by several goroutines at once.
type Transport interface {
	Send(ctx context.Context, m Message) error
}

// permanent marks an error that every further attempt would get.
type permanent struct{ error }

// Unwrap returns the error itself.
func (p permanent) Unwrap() error { return p.error }

// Permanent says that sending again is pointless.
func Permanent(err error) bool {
	var p permanent
	return errors.As(err, &p)
}

// QueueConfig bounds a Queue.
type QueueConfig struct {
	// Size is how many messages may wait, those between two attempts included.
	Size int
	// Workers is how many are sent at once.
	Workers int
	// FirstRetry is the pause after the first failed attempt; it doubles up to
	// LastRetry.
	FirstRetry, LastRetry time.Duration
	// Flush is for how long Run goes on sending after its context ended.
	Flush time.Duration
}

// Queue owns the messages from Enqueue until they are sent or dropped.
type Queue struct {
	cfg       QueueConfig
	transport Transport
	log       *slog.Logger
	// ready holds the messages to send now. Its capacity is Size, and there are
	// never more items than that, so that a send on it never blocks.
	ready chan *item

	mu      sync.Mutex            // owns what follows
	items   int                   // accepted and not finished
	delayed map[*item]*time.Timer // waiting for their next attempt
	closing bool                  // Run's context ended: nothing is accepted any more
	idle    chan struct{}         // closed once closing and items is 0

	results *prometheus.CounterVec
	retries prometheus.Counter
	length  prometheus.GaugeFunc
}

type item struct {
	Message
	attempts int
}

// NewQueue returns a queue whose metrics are registered with reg. Nothing is
// sent before Run.
func NewQueue(cfg QueueConfig, t Transport, log *slog.Logger, reg prometheus.Registerer) *Queue {
	q := &Queue{
		cfg: cfg, transport: t, log: log,
		ready: make(chan *item, cfg.Size), delayed: map[*item]*time.Timer{}, idle: make(chan struct{}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "msrchat_gate_mails_total",
			Help: "Mails by result: sent, refused (by the mail server), expired, dropped (at the end of the " +
				"process), full (the queue was).",
		}, []string{"result"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msrchat_gate_mail_retries_total", Help: "Failed attempts to send a mail that are repeated.",
		}),
	}
	q.length = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msrchat_gate_mail_queue", Help: "Mails waiting to be sent.",
	}, func() float64 { return float64(q.Len()) })
	for _, result := range []string{sent, refused, expired, dropped, full} {
		q.results.WithLabelValues(result)
	}
	reg.MustRegister(q.results, q.retries, q.length)
	return q
}

// The results.
const (
	sent    = "sent"
	refused = "refused"
	expired = "expired"
	dropped = "dropped"
	full    = "full"
)

// Len is how many messages were accepted and are not finished.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items
}

// Enqueue accepts a message. It never blocks. CodeUnavailable: the queue is
// full, or the process is about to end.
func (q *Queue) Enqueue(m Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.items >= q.cfg.Size {
		q.results.WithLabelValues(full).Inc()
		return errs.New(errs.CodeUnavailable,
			"mail cannot be sent at present; try again in a minute").Retry(time.Minute)
	}
	q.items++
	q.ready <- &item{Message: m}
	return nil
}

// Run sends until ctx ends, and what is left then for at most Flush. It blocks
// and always returns nil; mails that could not be sent are counted and logged.
// It is called once.
func (q *Queue) Run(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var workers sync.WaitGroup
	for range q.cfg.Workers {
		workers.Go(func() { q.work(sending) })
	}
	<-ctx.Done()
	q.close()
	flush := time.NewTimer(q.cfg.Flush)
	defer flush.Stop()
	select {
	case <-q.idle:
	case <-flush.C:
	}
	stop()
	workers.Wait()
	if left := q.Len(); left > 0 {
		q.results.WithLabelValues(dropped).Add(float64(left))
		q.log.Warn("mails dropped at the end", "mails", left)
	}
	return nil
}

// close accepts no more messages and makes those that wait for a retry ready.
func (q *Queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing = true
	for it, timer := range q.delayed {
		if timer.Stop() {
			delete(q.delayed, it)
			q.ready <- it
		}
	}
	if q.items == 0 {
		close(q.idle)
	}
}

func (q *Queue) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case it := <-q.ready:
			if ctx.Err() == nil { // if both were ready, the end wins
				q.attempt(ctx, it)
			}
		}
	}
}

func (q *Queue) attempt(ctx context.Context, it *item) {
	if time.Now().After(it.Expires) {
		q.log.Warn("mail expired before it could be sent", "domain", domain(it.To), "attempts", it.attempts)
		q.finish(expired)
		return
	}
	it.attempts++
	err := q.transport.Send(ctx, it.Message)
	switch {
	case err == nil:
		q.finish(sent)
	case Permanent(err):
		q.log.Warn("mail refused", "domain", domain(it.To), "err", safe(err, it.To))
		q.finish(refused)
	default:
		q.log.Warn("mail not sent, trying again", "domain", domain(it.To), "attempts", it.attempts,
			"err", safe(err, it.To))
		q.retries.Inc()
		q.delay(it)
	}
}

func (q *Queue) finish(result string) {
	q.results.WithLabelValues(result).Inc()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items--
	if q.closing && q.items == 0 {
		close(q.idle)
	}
}

// lastPause is the longest pause after the end, when there is not much time left.
const lastPause = 500 * time.Millisecond

// delay makes an item ready again after a pause.
func (q *Queue) delay(it *item) {
	pause := retry.Policy{Min: q.cfg.FirstRetry, Max: q.cfg.LastRetry}.After(it.attempts)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		pause = min(pause, lastPause)
	}
	q.delayed[it] = time.AfterFunc(pause, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.delayed, it)
		q.ready <- it
	})
}

// domain is the part of an address that may be logged.
func domain(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}

// safe is an error's text without the address, which mail servers quote.
func safe(err error, address string) string {
	return strings.ReplaceAll(err.Error(), address, "…@"+domain(address))
}
