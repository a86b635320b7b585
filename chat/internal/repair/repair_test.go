package repair_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/msrchat/msrchat/chat/internal/msglog"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/repair"
)

const heartbeat = 500 * time.Millisecond

// world is everything around a Repair; its mutex owns all fields.
type world struct {
	mu       sync.Mutex
	told     []telling
	calls    []int         // how many each call of Tell told
	hold     chan struct{} // keeps Tell waiting
	refuse   int           // so many tellings are incomplete
	lost     int
	users    []uint64
	away     bool // the database
	asked    [][]uint64
	heads    map[uint64][]*chatv1.Head
	received map[uint64][]uint64 // by user, the seqs of all heads
}

type telling struct {
	conversation, seq uint64
	users             []uint64
	at                time.Time
}

func start(t *testing.T, w *world, beat time.Duration) *repair.Repair {
	t.Helper()
	w.received = make(map[uint64][]uint64)
	r := repair.New(repair.Options{
		Heartbeat: beat, Tell: w.tell, Heads: w.read, Deliver: w.deliver, Logger: slog.New(slog.DiscardHandler),
		Lost: func() { w.change(func() { w.lost++ }) },
		Users: func() []uint64 {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.users)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (w *world) tell(_ context.Context, tellings []fanout.Telling) []bool {
	if w.hold != nil {
		<-w.hold
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, len(tellings))
	complete := make([]bool, len(tellings))
	for i, t := range tellings {
		w.told = append(w.told, telling{t.Head.GetConversationId(), t.Head.GetSeq(), t.Users, time.Now()})
		if complete[i] = w.refuse == 0; !complete[i] {
			w.refuse--
		}
	}
	return complete
}

func (w *world) read(_ context.Context, users []uint64) (map[uint64][]*chatv1.Head, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, slices.Clone(users))
	if w.away {
		return nil, errors.New("away")
	}
	out := make(map[uint64][]*chatv1.Head)
	for _, user := range users {
		if h := w.heads[user]; h != nil {
			out[user] = h
		}
	}
	return out, nil
}

func (w *world) deliver(users []uint64, frames []byte) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := bytes.NewReader(frames); ; {
		f := &chatv1.ServerFrame{}
		if _, err := frame.Read(r, 1<<20, nil, f); errors.Is(err, io.EOF) {
			return len(users)
		}
		for _, h := range f.GetHeads().GetHeads() {
			w.received[users[0]] = append(w.received[users[0]], h.GetSeq())
		}
	}
}

func (w *world) tellings() []telling {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told)
}

// change changes a world that is in use.
func (w *world) change(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// checked are the users that were compared with the log.
func (w *world) checked() map[uint64]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[uint64]int)
	for _, users := range w.asked {
		for _, user := range users {
			out[user]++
		}
	}
	return out
}

func commit(r *repair.Repair, conversation, seq uint64) {
	r.Committed([]msglog.Committed{{ConversationID: conversation, Audience: []uint64{1, 2}, Result: msglog.Result{Seq: seq}}})
}

func TestAQuietConversationIsToldOnce(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, heartbeat)
	at := time.Now()
	commit(r, 7, 2)
	commit(r, 7, 1) // a repeat, found in the log, is no step back
	testenv.Until(t, "it is told", func() bool { return len(w.tellings()) > 0 })
	got := w.tellings()[0]
	if took := got.at.Sub(at); took < heartbeat/4 || took > heartbeat {
		t.Errorf("told after %v, a heartbeat is %v", took, heartbeat)
	}
	if got.conversation != 7 || got.seq != 2 || !slices.Equal(got.users, []uint64{1, 2}) {
		t.Errorf("told %+v", got)
	}
	commit(r, 8, 1)
	testenv.Until(t, "another one is told", func() bool { return len(w.tellings()) > 1 })
	if all := w.tellings(); len(all) != 2 || all[1].conversation != 8 {
		t.Errorf("told %+v", all)
	}
}

func TestABusyConversationIsNotTold(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, heartbeat)
	seq := uint64(0)
	ticker := time.NewTicker(heartbeat / 20)
	defer ticker.Stop()
	for end := time.Now().Add(2 * heartbeat); time.Now().Before(end); <-ticker.C {
		seq++
		commit(r, 7, seq)
	}
	testenv.Until(t, "it is told at the end", func() bool { all := w.tellings(); return len(all) > 0 && all[len(all)-1].seq == seq })
	if n := len(w.tellings()); n > 2 { // one, and one for a machine that stood still
		t.Errorf("told %d times", n)
	}
}

func TestAReaderOnAnUnknownServerIsToldAgain(t *testing.T) {
	t.Parallel()
	w := &world{refuse: 2}
	r := start(t, w, heartbeat)
	commit(r, 7, 1)
	testenv.Until(t, "told until it is complete", func() bool { return len(w.tellings()) == 3 })
	w.change(func() { w.told, w.refuse = nil, 1000 })
	commit(r, 8, 1)
	const most = 8
	testenv.Until(t, "told again and again", func() bool { return len(w.tellings()) == most })
	commit(r, 9, 1) // is told later than a ninth time would be
	testenv.Until(t, "the next one is told", func() bool {
		return slices.ContainsFunc(w.tellings(), func(t telling) bool { return t.conversation == 9 })
	})
	n := 0
	for _, t := range w.tellings() {
		if t.conversation == 8 {
			n++
		}
	}
	if n != most {
		t.Errorf("told %d times in all, want %d", n, most)
	}
}

func TestFlushTellsAtOnce(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, time.Hour)
	commit(r, 7, 1)
	commit(r, 8, 1)
	r.Flush(t.Context())
	if n := len(w.tellings()); n != 2 {
		t.Errorf("told %d of 2", n)
	}
}

// room is how many conversations are remembered.
const room = 100_000

// commitAll commits to as many conversations, in batches as a log has them.
func commitAll(r *repair.Repair, from, n uint64) {
	var batch []msglog.Committed
	for id := from; id < from+n; id++ {
		batch = append(batch, msglog.Committed{ConversationID: id, Audience: []uint64{1, 2}, Result: msglog.Result{Seq: 1}})
	}
	for part := range slices.Chunk(batch, 512) {
		r.Committed(part)
	}
}

func TestManyConversationsAreToldEarlyAndTogether(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, 10*time.Second) // a turn is one second
	commitAll(r, 0, room)
	at := time.Now()
	testenv.Until(t, "all are told", func() bool { return len(w.tellings()) == room })
	if took := w.tellings()[0].at.Sub(at); took > 4*time.Second {
		t.Errorf("the first one is told after %v", took)
	}
	w.change(func() {
		if w.lost != 0 || len(w.calls) > room/500 {
			t.Errorf("%d look-ups for %d conversations, %d times something was lost", len(w.calls), room, w.lost)
		}
	})
}

// However many heads wait, and however slowly they are told, users are compared
// with the log in between.
func TestTellingManyHoldsUpNoRepair(t *testing.T) {
	t.Parallel()
	w := &world{hold: make(chan struct{}), users: []uint64{1}}
	r := start(t, w, time.Second)
	commitAll(r, 0, 5000)
	w.hold <- struct{}{} // they are being told
	r.Dirty(7)
	w.hold <- struct{}{} // one more may have begun before
	testenv.Until(t, "the user is compared", func() bool {
		if w.checked()[7] > 0 {
			return true
		}
		select {
		case w.hold <- struct{}{}:
		default:
		}
		return false
	})
	if n := len(w.tellings()); n > 2500 {
		t.Errorf("%d heads were told before", n)
	}
	close(w.hold)
	testenv.Until(t, "all are told", func() bool { return len(w.tellings()) == 5000 })
}

// What cannot be remembered is not forgotten: everybody is compared with the
// log, here and, by the call of Lost, on the other servers.
func TestMoreConversationsThanAreRemembered(t *testing.T) {
	t.Parallel()
	w := &world{hold: make(chan struct{}), users: []uint64{3, 4}}
	r := start(t, w, 100*time.Millisecond)
	commitAll(r, 0, room)
	w.change(func() {
		if w.lost > 0 {
			t.Error("lost while there was room")
		}
	})
	commitAll(r, room, 1000)
	w.change(func() {
		if w.lost != 2 {
			t.Errorf("the other servers were told %d times, want once for each batch", w.lost)
		}
	})
	commit(r, 5, 9) // one that is remembered has its place
	close(w.hold)
	testenv.Until(t, "all users of this server are compared", func() bool { return w.checked()[3] > 0 && w.checked()[4] > 0 })
	testenv.Until(t, "the rest is told", func() bool { return len(w.tellings()) >= room })
	if n := len(w.tellings()); n > room+500 {
		t.Errorf("told %d of %d remembered", n, room)
	}
}

func TestMoreDirtyUsersThanAreRemembered(t *testing.T) {
	t.Parallel()
	w := &world{away: true, users: []uint64{3}}
	r := start(t, w, 100*time.Millisecond)
	for user := range uint64(60_000) { // log-ins while the database is away
		r.Dirty(user + 1000)
	}
	w.change(func() { w.away = false })
	testenv.Until(t, "all who are connected are compared", func() bool { return w.checked()[3] > 0 })
	if n := len(w.checked()); n > 55_000 {
		t.Errorf("%d users were remembered", n)
	}
}

func TestTheDirtyAreComparedWithTheLog(t *testing.T) {
	t.Parallel()
	w := &world{heads: map[uint64][]*chatv1.Head{1: {{ConversationId: 7, Seq: 5}, {ConversationId: 8, Seq: 6}}}}
	r := start(t, w, heartbeat)
	w.change(func() { w.away = true })
	at := time.Now()
	r.Dirty(1)
	r.Dirty(2)
	testenv.Until(t, "tried, with the database away", func() bool { return w.checked()[1] > 0 })
	if took := time.Since(at); took > heartbeat {
		t.Errorf("took %v", took)
	}
	w.change(func() { w.away = false })
	testenv.Until(t, "told when it is back", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.received[1], []uint64{5, 6})
	})
	before := w.checked()[1]
	r.Dirty(3)
	testenv.Until(t, "the next one is checked", func() bool { return w.checked()[3] > 0 })
	if w.checked()[1] != before {
		t.Error("checked again without need")
	}
}

func TestEverybodyIsCompared(t *testing.T) {
	t.Parallel()
	w := &world{}
	const users = 250
	for u := range uint64(users) {
		w.users = append(w.users, u+1000)
	}
	r := start(t, w, 2*time.Second)
	at := time.Now()
	r.Everybody()
	testenv.Until(t, "all are checked", func() bool { return len(w.checked()) == users })
	if took := time.Since(at); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, part := range w.asked {
		if len(part) > 100 {
			t.Errorf("%d users in one query", len(part))
		}
	}
}

func TestTheSweepFindsEverybody(t *testing.T) {
	t.Parallel()
	w := &world{}
	const users = 90
	for u := range uint64(users) {
		w.users = append(w.users, u)
	}
	const beat = 100 * time.Millisecond
	start(t, w, beat)
	testenv.Until(t, "all are checked", func() bool { return len(w.checked()) == users })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, part := range w.asked {
		if len(part) > users/30 {
			t.Errorf("%d users in one turn", len(part))
		}
	}
}
