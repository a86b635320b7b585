package msglog_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"
)

// A client that came back over another server offers a message again while the
// first copy waits: when nobody knows what became of that one, nobody may say
// that the repeat is in the log.
func TestRepeatsOfAnUnknownOutcomeAreUnknown(t *testing.T) {
	server := testenv.StartMariaDB(t)
	l := msglog.New(testenv.Open(t, server.Database(t)), msglog.Options{Committed: func(c []msglog.Committed) {
		for _, e := range c {
			if e.Result.Seq == 0 {
				t.Errorf("told of a commit that was none: %+v", e)
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
			results, err := l.Append(context.Background(), 1, nil, []msglog.Entry{entry(1, 2, "two")})
			if errs.CodeOf(err) != errs.CodeUnavailable {
				t.Errorf("got %+v, %v, want unavailable", results, err)
			}
		})
	}
	offered.Wait()
	testenv.Until(t, "the appends wait", func() bool { return l.QueueDelay() > 100*time.Millisecond && l.Stalled() > 100*time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil {
		t.Error("Close said that all was settled with the database away")
	}
	answered.Wait()
}

// Two logs and one request with everything in it: repeats of what the other log
// has, of itself, and new ones, in a contended conversation.
func TestAMixedRequestUnderContention(t *testing.T) {
	cfg := testenv.MariaDB(t)
	a, b := open(t, cfg, msglog.Options{}), open(t, cfg, msglog.Options{})
	mustAppend(t, a, 1, entry(1, 1, "one"))
	mustAppend(t, b, 1, entry(1, 2, "two"))
	got := mustAppend(t, a, 1, // a believes that the log ends at 1
		entry(1, 2, "two"), entry(1, 3, "three"), entry(1, 1, "one"), entry(1, 3, "three"), entry(1, 2, "2"), entry(1, 4, "four"))
	want := []struct {
		seq      uint64
		existing bool
		code     errs.Code
	}{{2, true, ""}, {3, false, ""}, {1, true, ""}, {3, true, ""}, {0, false, errs.CodeConflict}, {4, false, ""}}
	for i, w := range want {
		if got[i].Seq != w.seq || got[i].Existing != w.existing || errs.CodeOf(got[i].Err) != w.code {
			t.Errorf("entry %d: got %+v, want %+v", i, got[i], w)
		}
	}
	// The other log, whose head is now too low, goes on behind it.
	if next := mustAppend(t, b, 1, entry(2, 1, "five"))[0]; next.Seq != 5 || next.Existing {
		t.Errorf("got %+v, want number 5", next)
	}
}
