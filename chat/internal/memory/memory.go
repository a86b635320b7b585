// Package memory gives the memory of a quiet server back to the system.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Admitting many connections leaves as much garbage as the connections need
// afterwards, and on a quiet server the garbage collector leaves it for minutes. So
// a server that has become quiet starts a collection and frees what it can.
const (
	trimEvery = 5 * time.Second
	// quietWork is how many messages and connections a quiet server has in that time:
	// so few that a collection, some ten milliseconds, disturbs nobody.
	quietWork = 100
	// leastTrim is how much garbage makes a collection worth its cost.
	leastTrim = 16 << 20
)

// Trim frees memory whenever the server is quiet, until ctx ends. work counts the
// messages and connections since the start.
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

// trimmer decides when a collection is due. It is for one goroutine.
type trimmer struct {
	work  uint64 // at the last call
	least uint64 // the smallest heap since the last trim
}

func (t *trimmer) due(work, heap uint64) bool {
	quiet := work-t.work < quietWork
	t.work, t.least = work, min(t.least, heap)
	return quiet && heap >= t.least+leastTrim
}

// heap is the memory of the heap in bytes, garbage included.
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
