package fanout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/encode"
	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/member"
	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/route"
)

// world is everything around a Fanout. Its mutex owns the fields below it.
type world struct {
	at       map[uint64][]route.Place
	unlinked map[uint64]bool
	hold     chan struct{} // keeps Lookup waiting
	// cached are the members in the index, stored those in the database.
	cached, stored map[uint64]member.Members
	away           bool // the database

	mu      sync.Mutex
	loads   [][]uint64
	missed  int
	local   []string
	pushes  []int // bytes of each
	remote  []string
	sends   []string // the server of each message
	lookups int
}

// twoConversations is a world with the conversations 7, of users 1 and 2, and 8, of
// users 3 and 4.
func twoConversations() *world {
	return &world{cached: map[uint64]member.Members{
		7: {Number: 1, Users: []uint64{1, 2}}, 8: {Number: 1, Users: []uint64{3, 4}},
	}}
}

func (w *world) fanout(change ...func(*fanout.Options)) *fanout.Fanout {
	opts := fanout.Options{Hub: w, Peers: w, Routes: w, Members: w, Missed: func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.missed++
	}}
	for _, c := range change {
		c(&opts)
	}
	return fanout.New(opts)
}

func (w *world) AtLeast(id, number uint64) (member.Members, bool) {
	m, ok := w.cached[id]
	return m, ok && m.Number >= number
}

func (w *world) LoadAll(_ context.Context, ids []uint64) (map[uint64]member.Members, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loads = append(w.loads, slices.Clone(ids))
	if w.away {
		return nil, errors.New("away")
	}
	out := make(map[uint64]member.Members)
	for _, id := range ids {
		if m, ok := w.stored[id]; ok {
			out[id] = m
		}
	}
	return out, nil
}

func (w *world) Deliver(users []uint64, except uint64, frames []byte) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushes = append(w.pushes, len(frames))
	for _, f := range decode(frames) {
		w.local = append(w.local, fmt.Sprint(users, " ", f, but(except)))
	}
	return 0
}

func but(except uint64) string {
	if except == 0 {
		return ""
	}
	return fmt.Sprint(" but ", except)
}

func only(user uint64) string {
	if user == 0 {
		return ""
	}
	return fmt.Sprint("[", user, "]")
}

// at are servers on which a user has several connections.
func at(instances ...string) (places []route.Place) {
	for _, instance := range instances {
		places = append(places, route.Place{Instance: instance})
	}
	return places
}

func (w *world) Instances() []string { return []string{"b", "c"} }

func (w *world) Send(instance string, deliveries ...*relayv1.Delivery) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sends = append(w.sends, instance)
	for _, d := range deliveries {
		said := fmt.Sprint(instance, only(d.GetUserId()), " ", describe(d), but(d.GetExceptConnection()))
		w.remote = append(w.remote, said)
		if d.GetMembersNumber() == 0 && d.GetUserId() == 0 {
			w.remote = append(w.remote, "without the number of its members")
		}
	}
	return true
}

func (w *world) Recall(ctx context.Context, users []uint64, peers []string) map[uint64][]route.Place {
	at, _ := w.Lookup(ctx, users, peers)
	return at
}

func (w *world) Lookup(_ context.Context, users []uint64, _ []string) (map[uint64][]route.Place, map[uint64]bool) {
	if w.hold != nil {
		<-w.hold
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups++
	if !slices.IsSorted(users) || len(slices.Compact(slices.Clone(users))) != len(users) {
		w.local = append(w.local, "users were asked for twice")
	}
	return w.at, w.unlinked
}

// journal is what was delivered, to users of this server and to other servers.
func (w *world) journal() (local, remote []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	remote = slices.Clone(w.remote)
	byServer := func(a, b string) int { return strings.Compare(a[:1], b[:1]) }
	slices.SortStableFunc(remote, byServer)
	return slices.Clone(w.local), remote
}

// what is a delivery or a frame.
type what interface {
	GetEvent() *chatv1.Event
	GetOwnState() *chatv1.OwnState
}

func describe(w what) string {
	if e := w.GetEvent(); e != nil {
		return fmt.Sprintf("event %d/%d %s", e.GetConversationId(), e.GetSeq(), e.GetBody())
	}
	if s := w.GetOwnState(); s != nil {
		return fmt.Sprintf("own state %d/%d", s.GetConversationId(), s.GetNumber())
	}
	var h *chatv1.Head
	switch w := w.(type) {
	case *relayv1.Delivery:
		h = w.GetHead()
	case *chatv1.ServerFrame:
		h = w.GetHeads().GetHeads()[0]
	}
	return fmt.Sprintf("head %d/%d", h.GetConversationId(), h.GetSeq())
}

func decode(frames []byte) (all []string) {
	for r := bytes.NewReader(frames); ; {
		f := &chatv1.ServerFrame{}
		_, err := frame.Read(r, 1<<20, nil, f)
		switch {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			return append(all, err.Error())
		}
		all = append(all, describe(f))
	}
}

// committed is an event of user 1.
func committed(conversation, seq uint64, text string) msglog.Event {
	return msglog.Event{Conversation: conversation, Seq: seq, Sender: 1, Kind: 1, Body: []byte(text)}
}

// run runs a Fanout until stop is called, which waits.
func run(t *testing.T, f *fanout.Fanout) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestOneDeliveryPerEventAndServer(t *testing.T) {
	w := twoConversations()
	w.at = map[uint64][]route.Place{1: at("b"), 2: at("b", "c"), 3: at("c")}
	f := w.fanout()
	stop := run(t, f)
	f.Committed([]msglog.Event{committed(7, 1, "one"), committed(7, 2, "two"), committed(8, 1, "elsewhere")})
	stop()
	local, remote := w.journal()
	want := []string{"[1 2] event 7/1 one", "[1 2] event 7/2 two", "[3 4] event 8/1 elsewhere"}
	if diff := cmp.Diff(want, local); diff != "" {
		t.Error(diff)
	}
	want = []string{
		"b event 7/1 one", "b event 7/2 two",
		"c event 7/1 one", "c event 7/2 two", "c event 8/1 elsewhere",
	}
	if diff := cmp.Diff(want, remote); diff != "" {
		t.Error(diff)
	}
	if w.lookups != 1 || len(w.loads) != 0 {
		t.Errorf("%d look-ups of routes and %d queries for members for one batch", w.lookups, len(w.loads))
	}
}

// Members that are not cached are read together. While the database does not
// answer, nothing is pushed.
func TestMembersThatAreNotCachedAreRead(t *testing.T) {
	w := twoConversations()
	w.stored = map[uint64]member.Members{9: {Number: 4, Users: []uint64{5, 6}}, 10: {Number: 1, Users: []uint64{6}}}
	w.at = map[uint64][]route.Place{5: at("b")}
	f := w.fanout()
	stop := run(t, f)
	f.Committed([]msglog.Event{
		committed(9, 1, "nine"), committed(7, 1, "seven"), committed(10, 1, "ten"), committed(9, 2, "nine again"),
	})
	stop()
	local, remote := w.journal()
	want := []string{
		"[5 6] event 9/1 nine", "[1 2] event 7/1 seven", "[6] event 10/1 ten", "[5 6] event 9/2 nine again",
	}
	if diff := cmp.Diff(want, local); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b event 9/1 nine", "b event 9/2 nine again"}, remote); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]uint64{{9, 10}}, w.loads); diff != "" {
		t.Error("read:", diff)
	}

	w = &world{away: true}
	f = w.fanout()
	stop = run(t, f)
	f.Committed([]msglog.Event{committed(9, 1, "nine")})
	stop()
	if local, remote := w.journal(); !slices.Equal(local, []string{"[] event 9/1 nine"}) || len(remote) != 0 {
		t.Errorf("without the database: %v, %v", local, remote)
	}
}

// The connection that sent a message gets no push of it.
func TestTheSendingConnectionIsLeftOut(t *testing.T) {
	for _, tc := range []struct {
		name   string
		at     map[uint64][]route.Place
		remote []string
	}{
		{
			"it is the only one there",
			map[uint64][]route.Place{1: {{Instance: "b", Only: 11}}},
			nil,
		},
		{
			"its user has others there",
			map[uint64][]route.Place{1: at("b")},
			[]string{"b event 7/1 one but 11"},
		},
		{
			"and elsewhere",
			map[uint64][]route.Place{1: {{Instance: "b", Only: 11}, {Instance: "c", Only: 12}}},
			[]string{"c event 7/1 one but 11"},
		},
		{
			"the reader is there",
			map[uint64][]route.Place{1: {{Instance: "b", Only: 11}}, 2: {{Instance: "b", Only: 21}}},
			[]string{"b event 7/1 one but 11"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := twoConversations()
			w.at = tc.at
			f := w.fanout()
			stop := run(t, f)
			sent := committed(7, 1, "one")
			sent.Connection = 11
			f.Committed([]msglog.Event{sent})
			stop()
			local, remote := w.journal()
			if diff := cmp.Diff([]string{"[1 2] event 7/1 one but 11"}, local); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tc.remote, remote); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatWaitsGoesTogetherAndTheRestIsDropped(t *testing.T) {
	w := twoConversations()
	w.hold = make(chan struct{})
	reg := prometheus.NewRegistry()
	f := w.fanout(func(o *fanout.Options) { o.Registerer = reg })
	const room, over = 1024, 10
	for i := range uint64(room + over) { // Run has not begun, so all of it waits
		f.Committed([]msglog.Event{committed(7, i+1, "x")})
	}
	if n := metric(t, reg, "msrchat_fanout_dropped_total"); n != over {
		t.Errorf("%v dropped, want %d", n, over)
	}
	close(w.hold)
	stop := run(t, f)
	testenv.Until(t, "all is delivered", func() bool { local, _ := w.journal(); return len(local) == room })
	f.Committed([]msglog.Event{committed(7, 2000, "after")})
	stop() // delivers what waits
	local, _ := w.journal()
	if len(local) != room+1 || local[room] != "[1 2] event 7/2000 after" {
		t.Errorf("%d deliveries", len(local))
	}
	for i, s := range local[:room] {
		if s != fmt.Sprintf("[1 2] event 7/%d x", i+1) {
			t.Fatalf("at %d: %s", i, s)
		}
	}
	if w.lookups > 3 {
		t.Errorf("%d look-ups", w.lookups)
	}
}

func TestWhatWaitsIsBoundedInBytes(t *testing.T) {
	w := twoConversations()
	reg := prometheus.NewRegistry()
	f := w.fanout(func(o *fanout.Options) { o.Registerer = reg })
	long := strings.Repeat("x", 64<<10)
	const room, sent = fanout.MaxWaitingBytes / (64 << 10), 600
	for i := range uint64(sent) {
		f.Committed([]msglog.Event{committed(7, i+1, long)})
	}
	if n := metric(t, reg, "msrchat_fanout_dropped_total"); n < sent-room || n > sent-room+2 {
		t.Errorf("%v of %d dropped, want about %d", n, sent, sent-room)
	}
	stop := run(t, f)
	delivered := func() int { local, _ := w.journal(); return len(local) }
	testenv.Until(t, "what waits is delivered", func() bool { return delivered() >= room-2 })
	testenv.Until(t, "there is room again", func() bool {
		f.Committed([]msglog.Event{committed(7, sent+1, long)})
		local, _ := w.journal()
		return strings.HasPrefix(local[len(local)-1], fmt.Sprintf("[1 2] event 7/%d ", sent+1))
	})
	before := delivered()
	for i := range uint64(100) {
		f.Committed([]msglog.Event{committed(7, sent+i+2, long)})
	}
	stop()
	if n := delivered(); n < before+100 {
		t.Errorf("%d delivered, want %d", n, before+100)
	}
}

func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestHeadsAreAnnouncedOnAllServersByOneLookUp(t *testing.T) {
	w := twoConversations()
	w.at = map[uint64][]route.Place{1: at("b"), 2: at("b"), 3: at("c")}
	w.unlinked = map[uint64]bool{3: true}
	w.stored = map[uint64]member.Members{9: {Number: 2, Users: []uint64{2}}}
	got := w.fanout().Announce(t.Context(), []fanout.Announcement{
		{Head: &chatv1.Head{ConversationId: 7, Seq: 9}},
		{Head: &chatv1.Head{ConversationId: 8, Seq: 1}},
		{Head: &chatv1.Head{ConversationId: 9, Seq: 2}},
		{Head: &chatv1.Head{ConversationId: 10, Seq: 3}}, // its members cannot be read
		{Head: &chatv1.Head{ConversationId: 11, OwnState: 3}, User: 1},
	})
	if diff := cmp.Diff([]bool{true, false, true, false, true}, got); diff != "" {
		t.Error("complete:", diff)
	}
	local, remote := w.journal()
	want := []string{"[1 2] head 7/9", "[3 4] head 8/1", "[2] head 9/2", "[] head 10/3", "[1] head 11/0"}
	if diff := cmp.Diff(want, local); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b head 7/9", "b head 9/2", "b[1] head 11/0", "c head 8/1"}, remote); diff != "" {
		t.Error(diff)
	}
	if w.lookups != 1 || len(w.sends) != 2 || len(w.loads) != 1 {
		t.Errorf("%d look-ups, %d queries and %d messages to two servers", w.lookups, len(w.loads), len(w.sends))
	}
}

func TestWhatAPeerSendsReachesItsUsers(t *testing.T) {
	w := twoConversations()
	f := w.fanout()
	event := &chatv1.Event{ConversationId: 7, Seq: 1, Body: []byte("你好")}
	f.Received([]*relayv1.Delivery{
		// A server of revision 0 names users, which are ignored.
		{What: &relayv1.Delivery_Event{Event: event}, UserIds: []uint64{9}},
		{What: &relayv1.Delivery_Head{Head: &chatv1.Head{ConversationId: 8, Seq: 1}}, MembersNumber: 1},
		{What: &relayv1.Delivery_Head{Head: &chatv1.Head{ConversationId: 5, OwnState: 2}}, UserId: 4},
		{
			What:             &relayv1.Delivery_OwnState{OwnState: &chatv1.OwnState{ConversationId: 5, Number: 3}},
			UserId:           4,
			ExceptConnection: 11,
		},
	})
	local, remote := w.journal()
	want := []string{"[1 2] event 7/1 你好", "[3 4] head 8/1", "[4] head 5/0", "[4] own state 5/3 but 11"}
	if diff := cmp.Diff(want, local); diff != "" || len(remote) != 0 {
		t.Error(diff, remote)
	}
}

// A server whose members are older than the delivery's reads them anew. Other
// deliveries do not wait for that.
func TestStaleMembersAreReadAnew(t *testing.T) {
	w := twoConversations()
	w.stored = map[uint64]member.Members{7: {Number: 2, Users: []uint64{1, 2, 3}}}
	f := w.fanout()
	newer := func(seq uint64) *relayv1.Delivery {
		return &relayv1.Delivery{
			What: &relayv1.Delivery_Event{Event: &chatv1.Event{ConversationId: 7, Seq: seq}}, MembersNumber: 2,
		}
	}
	f.Received([]*relayv1.Delivery{newer(1), newer(2), {
		What: &relayv1.Delivery_Head{Head: &chatv1.Head{ConversationId: 8, Seq: 1}}, MembersNumber: 1,
	}})
	if local, _ := w.journal(); !slices.Equal(local, []string{"[3 4] head 8/1"}) {
		t.Errorf("before the members were read: %v", local)
	}
	run(t, f)
	testenv.Until(t, "all is delivered", func() bool { local, _ := w.journal(); return len(local) == 3 })
	local, _ := w.journal()
	if diff := cmp.Diff([]string{"[1 2 3] event 7/1 ", "[1 2 3] event 7/2 "}, local[1:]); diff != "" {
		t.Error(diff)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.loads) != 1 || w.missed != 0 {
		t.Errorf("read %v, missed %d", w.loads, w.missed)
	}
}

// When members cannot be read, repair makes up for their deliveries.
func TestDeliveriesWithoutMembersAreMissed(t *testing.T) {
	w := &world{away: true}
	reg := prometheus.NewRegistry()
	f := w.fanout(func(o *fanout.Options) { o.Registerer = reg })
	const room, over = 4096, 3
	for i := range uint64(room + over) { // Run has not begun
		head := &chatv1.Head{ConversationId: i + 1, Seq: 1}
		f.Received([]*relayv1.Delivery{{What: &relayv1.Delivery_Head{Head: head}}})
	}
	missed := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.missed
	}
	if n := metric(t, reg, "msrchat_fanout_dropped_total"); n != over || missed() != over {
		t.Errorf("%v dropped, %d missed, want %d", n, missed(), over)
	}
	run(t, f)
	testenv.Until(t, "what waited is missed", func() bool { return missed() > over })
}

func TestAnOwnStateGoesToTheUsersOtherConnections(t *testing.T) {
	w := twoConversations()
	w.at = map[uint64][]route.Place{4: {{Instance: "b", Only: 11}, {Instance: "c", Only: 12}}}
	w.fanout().OwnState(t.Context(), 4, &chatv1.OwnState{ConversationId: 8, Number: 3}, 11)
	local, remote := w.journal()
	if diff := cmp.Diff([]string{"[4] own state 8/3 but 11"}, local); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"c[4] own state 8/3 but 11"}, remote); diff != "" {
		t.Error(diff)
	}
}

func TestTheHookDropsAPush(t *testing.T) {
	w := twoConversations()
	w.at = map[uint64][]route.Place{1: at("b")}
	f := w.fanout(func(o *fanout.Options) {
		o.Drop = func(e *chatv1.Event) bool { return e.GetSeq() == 1 }
	})
	stop := run(t, f)
	f.Committed([]msglog.Event{committed(7, 1, "x"), committed(7, 2, "x")})
	stop()
	local, remote := w.journal()
	if len(local) != 1 || len(remote) != 1 || local[0] != "[1 2] event 7/2 x" {
		t.Errorf("delivered %v and %v", local, remote)
	}
}

// Events with the same readers leave in one push, of some 32 KiB at most, whether this
// server appended them or a peer.
func TestEventsWithTheSameReadersLeaveTogether(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 20<<10)
	byConnection := func(e msglog.Event, id uint64) msglog.Event {
		e.Connection = id
		return e
	}
	batch := []msglog.Event{
		committed(7, 1, "a"), committed(7, 2, "b"), committed(7, 3, "c"),
		byConnection(committed(7, 4, "another sender"), 11), byConnection(committed(7, 5, "the same"), 11),
		committed(8, 1, "another conversation"),
		committed(8, 2, long), committed(8, 3, long), committed(8, 4, "behind"),
	}
	want := []int{3, 2, 3, 1} // events in each push
	check := func(t *testing.T, w *world) {
		t.Helper()
		local, _ := w.journal()
		if len(local) != len(batch) || len(w.pushes) != len(want) {
			t.Fatalf("%d events in %d pushes, want %d in %d", len(local), len(w.pushes), len(batch), len(want))
		}
		at := 0
		for i, n := range want {
			for _, e := range batch[at : at+n] {
				if readers := w.cached[e.Conversation].Users; !strings.HasPrefix(local[at], fmt.Sprint(readers)) ||
					!strings.Contains(local[at], fmt.Sprintf("%d/%d ", e.Conversation, e.Seq)) {
					t.Errorf("push %d has %.40q, want event %d/%d", i, local[at], e.Conversation, e.Seq)
				}
				at++
			}
			if w.pushes[i] > 64<<10 {
				t.Errorf("push %d has %d bytes", i, w.pushes[i])
			}
		}
	}
	t.Run("appended here", func(t *testing.T) {
		t.Parallel()
		w := twoConversations()
		f := w.fanout()
		stop := run(t, f)
		f.Committed(slices.Clone(batch))
		stop()
		check(t, w)
	})
	t.Run("by a peer", func(t *testing.T) {
		t.Parallel()
		w := twoConversations()
		var deliveries []*relayv1.Delivery
		for i := range batch {
			deliveries = append(deliveries, &relayv1.Delivery{
				What:             &relayv1.Delivery_Event{Event: encode.Event(&batch[i])},
				ExceptConnection: batch[i].Connection,
			})
		}
		w.fanout().Received(deliveries)
		check(t, w)
	})
}
