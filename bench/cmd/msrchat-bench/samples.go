package main

import (
	"context"
	"time"

	"github.com/msrchat/msrchat/bench/proc"
	"github.com/msrchat/msrchat/bench/report"
)

// sampleEvery is how often processes and database are sampled during a storm.
const sampleEvery = 200 * time.Millisecond

// samples are of the processes and the database, from begin on. They belong to one
// goroutine.
type samples struct {
	began       bool
	first, last sample
	peak        map[string]float64 // cores by group, over one interval
	mean        map[string]float64
	threads     int64 // the most threads of the database that ran at once
}

type sample struct {
	at       time.Time
	set      *proc.Set
	used     proc.Snapshot
	counters report.Counters
}

// begin forgets what was before the last sample.
func (s *samples) begin() {
	*s = samples{
		began: true, first: s.last, last: s.last, peak: make(map[string]float64), mean: make(map[string]float64),
	}
}

// take takes a sample, unless the last one is not sampleEvery old.
func (s *samples) take(ctx context.Context, b *bench, set *proc.Set) {
	if time.Since(s.last.at) < sampleEvery {
		return
	}
	counters, err := report.ReadCounters(ctx, b.db)
	if err != nil {
		return // it may be the database that was killed; the next sample may work
	}
	now := sample{at: time.Now(), set: set, used: set.Snapshot(), counters: counters}
	before := s.last
	s.last = now
	if !s.began {
		return
	}
	for _, group := range set.Groups() {
		if cores, ok := coresBetween(before, now, group); ok {
			s.peak[group] = max(s.peak[group], cores)
		}
		if cores, ok := coresBetween(s.first, now, group); ok {
			s.mean[group] = cores
		}
	}
	s.threads = max(s.threads, counters.ThreadsRunning-1) // one of them serves this query
}

func coresBetween(before, now sample, group string) (float64, bool) {
	used, ok := now.used.Since(before.used, group)
	return used.CPU.Seconds() / now.at.Sub(before.at).Seconds(), ok
}

func (s *samples) figures() []report.Figure {
	if !s.began || s.last.at.Equal(s.first.at) {
		return nil
	}
	var out []report.Figure
	for _, group := range s.last.set.Groups() {
		if mean, ok := s.mean[group]; ok {
			out = append(out, report.Measure("cores_"+group, "cores: "+group, mean),
				report.Measure("cores_peak_"+group, "- at most", s.peak[group]))
		}
	}
	statements := float64(s.last.counters.Questions-s.first.counters.Questions) / s.last.at.Sub(s.first.at).Seconds()
	return append(out, report.Measure("statements_per_s", "database: statements/s", statements),
		report.Count("threads_running_peak", "database: threads running, at most", s.threads))
}
