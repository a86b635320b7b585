package fair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// enter takes a turn in the background and reports it by its name.
func enter(t *testing.T, q *Queue[string], key string, got chan<- string) {
	t.Helper()
	go func() {
		turn, err := q.Enter(t.Context(), key)
		if err != nil {
			got <- "refused " + key
			return
		}
		got <- key
		turn.End(false)
	}()
	synctest.Wait()
}

// The one who comes for the first time is called before a crowd that was there first.
func TestFewestTurnsFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New[string](1, 100, 10, nil)
		for range 3 {
			turn, err := q.Enter(t.Context(), "crowd")
			if err != nil {
				t.Fatal(err)
			}
			turn.End(false)
		}
		holder, err := q.Enter(t.Context(), "holder")
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 10)
		for range 3 {
			enter(t, q, "crowd", got)
		}
		enter(t, q, "new", got)
		enter(t, q, "other", got)
		holder.End(false)
		synctest.Wait()
		var order []string
		for range 5 {
			order = append(order, <-got)
		}
		if want := "[new other crowd crowd crowd]"; fmt.Sprint(order) != want {
			t.Fatalf("called %v, want %s", order, want)
		}
	})
}

// Who waits in a full queue makes room for one whose key had fewer turns, and only
// for that one.
func TestTheHeaviestMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New[string](1, 2, 10, nil)
		turn, _ := q.Enter(t.Context(), "crowd")
		turn.End(false)
		holder, _ := q.Enter(t.Context(), "holder")
		got := make(chan string, 10)
		enter(t, q, "crowd", got)
		enter(t, q, "crowd", got)
		if !q.Full("crowd") || q.Full("new") {
			t.Fatal("a full queue has room for the new one alone")
		}
		enter(t, q, "crowd", got)
		if s := <-got; s != "refused crowd" {
			t.Fatalf("the third of the crowd: %s", s)
		}
		enter(t, q, "new", got)
		if s := <-got; s != "refused crowd" {
			t.Fatalf("the last of the crowd was not sent away: %s", s)
		}
		enter(t, q, "newer", got)
		if s := <-got; s != "refused crowd" {
			t.Fatalf("the other one of the crowd was not sent away: %s", s)
		}
		enter(t, q, "newest", got)
		if s := <-got; s != "refused newest" {
			t.Fatalf("the newest had no more right than those who wait: %s", s)
		}
		holder.End(false)
		if a, b := <-got, <-got; a != "new" || b != "newer" {
			t.Fatalf("called %s and %s", a, b)
		}
	})
}

// A preferred key goes before all others, also into a full queue, unless it had many turns.
func TestThePreferredFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New(1, 2, 10, func(key string) bool { return key == "friend" })
		use := func(n int) {
			for range n {
				turn, _ := q.Enter(t.Context(), "friend")
				turn.End(false)
			}
		}
		use(5)
		holder, _ := q.Enter(t.Context(), "holder")
		got := make(chan string, 10)
		enter(t, q, "a", got)
		enter(t, q, "b", got)
		enter(t, q, "friend", got)
		if s := <-got; s != "refused a" && s != "refused b" {
			t.Fatalf("nobody made room: %s", s)
		}
		holder.End(false)
		if s := <-got; s != "friend" {
			t.Fatalf("%s was called first", s)
		}
		<-got
		use(5)
		holder, _ = q.Enter(t.Context(), "holder")
		enter(t, q, "friend", got)
		enter(t, q, "c", got)
		holder.End(false)
		if s := <-got; s != "c" {
			t.Fatalf("%s was called first, after many turns", s)
		}
		<-got
	})
}

// A turn that is taken back does not count, and all turns count less with time.
func TestTurnsFade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New[string](1, 10, 10, nil)
		use := func(key string, takeBack bool) {
			turn, err := q.Enter(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			turn.End(takeBack)
		}
		for range 4 {
			use("honest", true)
			use("other", false)
		}
		if h, o := q.keys["honest"].turns, q.keys["other"].turns; h != 0 || o != 4 {
			t.Fatalf("honest had %d turns, the other %d", h, o)
		}
		time.Sleep(halfLife) // in the bubble, where it takes no time
		use("honest", true)
		if o := q.keys["other"].turns; o != 2 {
			t.Fatalf("after a half-life the other has %d turns", o)
		}
		for range 3 {
			time.Sleep(halfLife) // in the bubble, where it takes no time
			use("honest", true)
		}
		if len(q.keys) != 1 {
			t.Fatalf("%d keys are remembered", len(q.keys))
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New[string](1, 10, 1, nil)
		holder, _ := q.Enter(t.Context(), "holder")
		got := make(chan string, 10)
		enter(t, q, "a", got)
		enter(t, q, "a", got)
		if s := <-got; s != "refused a" {
			t.Fatalf("a second one of a key: %s", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Enter(ctx, "late"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a wait that is over: %v", err)
		}
		holder.End(false)
		if s := <-got; s != "a" {
			t.Fatal(s)
		}
		for i := range 3 * maxRemembered {
			turn, err := q.Enter(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			turn.End(false)
		}
		if len(q.keys) > maxRemembered+1 {
			t.Fatalf("%d keys are remembered", len(q.keys))
		}
	})
}

// Whatever happens, never more than atOnce work, and in the end nobody is left.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	q := New[int](3, 20, 5, nil)
	var mu sync.Mutex
	working, most, served := 0, 0, 0
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
			defer cancel()
			turn, err := q.Enter(ctx, i%10)
			if err != nil {
				return
			}
			mu.Lock()
			working++
			served++
			most = max(most, working)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			working--
			mu.Unlock()
			turn.End(i%2 == 0)
		})
	}
	all.Wait()
	if most > 3 || served == 0 {
		t.Fatalf("%d worked at once, %d in all", most, served)
	}
	if q.working != 0 || q.waiting != 0 || len(q.heads) != 0 {
		t.Fatalf("left behind: %d working, %d waiting, %d lines", q.working, q.waiting, len(q.heads))
	}
}
