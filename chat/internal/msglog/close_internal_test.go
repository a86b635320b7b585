package msglog

import (
	"context"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"
)

// The writer, whose callers go on from its goroutine, never waits for a Close that waits for
// an Append that waits for the writer.
func TestTheWriterNeverWaitsForClose(t *testing.T) {
	hold := make(chan struct{})
	l := New(testenv.Open(t, testenv.MariaDB(t)), Options{Committed: func([]Event) { <-hold }})
	event := func(n byte) []Event { return []Event{{Conversation: 1, Sender: 1, ID: [16]byte{n}, Kind: 1}} }
	nothing := func() []Event { return nil }
	goesOn := make(chan bool, 1)
	l.Begin(1, func() []Event { return event(1) }, func([]Result, error) { goesOn <- l.Begin(1, nothing, nil) })
	testenv.Until(t, "the writer works", func() bool { return l.Stalled() > 0 })
	for l.Begin(2, nothing, nil) { //nolint:revive // until the queue is full
	}
	appended := make(chan error, 1)
	go func() {
		_, err := l.Append(context.Background(), 1, event(2))
		appended <- err
	}()
	time.Sleep(50 * time.Millisecond) // it may reach the full queue; nothing shows that
	closed := make(chan error, 1)
	go func() { closed <- l.Close(context.Background()) }()
	testenv.Until(t, "Close waits or has begun", func() bool {
		free := l.mu.TryRLock()
		if free {
			defer l.mu.RUnlock()
		}
		return !free || l.closed
	})
	close(hold)
	limit := time.After(testenv.Patience)
	for range 3 {
		select {
		case <-goesOn:
		case err := <-appended:
			if err != nil {
				t.Errorf("the append: %v", err)
			}
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-limit:
			t.Fatal("the writer waits for Close")
		}
	}
}
