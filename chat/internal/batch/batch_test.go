package batch_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/batch"
)

func TestWhatWaitsGoesTogether(t *testing.T) {
	const most, askers = 8, 21
	begun, proceed := make(chan int), make(chan struct{})
	b := batch.New(most, time.Minute, func(_ context.Context, questions []int) ([]string, error) {
		begun <- len(questions)
		<-proceed
		var answers []string
		for _, q := range questions {
			answers = append(answers, strconv.Itoa(q))
		}
		return answers, nil
	})
	var waiting atomic.Int32
	var asking sync.WaitGroup
	ask := func(q int) {
		asking.Go(func() {
			waiting.Add(1)
			if a, err := b.Ask(t.Context(), q); err != nil || a != strconv.Itoa(q) {
				t.Errorf("%d got %q, %v", q, a, err)
			}
		})
	}
	ask(0)
	if n := <-begun; n != 1 {
		t.Errorf("the first exchange has %d questions, want the one that was asked", n)
	}
	for i := range askers {
		ask(i + 1)
	}
	testenv.Until(t, "all ask", func() bool { return waiting.Load() == askers+1 })
	proceed <- struct{}{}
	sum := 0
	for sum < askers {
		n := <-begun
		if sum += n; n > most {
			t.Errorf("%d questions in one exchange, at most %d", n, most)
		}
		proceed <- struct{}{}
	}
	asking.Wait()
	ask(100) // after a pause
	<-begun
	proceed <- struct{}{}
	asking.Wait()
}

func TestAFailureAffectsItsExchangeOnly(t *testing.T) {
	broken := errors.New("broken")
	var fail atomic.Bool
	fail.Store(true)
	b := batch.New(8, time.Minute, func(ctx context.Context, questions []int) ([]int, error) {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("an exchange without a limit")
		}
		if fail.Load() {
			return nil, broken
		}
		return questions, nil
	})
	if _, err := b.Ask(t.Context(), 1); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	fail.Store(false)
	if a, err := b.Ask(t.Context(), 2); err != nil || a != 2 {
		t.Errorf("got %d, %v", a, err)
	}
}

// A caller that gives up does not disturb the others.
func TestACallerMayGiveUp(t *testing.T) {
	hold := make(chan struct{})
	b := batch.New(8, time.Minute, func(_ context.Context, questions []int) ([]int, error) {
		<-hold
		return questions, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Ask(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
	if a, err := b.Ask(t.Context(), 2); err != nil || a != 2 {
		t.Errorf("got %d, %v", a, err)
	}
}
