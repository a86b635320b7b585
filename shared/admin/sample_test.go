package admin

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFloodIsSampled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log, err := Logger("info", &out)
		if err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			log.With("client", "203.0.113.7").Warn("request")
		}
		log.Info("request", "status", 200)
		log.Warn("another")
		if n := strings.Count(out.String(), "level=WARN msg=request"); n != samplesPerSecond {
			t.Errorf("%d lines of a flood were written", n)
		}
		for _, want := range []string{"level=INFO msg=request", "msg=another"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the flood hides %q", want)
			}
		}
		out.Reset()
		time.Sleep(time.Second) // in the bubble, where it takes no time
		log.Warn("request")
		log.Warn("request")
		if n := strings.Count(out.String(), "left_out=4900"); n != 1 {
			t.Errorf("afterwards: %s", out.String())
		}
	})
}

// A logger's messages are texts of the program; one that makes them up must not fill
// the memory.
func TestSampledMessagesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSampler(slog.DiscardHandler)
	for i := range 3 * maxSampled {
		s.seen.next(message{slog.LevelInfo, strings.Repeat("x", i)}, 1)
	}
	if n := len(s.seen.counts); n > maxSampled {
		t.Errorf("%d messages are counted", n)
	}
}
