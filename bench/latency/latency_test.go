package latency_test

import (
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/bench/latency"
)

func TestPercentilesAreRightToThreeDigits(t *testing.T) {
	r := latency.NewRecorder()
	if s := r.Summary(); s != (latency.Summary{}) {
		t.Errorf("without durations: %+v", s)
	}
	var recording sync.WaitGroup
	for who := range 10 { // 1 to 1000 ms, by ten goroutines at once
		recording.Go(func() {
			for i := range 100 {
				r.Record(who, time.Duration(who*100+i+1)*time.Millisecond)
			}
		})
	}
	recording.Wait()
	s := r.Summary()
	near := func(name string, got, want float64) {
		t.Helper()
		if got < want*0.998 || got > want*1.002 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if s.Count != 1000 {
		t.Errorf("count is %d", s.Count)
	}
	near("mean", s.Mean, 500.5)
	near("p50", s.P50, 500)
	near("p90", s.P90, 900)
	near("p99", s.P99, 990)
	near("p99.9", s.P999, 999)
	near("max", s.Max, 1000)
}

func TestWhatDoesNotFitIsCountedAsTheNearestThatDoes(t *testing.T) {
	r := latency.NewRecorder()
	r.Record(-1, -time.Second)
	r.Record(1, time.Hour)
	s := r.Summary()
	if s.Count != 2 || s.P50 > 0.002 || s.Max < 119_000 || s.Max > 121_000 {
		t.Errorf("got %+v", s)
	}
}
