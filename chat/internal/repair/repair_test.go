package repair_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/repair"
)

const heartbeat = 500 * time.Millisecond

// world is everything around a Repair; its mutex owns all fields.
type world struct {
	mu          sync.Mutex
	announced   []announcement
	calls       []int         // how many heads each call of Announce had
	hold        chan struct{} // keeps Announce waiting
	incomplete  int           // how many announcements do not reach all readers
	lost        int
	partitioned bool
	users       []uint64
	away        bool // the database
	queries     [][]uint64
	heads       map[uint64][]*chatv1.Head
	received    map[uint64][]uint64 // by user, the seqs of all heads
}

type announcement struct {
	conversation, seq uint64
	user              uint64
	at                time.Time
}

func start(t *testing.T, w *world, beat time.Duration) *repair.Repair {
	t.Helper()
	w.received = make(map[uint64][]uint64)
	r := repair.New(repair.Options{
		Heartbeat: beat,
		Announce:  w.announce,
		Heads:     w.read,
		Deliver:   w.deliver,
		Lost:      func() { w.change(func() { w.lost++ }) },
		Logger:    slog.New(slog.DiscardHandler),
		Partitioned: func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.partitioned
		},
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

func (w *world) announce(_ context.Context, batch []fanout.Announcement) []bool {
	if w.hold != nil {
		<-w.hold
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, len(batch))
	complete := make([]bool, len(batch))
	for i, a := range batch {
		w.announced = append(w.announced, announcement{
			a.Head.GetConversationId(), max(a.Head.GetSeq(), a.Head.GetOwnState()), a.User, time.Now(),
		})
		if complete[i] = w.incomplete == 0; !complete[i] {
			w.incomplete--
		}
	}
	return complete
}

func (w *world) read(_ context.Context, users []uint64) (map[uint64][]*chatv1.Head, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, slices.Clone(users))
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

func (w *world) announcements() []announcement {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.announced)
}

// change changes a world that is in use.
func (w *world) change(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// compared counts how often each user was compared with the log.
func (w *world) compared() map[uint64]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[uint64]int)
	for _, users := range w.queries {
		for _, user := range users {
			out[user]++
		}
	}
	return out
}

func commit(r *repair.Repair, conversation, seq uint64) {
	r.Committed([]msglog.Event{{Conversation: conversation, Seq: seq}})
}

func TestAQuietConversationIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, heartbeat)
	at := time.Now()
	commit(r, 7, 2)
	commit(r, 7, 1) // a repeated message, found in the log, does not lower the head
	testenv.Until(t, "it is announced", func() bool { return len(w.announcements()) > 0 })
	got := w.announcements()[0]
	if took := got.at.Sub(at); took < heartbeat/4 || took > heartbeat {
		t.Errorf("announced after %v, a heartbeat is %v", took, heartbeat)
	}
	if got.conversation != 7 || got.seq != 2 || got.user != 0 {
		t.Errorf("announced %+v", got)
	}
	commit(r, 8, 1)
	testenv.Until(t, "another one is announced", func() bool { return len(w.announcements()) > 1 })
	if all := w.announcements(); len(all) != 2 || all[1].conversation != 8 {
		t.Errorf("announced %+v", all)
	}
}

// The number of an own state is announced like a head, to its user alone.
func TestAnOwnStateIsAnnouncedOnceToItsUser(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, heartbeat)
	r.OwnState(5, &chatv1.OwnState{ConversationId: 7, Number: 3})
	r.OwnState(5, &chatv1.OwnState{ConversationId: 7, Number: 2}) // overtaken on its way here
	r.OwnState(6, &chatv1.OwnState{ConversationId: 7, Number: 1})
	commit(r, 7, 9)
	testenv.Until(t, "all are announced", func() bool { return len(w.announcements()) == 3 })
	got := make(map[uint64]uint64)
	for _, a := range w.announcements() {
		got[a.user] = a.seq
	}
	if want := map[uint64]uint64{0: 9, 5: 3, 6: 1}; !maps.Equal(got, want) {
		t.Errorf("announced %v, want %v", got, want)
	}
}

func TestABusyConversationIsNotAnnounced(t *testing.T) {
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
	testenv.Until(t, "it is announced at the end", func() bool {
		all := w.announcements()
		return len(all) > 0 && all[len(all)-1].seq == seq
	})
	if n := len(w.announcements()); n > 2 { // one, and one more if the machine stood still
		t.Errorf("announced %d times", n)
	}
}

func TestAHeadIsAnnouncedAgainToAReaderOnAnUnlinkedServer(t *testing.T) {
	t.Parallel()
	w := &world{incomplete: 2}
	r := start(t, w, heartbeat)
	commit(r, 7, 1)
	testenv.Until(t, "announced until it is complete", func() bool { return len(w.announcements()) == 3 })
	w.change(func() { w.announced, w.incomplete = nil, 1000 })
	commit(r, 8, 1)
	const most = 8
	testenv.Until(t, "announced again and again", func() bool { return len(w.announcements()) == most })
	commit(r, 9, 1) // is announced later than 8 would be for a ninth time
	testenv.Until(t, "the next one is announced", func() bool {
		return slices.ContainsFunc(w.announcements(), func(a announcement) bool { return a.conversation == 9 })
	})
	n := 0
	for _, a := range w.announcements() {
		if a.conversation == 8 {
			n++
		}
	}
	if n != most {
		t.Errorf("announced %d times in all, want %d", n, most)
	}
}

func TestFlushAnnouncesAtOnce(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, time.Hour)
	commit(r, 7, 1)
	commit(r, 8, 1)
	r.Flush(t.Context())
	if n := len(w.announcements()); n != 2 {
		t.Errorf("announced %d of 2", n)
	}
}

// While a server with users cannot be reached, all users are compared, and once
// more when it can be.
func TestAllUsersAreComparedWhileServersArePartitioned(t *testing.T) {
	t.Parallel()
	w := &world{users: []uint64{3}, partitioned: true}
	start(t, w, heartbeat)
	testenv.Until(t, "compared again and again", func() bool { return w.compared()[3] > 2 })
	w.change(func() { w.partitioned = false })
	before := w.compared()[3]
	testenv.Until(t, "compared once more", func() bool { return w.compared()[3] > before })
}

// room is how many conversations are remembered.
const room = 100_000

// commitAll commits to as many conversations, in batches as a log has them.
func commitAll(r *repair.Repair, from, n uint64) {
	var batch []msglog.Event
	for id := from; id < from+n; id++ {
		batch = append(batch, msglog.Event{Conversation: id, Seq: 1})
	}
	for part := range slices.Chunk(batch, 512) {
		r.Committed(part)
	}
}

func TestManyConversationsAreAnnouncedEarlyAndTogether(t *testing.T) {
	t.Parallel()
	w := &world{}
	r := start(t, w, 10*time.Second) // an interval is one second
	commitAll(r, 0, room)
	at := time.Now()
	testenv.Until(t, "all are announced", func() bool { return len(w.announcements()) == room })
	if took := w.announcements()[0].at.Sub(at); took > 4*time.Second {
		t.Errorf("the first one is announced after %v", took)
	}
	w.change(func() {
		if w.lost != 0 || len(w.calls) > room/500 {
			t.Errorf("%d look-ups for %d conversations, %d times something was lost", len(w.calls), room, w.lost)
		}
	})
}

// However many heads wait, and however slowly they are announced, users are
// compared with the log in between.
func TestManyAnnouncementsHoldUpNoComparison(t *testing.T) {
	t.Parallel()
	w := &world{hold: make(chan struct{}), users: []uint64{1}}
	r := start(t, w, time.Second)
	commitAll(r, 0, 5000)
	w.hold <- struct{}{} // the announcements have begun
	r.MarkDirty(7)
	w.hold <- struct{}{} // the next one may have begun before
	testenv.Until(t, "the user is compared", func() bool {
		if w.compared()[7] > 0 {
			return true
		}
		select {
		case w.hold <- struct{}{}:
		default:
		}
		return false
	})
	if n := len(w.announcements()); n > 2500 {
		t.Errorf("%d heads were announced before", n)
	}
	close(w.hold)
	testenv.Until(t, "all are announced", func() bool { return len(w.announcements()) == 5000 })
}

// Instead of announcing what cannot be remembered, all users are compared with the
// log: here and, by the call of Lost, on the other servers.
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
			t.Errorf("Lost was called %d times, want once for each batch", w.lost)
		}
	})
	commit(r, 5, 9) // one that is remembered needs no more room
	close(w.hold)
	testenv.Until(t, "all users of this server are compared", func() bool {
		return w.compared()[3] > 0 && w.compared()[4] > 0
	})
	testenv.Until(t, "the rest is announced", func() bool { return len(w.announcements()) >= room })
	if n := len(w.announcements()); n > room+500 {
		t.Errorf("announced %d of %d remembered", n, room)
	}
}

func TestMoreDirtyUsersThanAreRemembered(t *testing.T) {
	t.Parallel()
	w := &world{away: true, users: []uint64{3}}
	r := start(t, w, 100*time.Millisecond)
	for user := range uint64(60_000) { // log-ins while the database is away
		r.MarkDirty(user + 1000)
	}
	w.change(func() { w.away = false })
	testenv.Until(t, "all connected users are compared", func() bool { return w.compared()[3] > 0 })
	if n := len(w.compared()); n > 55_000 {
		t.Errorf("%d users were remembered", n)
	}
}

func TestDirtyUsersAreComparedWithTheLog(t *testing.T) {
	t.Parallel()
	w := &world{heads: map[uint64][]*chatv1.Head{1: {{ConversationId: 7, Seq: 5}, {ConversationId: 8, Seq: 6}}}}
	r := start(t, w, heartbeat)
	w.change(func() { w.away = true })
	at := time.Now()
	r.MarkDirty(1)
	r.MarkDirty(2)
	testenv.Until(t, "tried, with the database away", func() bool { return w.compared()[1] > 0 })
	if took := time.Since(at); took > heartbeat {
		t.Errorf("took %v", took)
	}
	w.change(func() { w.away = false })
	testenv.Until(t, "the heads arrive when it is back", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.received[1], []uint64{5, 6})
	})
	before := w.compared()[1]
	r.MarkDirty(3)
	testenv.Until(t, "the next one is compared", func() bool { return w.compared()[3] > 0 })
	if w.compared()[1] != before {
		t.Error("compared again without need")
	}
}

func TestAllUsersAreCompared(t *testing.T) {
	t.Parallel()
	w := &world{}
	const users = 250
	for u := range uint64(users) {
		w.users = append(w.users, u+1000)
	}
	r := start(t, w, 2*time.Second)
	at := time.Now()
	r.MarkAllDirty()
	testenv.Until(t, "all are compared", func() bool { return len(w.compared()) == users })
	if took := time.Since(at); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, part := range w.queries {
		if len(part) > 100 {
			t.Errorf("%d users in one query", len(part))
		}
	}
}

func TestThePeriodicCheckFindsAllUsers(t *testing.T) {
	t.Parallel()
	w := &world{}
	const users = 90
	for u := range uint64(users) {
		w.users = append(w.users, u)
	}
	const beat = 100 * time.Millisecond
	start(t, w, beat)
	testenv.Until(t, "all are compared", func() bool { return len(w.compared()) == users })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, part := range w.queries {
		if len(part) > users/30 {
			t.Errorf("%d users in one heartbeat", len(part))
		}
	}
}
