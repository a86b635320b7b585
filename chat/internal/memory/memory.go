// Package memory gives the memory of a quiet server back to the system.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Letting many people in leaves as much garbage as they then take while they say
// nothing, and a collector that has nothing to do leaves it for minutes. So a
// server that has become quiet gives it back.
const (
	trimEvery = 5 * time.Second
	// quietWork is how many messages and connections a quiet server sees in that
	// time: so few that a collection, some ten milliseconds, disturbs nobody.
	quietWork = 100
	// leastTrim is what a collection is worth.
	leastTrim = 16 << 20
)

// Trim watches for that until ctx ends. work counts what the server has done since
// its start.
func Trim(ctx context.Context, work func() uint64) error {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	t := trimmer{work: work(), least: heap()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if t.due(work(), heap()) {
			debug.FreeOSMemory()
			t.least = heap()
		}
	}
}

// trimmer decides. It is for one goroutine.
type trimmer struct {
	work  uint64 // done when last asked
	least uint64 // the smallest heap since the last trim
}

func (t *trimmer) due(work, heap uint64) bool {
	quiet := work-t.work < quietWork
	t.work, t.least = work, min(t.least, heap)
	return quiet && heap >= t.least+leastTrim
}

// heap is the memory that the heap holds, garbage included, in bytes.
func heap() (held uint64) {
	parts := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(parts)
	for _, p := range parts {
		held += p.Value.Uint64()
	}
	return held
}
