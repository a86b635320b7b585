package admin

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// samplesPerSecond records of one message and level are written in a second. The next
// second's first one says how many were left out. A flood of requests must not become a
// flood of the log, in which nobody finds the rest.
const samplesPerSecond = 100

// maxSampled messages are counted, more than a program has. Beyond it all counts begin
// anew.
const maxSampled = 1000

// sampler is a slog.Handler that leaves out what comes too often. It may be used from
// any goroutine.
type sampler struct {
	slog.Handler
	seen *seen // shared by all loggers that were made from the first
	now  func() time.Time
}

type seen struct {
	mu     sync.Mutex
	counts map[message]*count
}

type message struct {
	level slog.Level
	text  string
}

type count struct {
	second        int64
	written, left int
}

func newSampler(h slog.Handler) *sampler {
	return &sampler{Handler: h, seen: &seen{counts: make(map[message]*count)}, now: time.Now}
}

// Handle implements slog.Handler.
func (s *sampler) Handle(ctx context.Context, r slog.Record) error {
	left, ok := s.seen.next(message{r.Level, r.Message}, s.now().Unix())
	if !ok {
		return nil
	}
	if left > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", left))
	}
	return s.Handler.Handle(ctx, r)
}

// next says whether a record is written, and how many like it were left out before.
func (s *seen) next(m message, second int64) (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts[m]
	if c == nil {
		if len(s.counts) >= maxSampled {
			clear(s.counts)
		}
		c = &count{second: second}
		s.counts[m] = c
	}
	if c.second != second {
		left = c.left
		*c = count{second: second}
	}
	if c.written >= samplesPerSecond {
		c.left++
		return 0, false
	}
	c.written++
	return left, true
}

// WithAttrs implements slog.Handler.
func (s *sampler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sampler{s.Handler.WithAttrs(attrs), s.seen, s.now}
}

// WithGroup implements slog.Handler.
func (s *sampler) WithGroup(name string) slog.Handler {
	return &sampler{s.Handler.WithGroup(name), s.seen, s.now}
}
