package msglog_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// A client that reconnected to another server offers a message again while the first
// copy waits. When the outcome of the first is unknown, that of the repeat is too.
func TestRepeatsOfAnUnknownOutcomeAreUnknown(t *testing.T) {
	server := testenv.StartMariaDB(t)
	l := msglog.New(testenv.Open(t, server.Database(t)), msglog.Options{Committed: func(c []msglog.Event) {
		for _, e := range c {
			if e.Seq == 0 {
				t.Errorf("Committed got an event that is not in the log: %+v", e)
			}
		}
	}})
	mustAppend(t, l, 1, entry(1, 1, "one"))
	testenv.Until(t, "the log is idle", func() bool { return l.Stalled() == 0 && l.QueueDelay() == 0 })
	server.Kill()
	const copies = 50
	var offered, answered sync.WaitGroup
	offered.Add(copies)
	for range copies {
		answered.Go(func() {
			offered.Done()
			results, err := l.Append(context.Background(), 1, []msglog.Event{entry(1, 2, "two")})
			if errs.CodeOf(err) != errs.CodeUnavailable {
				t.Errorf("got %+v, %v, want unavailable", results, err)
			}
		})
	}
	offered.Wait()
	testenv.Until(t, "the appends wait", func() bool {
		return l.QueueDelay() > 100*time.Millisecond && l.Stalled() > 100*time.Millisecond
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil {
		t.Error("Close said that all was settled with the database away")
	}
	answered.Wait()
}

// One request, in a contended conversation, has repeats of the other log's messages,
// repeats of its own, and new messages.
func TestAMixedRequestUnderContention(t *testing.T) {
	cfg := testenv.MariaDB(t)
	a, b := open(t, cfg, msglog.Options{}), open(t, cfg, msglog.Options{})
	mustAppend(t, a, 1, entry(1, 1, "one"))
	mustAppend(t, b, 1, entry(1, 2, "two"))
	got := mustAppend(t, a, 1, // a has cached that the log ends at 1
		entry(1, 2, "two"), entry(1, 3, "three"), entry(1, 1, "one"),
		entry(1, 3, "three"), entry(1, 2, "2"), entry(1, 4, "four"))
	wantResults(t, got, []outcome{
		{2, true, ""},
		{3, false, ""},
		{1, true, ""},
		{3, true, ""},
		{0, false, errs.CodeConflict},
		{4, false, ""},
	})
	// The cached head of the other log is now too low. It appends behind the new end.
	if next := mustAppend(t, b, 1, entry(2, 1, "five"))[0]; next.Seq != 5 || next.Existing {
		t.Errorf("got %+v, want number 5", next)
	}
}
