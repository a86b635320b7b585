// Package batch puts many questions into one exchange: those that are asked while
// an exchange is under way go together as the next one. No exchange waits for more
// questions to come.
package batch

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// Batcher makes exchanges of many questions. Ask may be called from any goroutine.
// The queue needs no bound: it holds one question for each caller that waits.
type Batcher[Q, A any] struct {
	// do answers questions in their order, in time or with an error.
	do      func(ctx context.Context, questions []Q) ([]A, error)
	most    int
	timeout time.Duration

	mu      sync.Mutex // owns the fields below
	waiting []*call[Q, A]
	busy    bool // a goroutine takes what waits
}

type call[Q, A any] struct {
	question Q
	answer   A
	err      error
	done     chan struct{} // closed when answer and err are set
}

// New returns a Batcher that puts at most most questions into one exchange, which
// may take as long as timeout.
func New[Q, A any](most int, timeout time.Duration, do func(context.Context, []Q) ([]A, error)) *Batcher[Q, A] {
	return &Batcher[Q, A]{do: do, most: most, timeout: timeout}
}

// Ask waits for the answer: for the exchange that is under way, if there is one, and
// for its own. The error is that of its own exchange, or that of ctx.
func (b *Batcher[Q, A]) Ask(ctx context.Context, question Q) (A, error) {
	c := &call[Q, A]{question: question, done: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	if !b.busy {
		b.busy = true
		go b.run()
	}
	b.mu.Unlock()
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		var none A
		return none, context.Cause(ctx)
	}
}

// run takes what waits until nothing does.
func (b *Batcher[Q, A]) run() {
	for {
		runtime.Gosched() // goroutines that are ready to run may have a question
		calls := b.take()
		if len(calls) == 0 {
			return
		}
		questions := make([]Q, len(calls))
		for i, c := range calls {
			questions[i] = c.question
		}
		ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
		answers, err := b.do(ctx, questions)
		cancel()
		for i, c := range calls {
			if c.err = err; err == nil {
				c.answer = answers[i]
			}
			close(c.done)
		}
	}
}

func (b *Batcher[Q, A]) take() []*call[Q, A] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.waiting), b.most)
	calls := b.waiting[:n:n]
	if b.waiting = b.waiting[n:]; n == 0 {
		b.waiting, b.busy = nil, false
	}
	return calls
}
