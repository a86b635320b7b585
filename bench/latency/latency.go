// Package latency records durations in HDR histograms, whose percentiles have
// three significant digits from a microsecond to two minutes.
package latency

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// longest is the longest that a histogram holds; more is counted as this.
	longest = 2 * time.Minute
	digits  = 3
	// shards spread the goroutines that record at the same time.
	shards = 8
)

// Recorder records from any goroutine.
type Recorder struct{ shards [shards]shard }

type shard struct {
	mu   sync.Mutex // owns hist
	hist *hdrhistogram.Histogram
}

// NewRecorder returns an empty one.
func NewRecorder() *Recorder {
	r := &Recorder{}
	for i := range r.shards {
		r.shards[i].hist = hdrhistogram.New(1, longest.Microseconds(), digits)
	}
	return r
}

// Record adds a duration. shard is any number, of which goroutines that record at
// the same time should have different ones.
func (r *Recorder) Record(shard int, d time.Duration) {
	s := &r.shards[uint(shard)%shards]
	us := min(max(d, time.Microsecond), longest).Microseconds()
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.hist.RecordValue(us) // fails only outside the limits
}

// Summary describes durations in milliseconds; without any it is zero.
type Summary struct {
	Count                          int64
	Mean, P50, P90, P99, P999, Max float64
}

// Summary describes what was recorded so far.
func (r *Recorder) Summary() Summary {
	all := hdrhistogram.New(1, longest.Microseconds(), digits)
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		all.Merge(s.hist)
		s.mu.Unlock()
	}
	at := func(percentile float64) float64 { return float64(all.ValueAtPercentile(percentile)) / 1000 }
	return Summary{
		Count: all.TotalCount(), Mean: all.Mean() / 1000, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9),
		Max: float64(all.Max()) / 1000,
	}
}
