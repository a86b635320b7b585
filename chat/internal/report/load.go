package report

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
)

// Meter measures the cores in use and the sends per second. Both are over the time
// since the last reading, but at least half an interval. Its mutex owns all fields.
type Meter struct {
	mu    sync.Mutex
	at    time.Time
	cpu   time.Duration
	sends int64
	cores float64
	rate  float64
}

// Fill reads the meter into a load. sends counts all sends so far.
func (m *Meter) Fill(l *statusv1.Load, sends int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if passed := now.Sub(m.at); passed >= Interval/2 {
		cpu := cpuTime()
		if !m.at.IsZero() {
			m.cores = float64(cpu-m.cpu) / float64(passed)
			m.rate = float64(sends-m.sends) / passed.Seconds()
		}
		m.at, m.cpu, m.sends = now, cpu, sends
	}
	l.Cpu, l.SendRate, l.MemoryBytes = m.cores, m.rate, resident()
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// resident is the process's memory in RAM, 0 if the system does not say.
func resident() uint64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
