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
		if string(s.GetBody()) == text {
			return fake.Answer, err
		}
		return fake.Answer, nil
	}
}

// refusals refuses for a while.
type refusals struct {
	mu sync.Mutex
	n  int // refused so far
}

func (r *refusals) some(conv uint64, times int) func(*chatv1.Send) (fate, error) {
	return func(s *chatv1.Send) (fate, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if s.GetConversationId() == conv && r.n < times {
			r.n++
			return fake.Answer, fake.Unavailable(time.Millisecond)
		}
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
			bye = &chatv1.Goodbye{
				Code: chatv1.GoodbyeCode_GOODBYE_CODE_UNAVAILABLE, Reconnect: true,
				ReconnectAfterMs: 1,
			}
		})
		return bye
	}
}

type ctxT = context.Context

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}
