package client_test

import (
	"context"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/internal/fake"
)

// Short names and ready-made faults for the fake servers.

type (
	fakeFaults = fake.Faults
	fate       = fake.Fate
)

const swallow = fake.Swallow

func always(f fate) func(*chatv1.Send) (fate, error) {
	return func(*chatv1.Send) (fate, error) { return f, nil }
}

func refuseText(text string, err error) func(*chatv1.Send) (fate, error) {
	return func(s *chatv1.Send) (fate, error) {
		if s.GetText() == text {
			return fake.Answer, err
		}
		return fake.Answer, nil
	}
}

// refusals refuses for a while, with the promise that a real server keeps: once
// a message of a conversation was refused so, those that were sent after it
// without knowing are refused, too, until the first one is tried again.
type refusals struct {
	mu    sync.Mutex
	n     int    // refused so far
	first string // id of the refused message that must come first
}

func (r *refusals) some(conv uint64, times int) func(*chatv1.Send) (fate, error) {
	return func(s *chatv1.Send) (fate, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		id := string(s.GetClientMsgId())
		switch {
		case s.GetConversationId() != conv:
			return fake.Answer, nil
		case r.first != "" && id != r.first:
			return fake.Answer, fake.Unavailable(time.Millisecond)
		case r.n < times:
			r.n++
			r.first = id
			return fake.Answer, fake.Unavailable(time.Millisecond)
		}
		r.first = ""
		return fake.Answer, nil
	}
}

func (r *refusals) open(times int) func(string) error {
	return func(string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.n++; r.n <= times {
			return fake.Unavailable(time.Millisecond)
		}
		return nil
	}
}

// goodbyeOnce refuses the first connection.
func goodbyeOnce() func(*chatv1.Hello) *chatv1.Goodbye {
	var once sync.Once
	return func(*chatv1.Hello) (bye *chatv1.Goodbye) {
		once.Do(func() {
			bye = &chatv1.Goodbye{Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, Reconnect: true, ReconnectAfterMs: 1}
		})
		return bye
	}
}

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
