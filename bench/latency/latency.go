// Package latency records durations in HDR histograms: the percentiles are right
// to three digits from a microsecond to two minutes.
package latency

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// longest is what a histogram can hold; more is counted as this much.
	longest = 2 * time.Minute
	digits  = 3
	// shards keep those who record at once apart.
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

// Record adds a duration. who is any number that differs among those who record
// at the same time.
func (r *Recorder) Record(who int, d time.Duration) {
	s := &r.shards[uint(who)%shards]
	us := min(max(d, time.Microsecond), longest).Microseconds()
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.hist.RecordValue(us) // within the limits by the line above
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
