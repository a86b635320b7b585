package chat

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Letting many people in leaves as much garbage as they then take while they say
// nothing, and a collector that has nothing to do leaves it for minutes. So a
// server that has become calm gives it back.
const (
	trimEvery = 5 * time.Second
	// calmWork is how many messages and connections a calm server sees in that
	// time: so few that a collection, some ten milliseconds, disturbs nobody.
	calmWork = 100
	// leastTrim is what a collection is worth.
	leastTrim = 16 << 20
)

// trim watches for that until ctx ends.
func (s *Server) trim(ctx context.Context) error {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	t := trimmer{work: s.work(), least: heap()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if t.due(s.work(), heap()) {
			debug.FreeOSMemory()
			t.least = heap()
		}
	}
}

// work counts what was done since the start.
func (s *Server) work() uint64 { return uint64(s.lanes.Sent()) + s.conns.Accepted() }

// trimmer decides. It is for one goroutine.
type trimmer struct {
	work  uint64 // done when last asked
	least uint64 // the smallest heap since the last trim
}

func (t *trimmer) due(work, heap uint64) bool {
	calm := work-t.work < calmWork
	t.work, t.least = work, min(t.least, heap)
	return calm && heap >= t.least+leastTrim
}

// heap is the memory that the heap holds, garbage included, in bytes.
func heap() (held uint64) {
	parts := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(parts)
	for _, p := range parts {
		held += p.Value.Uint64()
	}
	return held
}
