package lane_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

type appender func(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error)

func (a appender) Append(ctx context.Context, conversation uint64, events []msglog.Event) ([]msglog.Result, error) {
	return a(ctx, conversation, events)
}

func (a appender) Begin(uint64, func() []msglog.Event, func([]msglog.Result, error)) bool {
	return false
}

// beginner appends without being waited for, for as long as the test runs.
type beginner struct {
	appender
	ctx context.Context
}

func (b beginner) Begin(conversation uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool {
	go func() {
		if events := take(); len(events) > 0 {
			ended(b.appender(b.ctx, conversation, events))
		}
	}()
	return true
}

// kinds make lanes whose appender must be waited for, and others.
var kinds = map[string]func(*testing.T, appender) *lane.Lanes{
	"waiting": func(_ *testing.T, a appender) *lane.Lanes {
		return lane.New(a, 0, slog.New(slog.DiscardHandler))
	},
	"beginning": func(t *testing.T, a appender) *lane.Lanes {
		t.Helper()
		return lane.New(beginner{a, t.Context()}, 0, slog.New(slog.DiscardHandler))
	},
}

// sender calls itself with each result.
type sender struct{ answer func(msglog.Result) }

func (s *sender) Sent(answers []lane.Answer) {
	for _, a := range answers {
		s.answer(a.Result)
	}
}

func send(l *lane.Lanes, e msglog.Event, answer func(msglog.Result)) error {
	return l.Send(e, &sender{answer}, 1)
}

type results = []msglog.Result

// memoryLog is a log in memory that stores each text once. Its mutex owns logs.
type memoryLog struct {
	mu   sync.Mutex
	logs map[uint64][]string
}

func (b *memoryLog) append(conversation uint64, entries []msglog.Event) []msglog.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.logs == nil {
		b.logs = make(map[uint64][]string)
	}
	results := make([]msglog.Result, len(entries))
	for i, e := range entries {
		text := string(e.Body)
		at := slices.Index(b.logs[conversation], text)
		results[i].Existing = at >= 0
		if at < 0 {
			at = len(b.logs[conversation])
			b.logs[conversation] = append(b.logs[conversation], text)
		}
		results[i].Seq = uint64(at + 1)
	}
	return results
}

func entry(conversation uint64, text string) msglog.Event {
	return msglog.Event{Conversation: conversation, Sender: 1, Body: []byte(text)}
}

func closed(t *testing.T, l *lane.Lanes) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	l.Close(ctx)
	if ctx.Err() != nil || l.Waiting() != 0 {
		t.Errorf("%d messages wait after Close", l.Waiting())
	}
}

// An append may fail, succeed without an answer, or be refused for lack of room.
// In every case the log has every message once, in the order sent.
func TestOrderIsKeptWhateverHappens(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var b memoryLog
			var under [4]atomic.Int64
			l := lanes(t, func(_ context.Context, conversation uint64, entries []msglog.Event) (results, error) {
				if under[conversation].Add(1) > 1 {
					t.Error("two appends of a conversation at once")
				}
				defer under[conversation].Add(-1)
				switch rand.IntN(4) {
				case 0:
					return nil, errs.New(errs.CodeUnavailable, "not done")
				case 1:
					b.append(conversation, entries)
					return nil, errs.New(errs.CodeUnavailable, "done, without an answer")
				case 2:
					return nil, errs.New(errs.CodeExhausted, "no room")
				}
				return b.append(conversation, entries), nil
			})
			const n = 300
			var wrong atomic.Int64
			for i := range n {
				for conversation := range uint64(4) {
					err := send(l, entry(conversation, fmt.Sprint(i)), func(r msglog.Result) {
						if r.Err != nil || r.Seq != uint64(i+1) {
							wrong.Add(1)
						}
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			closed(t, l)
			for conversation, log := range b.logs {
				for i, text := range log {
					if text != fmt.Sprint(i) || len(log) != n {
						t.Fatalf("conversation %d: %q at %d of %d", conversation, text, i, len(log))
					}
				}
			}
			if wrong.Load() != 0 || l.Sent() != 4*n {
				t.Errorf("%d wrong answers, %d sent", wrong.Load(), l.Sent())
			}
		})
	}
}

func TestWhatArrivesMeanwhileGoesTogether(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			first := make(chan struct{})
			var sizes []int
			l := lanes(t, func(_ context.Context, _ uint64, entries []msglog.Event) ([]msglog.Result, error) {
				<-first
				sizes = append(sizes, len(entries)) // one lane: one goroutine
				return make([]msglog.Result, len(entries)), nil
			})
			send := func(size int) {
				e := msglog.Event{Conversation: 1, Body: make([]byte, size)}
				if err := send(l, e, func(msglog.Result) {}); err != nil {
					t.Fatal(err)
				}
			}
			send(1)
			testenv.Until(t, "it is under way", func() bool { return l.Waiting() == 1 })
			for range 64 + 10 {
				send(1)
			}
			for range 3 {
				send(60 << 10)
			}
			send(1 << 20) // larger than an append may be: it goes alone
			close(first)
			closed(t, l)
			total := 0
			for _, n := range sizes {
				if total += n; n > 64 {
					t.Errorf("%d in one append", n)
				}
			}
			if total != 1+74+3+1 || len(sizes) < 4 || len(sizes) > 7 {
				t.Errorf("appends of %v", sizes)
			}
		})
	}
}

func TestTooManyWaiting(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			l := lanes(t, func(_ context.Context, _ uint64, entries []msglog.Event) ([]msglog.Result, error) {
				<-release
				return make([]msglog.Result, len(entries)), nil
			})
			var answered atomic.Int64
			send := func(i int) error {
				return send(l, msglog.Event{Conversation: uint64(i % 10)}, func(msglog.Result) { answered.Add(1) })
			}
			const most = 20_000
			for i := range most {
				if err := send(i); err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			var e *errs.Error
			if err := send(0); !errors.As(err, &e) || e.Code != errs.CodeExhausted || e.RetryAfter == 0 {
				t.Errorf("one too many got %v", err)
			}
			close(release)
			testenv.Until(t, "there is room again", func() bool { return l.Waiting() < most })
			if err := send(0); err != nil {
				t.Errorf("with room: %v", err)
			}
			closed(t, l)
			if answered.Load() != most+1 {
				t.Errorf("%d answers for %d messages", answered.Load(), most+1)
			}
		})
	}
}

func TestTooManyBytesWaiting(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			l := lanes(t, func(_ context.Context, _ uint64, entries []msglog.Event) ([]msglog.Result, error) {
				<-release
				return make([]msglog.Result, len(entries)), nil
			})
			send := func(i int) error {
				e := msglog.Event{Conversation: uint64(i % 10), Body: make([]byte, 64<<10)}
				return send(l, e, func(msglog.Result) {})
			}
			taken := 0
			for ; send(taken) == nil; taken++ {
				if taken > 1000 {
					t.Fatal("more than 64 MB wait")
				}
			}
			if taken < 500 {
				t.Errorf("%d of 64 KB were taken, want about 32 MB", taken)
			}
			if err := send(0); errs.CodeOf(err) != errs.CodeExhausted || errs.From(err).RetryAfter == 0 {
				t.Errorf("one too many got %v", err)
			}
			close(release)
			testenv.Until(t, "there is room again", func() bool { return l.Waiting() < taken/2 })
			if err := send(0); err != nil {
				t.Errorf("with room: %v", err)
			}
			closed(t, l)
		})
	}
}

func TestAPermanentRefusalIsAnswered(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l := lanes(t, func(_ context.Context, conversation uint64, entries []msglog.Event) (results, error) {
				if conversation == 1 {
					return nil, errs.New(errs.CodeInternal, "broken")
				}
				results := make([]msglog.Result, len(entries))
				results[0].Err = errs.New(errs.CodeConflict, "other text")
				return results, nil
			})
			for conversation, want := range map[uint64]errs.Code{1: errs.CodeInternal, 2: errs.CodeConflict} {
				answer := make(chan msglog.Result, 1)
				e := msglog.Event{Conversation: conversation}
				if err := send(l, e, func(r msglog.Result) { answer <- r }); err != nil {
					t.Fatal(err)
				}
				if r := <-answer; errs.CodeOf(r.Err) != want {
					t.Errorf("got %v, want %s", r.Err, want)
				}
			}
			closed(t, l)
		})
	}
}

func TestCloseAnswersEverybody(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l := lanes(t, func(ctx context.Context, _ uint64, _ []msglog.Event) ([]msglog.Result, error) {
				<-ctx.Done() // a database that is away
				return nil, errs.Wrap(errs.CodeUnavailable, ctx.Err(), "x")
			})
			const n = 500
			var unavailable atomic.Int64
			for i := range n {
				if err := send(l, msglog.Event{Conversation: uint64(i % 7)}, func(r msglog.Result) {
					if errs.CodeOf(r.Err) == errs.CodeUnavailable {
						unavailable.Add(1)
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			at := time.Now()
			l.Close(ctx)
			if took := time.Since(at); took > 10*time.Second {
				t.Errorf("Close took %v", took)
			}
			if unavailable.Load() != n {
				t.Errorf("%d of %d got their answer", unavailable.Load(), n)
			}
			unwanted := func(msglog.Result) { t.Error("answered what was not taken") }
			err := send(l, msglog.Event{Conversation: 1}, unwanted)
			if errs.CodeOf(err) != errs.CodeUnavailable {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// Once the lanes have given up, they offer nothing more: what was offered before
// may still be on its way into the log, and later messages would overtake it.
func TestNothingIsOfferedBehindAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for kind, lanes := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var offered atomic.Int32
			begun := make(chan struct{})
			l := lanes(t, func(ctx context.Context, _ uint64, _ []msglog.Event) ([]msglog.Result, error) {
				if offered.Add(1) == 1 {
					close(begun)
					<-ctx.Done() // the database hangs
				}
				return nil, errs.New(errs.CodeUnavailable, "no answer")
			})
			answered := make(chan error, 2)
			send := func(text string) {
				t.Helper()
				if err := send(l, entry(1, text), func(r msglog.Result) { answered <- r.Err }); err != nil {
					t.Fatal(err)
				}
			}
			send("first")
			<-begun
			send("second")
			over, cancel := context.WithCancel(context.Background())
			cancel()
			l.Close(over)
			for range 2 {
				if code := errs.CodeOf(<-answered); code != errs.CodeUnavailable {
					t.Errorf("answered with %q", code)
				}
			}
			if n := offered.Load(); n != 1 {
				t.Errorf("%d batches were offered, want only the first", n)
			}
		})
	}
}

// held is an appender that lets the test end its attempts.
type held struct {
	appender
	begun chan func() []msglog.Event
	ended chan func([]msglog.Result, error)
}

func (h held) Begin(_ uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool {
	h.begun <- take
	h.ended <- ended
	return true
}

func hold(a appender) held {
	return held{a, make(chan func() []msglog.Event, 9), make(chan func([]msglog.Result, error), 9)}
}

// What is sent before an attempt's turn has come goes with it, and what comes later with the
// next. Each sender gets its answers together.
func TestWhatIsSentBeforeItsTurnGoesAlong(t *testing.T) {
	t.Parallel()
	h := hold(nil)
	l := lane.New(h, 0, slog.New(slog.DiscardHandler))
	var calls [][]lane.Answer
	s := &together{func(a []lane.Answer) { calls = append(calls, slices.Clone(a)) }}
	for i := range 4 {
		if err := l.Send(entry(1, fmt.Sprint(i)), s, uint64(10+i)); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if n := len((<-h.begun)()); n != 3 {
				t.Errorf("%d went along, want 3", n)
			}
		}
	}
	(<-h.ended)([]msglog.Result{{Seq: 1}, {Seq: 2}, {Seq: 3}}, nil)
	if n := len((<-h.begun)()); n != 1 {
		t.Errorf("then %d, want the one that came later", n)
	}
	(<-h.ended)([]msglog.Result{{Seq: 4}}, nil)
	if len(calls) != 2 || len(calls[0]) != 3 || len(calls[1]) != 1 {
		t.Fatalf("answered as %v", calls)
	}
	for i, a := range append(calls[0], calls[1]...) {
		if a.Request != uint64(10+i) || a.Result.Seq != uint64(i+1) || a.Conversation != 1 {
			t.Errorf("the answer to %d is %+v", i, a)
		}
	}
	closed(t, l)
}

type together struct{ sent func([]lane.Answer) }

func (s *together) Sent(a []lane.Answer) { s.sent(a) }

// An attempt that hangs is offered again after a while, whether its events were taken or
// not. Whatever it says later means nothing.
func TestAnAttemptThatHangsIsOfferedAgain(t *testing.T) {
	for _, taken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var log memoryLog
			h := hold(func(_ context.Context, conversation uint64, e []msglog.Event) ([]msglog.Result, error) {
				return log.append(conversation, e), nil
			})
			l := lane.New(h, 0, slog.New(slog.DiscardHandler))
			answers := make(chan msglog.Result, 9)
			at := time.Now()
			if err := send(l, entry(1, "x"), func(r msglog.Result) { answers <- r }); err != nil {
				t.Fatal(err)
			}
			take, ended := <-h.begun, <-h.ended
			if taken {
				take()
			}
			if r := <-answers; r.Err != nil || r.Seq != 1 {
				t.Errorf("got %+v", r)
			}
			if waited := time.Since(at); waited < 15*time.Second || waited > 17*time.Second {
				t.Errorf("offered again after %v", waited)
			}
			if late := take(); len(late) != 0 {
				t.Errorf("the hanging attempt took %v", late)
			}
			ended([]msglog.Result{{Seq: 99}}, nil)
			closed(t, l)
			if len(answers) != 0 || len(h.begun) != 0 {
				t.Errorf("%d more answers, %d more attempts", len(answers), len(h.begun))
			}
		})
	}
}
