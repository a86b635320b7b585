package report_test

import (
	"testing"
	"time"

	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/report"
)

func TestMeter(t *testing.T) {
	t.Parallel()
	var m report.Meter
	var first, between, second statusv1.Load
	began := time.Now()
	m.Fill(&first, 1000)
	if first.GetCpu() != 0 || first.GetSendRate() != 0 || first.GetMemoryBytes() < 1<<20 {
		t.Errorf("at first %v", &first)
	}
	m.Fill(&between, 5000) // less than half an interval later, as for a second replica
	if between.GetSendRate() != 0 {
		t.Errorf("a rate of %v over almost no time", between.GetSendRate())
	}
	busy := 0
	testenv.Until(t, "half an interval has passed, with work", func() bool {
		for range 1_000_000 {
			busy++
		}
		return time.Since(began) > report.Interval/2+50*time.Millisecond
	})
	m.Fill(&second, 2000)
	passed := time.Since(began).Seconds()
	if rate := second.GetSendRate(); rate < 1000/passed*0.8 || rate > 1000/passed*1.2 {
		t.Errorf("%v sends a second, want about %v", rate, 1000/passed)
	}
	if second.GetCpu() <= 0 || second.GetCpu() > 1024 {
		t.Errorf("%v cores", second.GetCpu())
	}
	m.Fill(&between, 9000)
	if between.GetSendRate() != second.GetSendRate() {
		t.Error("the next reading, at once, gave another rate")
	}
}
