package fanout_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/msrchat/msrchat/chat/internal/msglog"
	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/fanout"
	"github.com/msrchat/msrchat/chat/internal/route"
)

// world is everything around a Fanout; its mutex owns the journal.
type world struct {
	at     map[uint64][]route.Place
	astray map[uint64]bool
	hold   chan struct{} // keeps Lookup waiting

	mu      sync.Mutex
	local   []string
	remote  []string
	sends   []string // the servers that were sent something
	lookups int
}

func (w *world) Deliver(users []uint64, except uint64, frames []byte) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.local = append(w.local, fmt.Sprint(users, " ", decode(frames), but(except)))
	return 0
}

func but(except uint64) string {
	if except == 0 {
		return ""
	}
	return fmt.Sprint(" but ", except)
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
		users := slices.Sorted(slices.Values(d.GetUserIds()))
		w.remote = append(w.remote, fmt.Sprint(instance, users, " ", describe(d.GetEvent(), d.GetHead()), but(d.GetExceptConnection())))
	}
	return true
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
	return w.at, w.astray
}

// journal is what was delivered, here and elsewhere.
func (w *world) journal() (local, remote []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	remote = slices.Clone(w.remote)
	slices.SortStableFunc(remote, func(a, b string) int { return strings.Compare(a[:1], b[:1]) }) // by server; order kept
	return slices.Clone(w.local), remote
}

func describe(e *chatv1.Event, h *chatv1.Head) string {
	if e != nil {
		return fmt.Sprintf("event %d/%d %s", e.GetConversationId(), e.GetSeq(), e.GetText())
	}
	return fmt.Sprintf("head %d/%d", h.GetConversationId(), h.GetSeq())
}

func decode(frames []byte) string {
	f := &chatv1.ServerFrame{}
	if _, err := frame.Read(bytes.NewReader(frames), 1<<20, nil, f); err != nil {
		return err.Error()
	}
	if f.GetEvent() != nil {
		return describe(f.GetEvent(), nil)
	}
	return describe(nil, f.GetHeads().GetHeads()[0])
}

func committed(conversation, seq uint64, text string, audience ...uint64) msglog.Committed {
	return msglog.Committed{
		ConversationID: conversation, Audience: audience, Result: msglog.Result{Seq: seq},
		Entry: msglog.Entry{SenderID: audience[0], Kind: 1, Body: []byte(text)},
	}
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
	w := &world{at: map[uint64][]route.Place{1: at("b"), 2: at("b", "c"), 3: at("c")}}
	f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w})
	stop := run(t, f)
	f.Committed([]msglog.Committed{committed(7, 1, "one", 1, 2), committed(7, 2, "two", 1, 2), committed(8, 1, "elsewhere", 3, 4)})
	stop()
	local, remote := w.journal()
	if diff := cmp.Diff([]string{"[1 2] event 7/1 one", "[1 2] event 7/2 two", "[3 4] event 8/1 elsewhere"}, local); diff != "" {
		t.Error(diff)
	}
	want := []string{"b[1 2] event 7/1 one", "b[1 2] event 7/2 two", "c[2] event 7/1 one", "c[2] event 7/2 two", "c[3] event 8/1 elsewhere"}
	if diff := cmp.Diff(want, remote); diff != "" {
		t.Error(diff)
	}
	if w.lookups != 1 {
		t.Errorf("%d look-ups for one batch", w.lookups)
	}
}

// The connection that a message came in on has its acknowledgement.
func TestTheSendingConnectionIsLeftOut(t *testing.T) {
	for _, tc := range []struct {
		name   string
		at     map[uint64][]route.Place
		remote []string
	}{
		{"it is the only one there", map[uint64][]route.Place{1: {{Instance: "b", Only: 11}}}, nil},
		{"its user has others there", map[uint64][]route.Place{1: at("b")}, []string{"b[1] event 7/1 one but 11"}},
		{"and elsewhere", map[uint64][]route.Place{1: {{Instance: "b", Only: 11}, {Instance: "c", Only: 12}}}, []string{"c[1] event 7/1 one but 11"}},
		{"the reader is there", map[uint64][]route.Place{1: {{Instance: "b", Only: 11}}, 2: {{Instance: "b", Only: 21}}}, []string{"b[2] event 7/1 one but 11"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &world{at: tc.at}
			f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w})
			stop := run(t, f)
			sent := committed(7, 1, "one", 1, 2)
			sent.Entry.Connection = 11
			f.Committed([]msglog.Committed{sent})
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
	w := &world{hold: make(chan struct{})}
	reg := prometheus.NewRegistry()
	f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w, Registerer: reg})
	const room, over = 1024, 10
	for i := range uint64(room + over) { // Run has not begun: nothing is taken
		f.Committed([]msglog.Committed{committed(1, i+1, "x", 1)})
	}
	if n := metric(t, reg, "msrchat_fanout_dropped_total"); n != over {
		t.Errorf("%v dropped, want %d", n, over)
	}
	close(w.hold)
	stop := run(t, f)
	testenv.Until(t, "all is delivered", func() bool { local, _ := w.journal(); return len(local) == room })
	f.Committed([]msglog.Committed{committed(1, 2000, "after", 1)})
	stop() // delivers what waits
	local, _ := w.journal()
	if len(local) != room+1 || local[room] != "[1] event 1/2000 after" {
		t.Errorf("%d deliveries", len(local))
	}
	for i, s := range local[:room] {
		if s != fmt.Sprintf("[1] event 1/%d x", i+1) {
			t.Fatalf("at %d: %s", i, s)
		}
	}
	if w.lookups > 3 {
		t.Errorf("%d look-ups", w.lookups)
	}
}

func TestWhatWaitsIsBoundedInBytes(t *testing.T) {
	w := &world{}
	reg := prometheus.NewRegistry()
	f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w, Registerer: reg})
	long := strings.Repeat("x", 64<<10)
	const room, sent = 32 << 20 / (64 << 10), 600
	for i := range uint64(sent) {
		f.Committed([]msglog.Committed{committed(1, i+1, long, 1)})
	}
	if n := metric(t, reg, "msrchat_fanout_dropped_total"); n < sent-room || n > sent-room+2 {
		t.Errorf("%v of %d dropped, want about %d", n, sent, sent-room)
	}
	stop := run(t, f)
	delivered := func() int { local, _ := w.journal(); return len(local) }
	testenv.Until(t, "what waits is delivered", func() bool { return delivered() >= room-2 })
	before := delivered()
	testenv.Until(t, "there is room again", func() bool {
		f.Committed([]msglog.Committed{committed(1, sent+1, long, 1)})
		return delivered() > before
	})
	before = delivered()
	for i := range uint64(100) {
		f.Committed([]msglog.Committed{committed(1, sent+i+2, long, 1)})
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

func TestHeadsAreToldEverywhereByOneLookUp(t *testing.T) {
	w := &world{at: map[uint64][]route.Place{1: at("b"), 2: at("b"), 3: at("c")}, astray: map[uint64]bool{3: true}}
	f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w})
	got := f.Heads(t.Context(), []fanout.Telling{
		{Head: &chatv1.Head{ConversationId: 7, Seq: 9}, Users: []uint64{1, 2}},
		{Head: &chatv1.Head{ConversationId: 8, Seq: 1}, Users: []uint64{2, 3}},
	})
	if diff := cmp.Diff([]bool{true, false}, got); diff != "" {
		t.Error("all told:", diff)
	}
	local, remote := w.journal()
	if diff := cmp.Diff([]string{"[1 2] head 7/9", "[2 3] head 8/1"}, local); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b[1 2] head 7/9", "b[2] head 8/1", "c[3] head 8/1"}, remote); diff != "" {
		t.Error(diff)
	}
	if w.lookups != 1 || len(w.sends) != 2 {
		t.Errorf("%d look-ups and %d messages to two servers", w.lookups, len(w.sends))
	}
}

func TestWhatAPeerSendsReachesItsUsers(t *testing.T) {
	w := &world{}
	f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w})
	f.Received([]*relayv1.Delivery{
		{UserIds: []uint64{1}, What: &relayv1.Delivery_Event{Event: &chatv1.Event{ConversationId: 7, Seq: 1, Text: "你好"}}},
		{UserIds: []uint64{2, 3}, What: &relayv1.Delivery_Head{Head: &chatv1.Head{ConversationId: 7, Seq: 1}}},
		{UserIds: []uint64{4}}, // of a later version
	})
	local, remote := w.journal()
	if diff := cmp.Diff([]string{"[1] event 7/1 你好", "[2 3] head 7/1"}, local); diff != "" || len(remote) != 0 {
		t.Error(diff, remote)
	}
}

func TestTheHookDropsAPush(t *testing.T) {
	w := &world{at: map[uint64][]route.Place{1: at("b")}}
	f := fanout.New(fanout.Options{Hub: w, Peers: w, Routes: w, Drop: func(e *chatv1.Event) bool {
		return proto.Equal(e, &chatv1.Event{ConversationId: 1, Seq: 1, SenderId: 1, Kind: 1, Text: "x", ClientMsgId: make([]byte, 16)})
	}})
	stop := run(t, f)
	f.Committed([]msglog.Committed{committed(1, 1, "x", 1), committed(1, 2, "x", 1)})
	stop()
	local, remote := w.journal()
	if len(local) != 1 || len(remote) != 1 || local[0] != "[1] event 1/2 x" {
		t.Errorf("delivered %v and %v", local, remote)
	}
}
