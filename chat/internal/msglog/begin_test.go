package msglog_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// What is begun takes its events when their turn has come, and is answered without anybody
// who waits for it.
func TestWhatIsBegunTakesItsEventsLate(t *testing.T) {
	batches := make(chan []msglog.Event)
	l := open(t, testenv.MariaDB(t), msglog.Options{Committed: func(b []msglog.Event) { batches <- b }})
	nothing := func() []msglog.Event { return nil }
	unanswered := func(r []msglog.Result, err error) { t.Errorf("an answer to nothing: %v, %v", r, err) }
	if !l.Begin(1, nothing, unanswered) {
		t.Fatal("not taken")
	}
	var took atomic.Int64
	answers := make(chan []msglog.Result, 2)
	begin := func(conversation uint64, texts ...string) {
		t.Helper()
		take := func() (events []msglog.Event) {
			took.Add(1)
			for i, text := range texts {
				events = append(events, entry(1, uint64(i), text))
			}
			return events
		}
		ended := func(r []msglog.Result, err error) {
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}
		if !l.Begin(conversation, take, ended) {
			t.Fatal("not taken")
		}
	}
	begin(7, "a", "b")
	testenv.Until(t, "the first is worked on", func() bool { return l.Stalled() > 0 })
	begin(7, "b", "b") // the ids of a and b: one has another text, and one is there already
	if took.Load() != 1 {
		t.Error("the second took its events before its turn")
	}
	if first := <-batches; len(first) != 2 {
		t.Errorf("%d events in the first", len(first))
	}
	if r := <-answers; len(r) != 2 || r[0].Seq != 1 || r[1].Seq != 2 {
		t.Errorf("first: %+v", r)
	}
	<-batches
	if r := <-answers; len(r) != 2 || r[0].Err == nil || !r[1].Existing || r[1].Seq != 2 {
		t.Errorf("second: %+v", r)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if l.Begin(1, nothing, unanswered) {
		t.Error("taken after Close")
	}
}
