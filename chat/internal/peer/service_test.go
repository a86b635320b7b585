package peer_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/kind"
	"github.com/msrchat/msrchat/chat/internal/lane"
	"github.com/msrchat/msrchat/chat/internal/msglog"
)

// raw is a client on which a test plays the peer.
func raw(t *testing.T, n *node) relayv1.RelayServiceClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+n.address, insecurely()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return relayv1.NewRelayServiceClient(cc)
}

// frame is one relay frame of peer "x" with some deliveries.
func frame(boot, counter uint64, deliveries int) *relayv1.DeliverRequest {
	f := &relayv1.DeliverRequest{Instance: "x", BootId: boot, Counter: counter}
	for range deliveries {
		f.Deliveries = append(f.Deliveries, event(counter))
	}
	return f
}

func TestGapsInTheCountAreNoticed(t *testing.T) {
	t.Parallel()
	type stream []*relayv1.DeliverRequest
	begun := stream{frame(1, 0, 0), frame(1, 1, 1)}
	draining := frame(1, 0, 0)
	draining.Draining = true
	for _, c := range []struct {
		name string
		// each stream is closed, or cut, when its frames were sent
		streams []stream
		cut     bool
		want    int64 // times that something is missed, the ends of the streams included
	}{
		{"nothing lost", []stream{{frame(1, 0, 0), frame(1, 1, 2), frame(1, 1, 0), frame(1, 2, 1)}}, false, 1},
		{"a drop", []stream{{frame(1, 0, 0), frame(1, 2, 1)}}, false, 2},
		{"a drop, then silence", []stream{{frame(1, 0, 0), frame(1, 1, 0)}}, false, 2},
		{"a count of which the start was not received", []stream{{frame(1, 7, 0), frame(1, 8, 1)}}, false, 2},
		{"a reconnect without loss", []stream{begun, {frame(1, 1, 0), frame(1, 2, 1)}}, false, 2},
		{"a reconnect with loss", []stream{begun, {frame(1, 2, 0), frame(1, 3, 1)}}, false, 3},
		{"a restart", []stream{begun, {frame(2, 0, 0), frame(2, 1, 1)}}, false, 2},
		{"an orderly end", []stream{{frame(1, 0, 0), draining}}, false, 0},
		{"death while it drains", []stream{{frame(1, 0, 0), draining}}, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "n", "127.0.0.1:0", 9)
			n.catalog <- []discovery.Instance{at("x", "127.0.0.1:1")} // listed; nothing listens there
			client := raw(t, n)
			for _, frames := range c.streams {
				ctx, cancel := context.WithCancel(t.Context())
				s := open(ctx, t, client, frames...)
				if c.cut {
					settle(t, s)
					cancel()
				} else if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
				for {
					if _, err := s.Recv(); err != nil {
						break
					}
				}
				cancel()
			}
			testenv.Until(t, "the gaps are noticed", func() bool { return n.missed.Load() >= c.want })
			n.kill() // waits for all handlers
			if got := n.missed.Load(); got != c.want {
				t.Errorf("missed %d times, want %d", got, c.want)
			}
		})
	}
}

func open(
	ctx context.Context, t *testing.T, client relayv1.RelayServiceClient, frames ...*relayv1.DeliverRequest,
) relayv1.RelayService_DeliverClient {
	t.Helper()
	s, err := client.Deliver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := s.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// settle waits until what was sent has surely been read: after two further
// keepalives, one a second.
func settle(t *testing.T, s relayv1.RelayService_DeliverClient) {
	t.Helper()
	for range 3 {
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}

// The new process connects before the end of the old one's stream is noticed.
func TestARestartIsNoticedBeforeTheEnd(t *testing.T) {
	t.Parallel()
	n := start(t, "n", "127.0.0.1:0", 9)
	old := open(t.Context(), t, raw(t, n), frame(1, 0, 0), frame(1, 1, 1))
	testenv.Until(t, "the old one delivers", func() bool { return len(n.got()) == 1 })
	again := open(t.Context(), t, raw(t, n), frame(2, 0, 0), frame(2, 1, 1))
	testenv.Until(t, "the new one delivers", func() bool { return len(n.got()) == 2 })
	if got := n.missed.Load(); got != 1 {
		t.Errorf("missed %d times at the restart, want once", got)
	}
	if err := old.Send(frame(1, 2, 1)); err != nil { // what was still on its way
		t.Fatal(err)
	}
	testenv.Until(t, "it is delivered", func() bool { return len(n.got()) == 3 })
	if err := again.Send(frame(2, 2, 1)); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "and the new one goes on", func() bool { return len(n.got()) == 4 })
	if got := n.missed.Load(); got != 1 {
		t.Errorf("a late frame of the old process made it %d", got)
	}
}

func TestAPeerThatFallsSilentIsMissed(t *testing.T) {
	t.Parallel()
	n := start(t, "n", "127.0.0.1:0", 9)
	s := open(t.Context(), t, raw(t, n), frame(1, 0, 0))
	for {
		if _, err := s.Recv(); err != nil {
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("the stream ended with %v", err)
			}
			break
		}
	}
	testenv.Until(t, "it is missed", func() bool { return n.missed.Load() == 1 })
}

func TestBadFramesOfAPeerEndItsStreamOnly(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	nameless, other := frame(1, 0, 0), frame(1, 0, 0)
	nameless.Instance, other.Instance = "", "y"
	for name, frames := range map[string][]*relayv1.DeliverRequest{
		"nameless":     {nameless},
		"another name": {frame(1, 0, 0), other},
	} {
		s := open(t.Context(), t, raw(t, b), frames...)
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.Send("b", event(1))
	testenv.Until(t, "the good peer is undisturbed", func() bool { return len(b.got()) == 1 })
}

// A bad append is refused, and the others on its stream go on.
func TestBadAppendsAreAnsweredAsSuch(t *testing.T) {
	t.Parallel()
	n := start(t, "n", "127.0.0.1:0", 9)
	tooMany := &relayv1.AppendRequest{Entries: make([]*relayv1.Entry, 1025)}
	for i := range tooMany.GetEntries() {
		tooMany.Entries[i] = &relayv1.Entry{SenderId: 1, ClientMsgId: make([]byte, 16)}
	}
	s, err := raw(t, n).Append(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := uint64(0)
	ask := func(r *relayv1.AppendRequest) *relayv1.AppendResponse {
		id++
		r.RequestId = id
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
		answer, err := s.Recv()
		if err != nil || answer.GetRequestId() != id {
			t.Fatalf("got %v, %v", answer, err)
		}
		return answer
	}
	one := func(sender uint64, id int) *relayv1.AppendRequest {
		return &relayv1.AppendRequest{Entries: []*relayv1.Entry{{SenderId: sender, ClientMsgId: make([]byte, id)}}}
	}
	for name, r := range map[string]*relayv1.AppendRequest{
		"nothing":   {},
		"too many":  tooMany,
		"no sender": one(0, 16),
		"short id":  one(1, 15),
	} {
		got := ask(r)
		if got.GetErrorCode() != string(errs.CodeInvalid) || got.GetErrorText() == "" || len(got.GetResults()) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := ask(one(1, 16)); len(got.GetResults()) != 1 {
		t.Errorf("a good one: %v", got)
	}
	// Content is checked like a client's, and what is good beside it is appended.
	const later = 200 // a kind that only a later release knows
	mixed := &relayv1.AppendRequest{}
	for _, e := range []struct {
		kind uint32
		body string
	}{
		{kind.Text, "\xff\xfex"},
		{kind.Text, "hi"},
		{kind.Text, "\u200b"},
		{kind.Text, strings.Repeat("x", 20_000)},
		{later, "\xff"},
		{later, strings.Repeat("x", 20_000)},
		{0, "hi"}, // readers would take it for a text
	} {
		mixed.Entries = append(mixed.Entries, &relayv1.Entry{
			SenderId: 1, ClientMsgId: make([]byte, 16), Kind: e.kind, Body: []byte(e.body),
		})
	}
	before := n.appends()
	var codes []string
	for _, r := range ask(mixed).GetResults() {
		codes = append(codes, r.GetErrorCode())
	}
	want := []string{"invalid", "", "invalid", "too_large", "", "too_large", "invalid"}
	if diff := cmp.Diff(want, codes); diff != "" || n.appends() != before+1 {
		t.Errorf("%d appends, refused (-want +got):\n%s", n.appends()-before, diff)
	}
}

// What is shown to people is checked at the last server, too.
func TestBadDeliveriesAreLeftOut(t *testing.T) {
	t.Parallel()
	n := start(t, "n", "127.0.0.1:0", 9)
	event := func(kind uint32, body string, id int) *relayv1.Delivery {
		return &relayv1.Delivery{What: &relayv1.Delivery_Event{Event: &chatv1.Event{
			ConversationId: 1, Seq: 1, SenderId: 1, ClientMsgId: make([]byte, id), Kind: kind, Body: []byte(body),
		}}}
	}
	own := func(draft string) *relayv1.Delivery {
		return &relayv1.Delivery{UserId: 1, What: &relayv1.Delivery_OwnState{
			OwnState: &chatv1.OwnState{ConversationId: 1, Number: 1, Draft: &chatv1.Draft{Text: draft}},
		}}
	}
	good := []*relayv1.Delivery{event(kind.Text, "hi", 16), event(200, "\xff", 16), own("x"), own("")}
	bad := []*relayv1.Delivery{
		event(kind.Text, "\x1b[2J", 16), event(kind.Text, "\xff", 16), event(kind.Text, "", 16), event(0, "hi", 16),
		event(256, "hi", 16), event(kind.Text, "hi", 15),
		{What: &relayv1.Delivery_Event{}},
		{What: &relayv1.Delivery_Connected{Connected: true}},
		{What: &relayv1.Delivery_Compare{Compare: true}},
		own("\x1b]0;x\x07"),
	}
	s := open(t.Context(), t, raw(t, n), frame(1, 0, 0), &relayv1.DeliverRequest{
		Instance: "x", BootId: 1, Counter: 1, Deliveries: append(slices.Clone(good), bad...),
	}, &relayv1.DeliverRequest{Instance: "x", BootId: 1, Counter: 2, Deliveries: bad},
		&relayv1.DeliverRequest{Instance: "x", BootId: 1, Counter: 3, Deliveries: good[:1]})
	settle(t, s)
	n.mu.Lock()
	defer n.mu.Unlock()
	want := append(good, good[0])
	if diff := cmp.Diff(want, n.delivered, protocmp.Transform()); diff != "" || n.missed.Load() != 0 {
		t.Errorf("missed %d times, delivered (-want +got):\n%s", n.missed.Load(), diff)
	}
}

// A lane's append ends also when the owner refuses it as bad, and the link stays up.
func TestALaneGetsTheRefusalOfABadAppend(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	lanes := lane.New(a, 0, slog.New(slog.DiscardHandler))
	defer lanes.Close(t.Context())
	refused := 0
	for id := range uint64(20) {
		answer := make(chan msglog.Result, 1)
		// It has no sender, which the log of this test's nodes does not check.
		if err := lanes.Send(msglog.Event{Conversation: id}, sender(answer), 1); err != nil {
			t.Fatal(err)
		}
		if r := <-answer; r.Err != nil {
			if refused++; errs.CodeOf(r.Err) != errs.CodeInvalid {
				t.Errorf("got %v", r.Err)
			}
		}
	}
	if refused == 0 || b.appends() != 0 || b.missed.Load() != 0 || !a.linked("b") {
		t.Errorf("%d refused, %d appended, linked %v", refused, b.appends(), a.linked("b"))
	}
}

// sender gets the results of its messages.
type sender chan msglog.Result

func (s sender) Sent(answers []lane.Answer) {
	for _, a := range answers {
		s <- a.Result
	}
}

// fake is a peer's service that answers as a test wants.
type fake struct {
	relayv1.UnimplementedRelayServiceServer
	// mute sends nothing after the first keepalive, silent not even that.
	mute, silent bool
	// answer handles the nth append, counted from 1; an error cuts the stream.
	answer func(n int64, r *relayv1.AppendRequest) (*relayv1.AppendResponse, error)
	calls  atomic.Int64
	// frames, if set, gets what is delivered.
	frames chan *relayv1.DeliverRequest
}

func (f *fake) Deliver(s relayv1.RelayService_DeliverServer) error {
	if f.frames != nil {
		go func() {
			for {
				frame, err := s.Recv()
				if err != nil {
					return
				}
				f.frames <- frame
			}
		}()
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for first := true; !f.silent; first = false {
		if first || !f.mute {
			if err := s.Send(&relayv1.DeliverResponse{Instance: "fake", BootId: 1}); err != nil {
				return err
			}
		}
		select {
		case <-s.Context().Done():
			return nil
		case <-ticker.C:
		}
	}
	<-s.Context().Done()
	return nil
}

func (f *fake) Append(s relayv1.RelayService_AppendServer) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		answer, err := f.answer(f.calls.Add(1), r)
		if err != nil {
			return err
		}
		if answer == nil {
			continue
		}
		answer.RequestId = r.GetRequestId()
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}

// facing returns a node that has a fake as its only peer.
func facing(t *testing.T, f *fake) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	relayv1.RegisterRelayServiceServer(srv, f)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	n := start(t, "n", "127.0.0.1:0", 1)
	n.list(&node{instance: "fake", address: l.Addr().String()})
	return n
}

// foreign appends to conversations until the fake owns one.
func foreign(t *testing.T, n *node, f *fake, texts ...string) (uint64, []msglog.Result, error) {
	t.Helper()
	for id := range uint64(1000) {
		before := f.calls.Load()
		results, err := n.Append(t.Context(), id, entries(texts...))
		if f.calls.Load() > before {
			return id, results, err
		}
	}
	t.Fatal("the fake owns nothing")
	return 0, nil, nil
}

func ok(n int) *relayv1.AppendResponse {
	r := &relayv1.AppendResponse{}
	for i := range n {
		r.Results = append(r.Results, &relayv1.Appended{Seq: uint64(i + 1), CreatedAtMs: 7, Existing: i == 1})
	}
	return r
}

func TestAnswersOfAnOwner(t *testing.T) {
	t.Parallel()
	refused := ok(2)
	refused.Results[1] = &relayv1.Appended{ErrorCode: "conflict", ErrorText: "no"}
	all := func(code string) *relayv1.AppendResponse {
		return &relayv1.AppendResponse{ErrorCode: code, ErrorText: "x"}
	}
	for _, c := range []struct {
		name   string
		answer *relayv1.AppendResponse
		code   errs.Code // of the whole
		second errs.Code // of the second entry
		here   bool      // appended on the node itself instead
	}{
		{"all well", ok(2), "", "", false},
		{"one entry refused", refused, "", errs.CodeConflict, false},
		{"too few results", ok(1), "", "", true},
		{"too many results", ok(3), "", "", true},
		{"no results", ok(0), "", "", true},
		{"unavailable", all("unavailable"), errs.CodeUnavailable, "", false},
		{"a code of the future", all("tired"), errs.CodeInternal, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, f := facingOne(t, c.answer)
			testenv.Until(t, "linked", func() bool { return n.linked("fake") })
			id, got, err := foreign(t, n, f, "x", "y")
			if c.here {
				n.mu.Lock()
				defer n.mu.Unlock()
				if err != nil || len(got) != 2 || n.appended[len(n.appended)-1] != id {
					t.Errorf("got %v, %v; appended here: %v", got, err, n.appended)
				}
				return
			}
			if errs.CodeOf(err) != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if err != nil {
				return
			}
			if first := got[0]; first.Seq != 1 || first.CreatedAt != 7 {
				t.Errorf("the first result is %+v", first)
			}
			if second := got[1]; errs.CodeOf(second.Err) != c.second || second.Existing != (c.second == "") {
				t.Errorf("the second result is %+v", second)
			}
		})
	}
}

// facingOne is facing a fake that gives every append the same answer, or none.
func facingOne(t *testing.T, answer *relayv1.AppendResponse) (*node, *fake) {
	t.Helper()
	f := &fake{answer: func(int64, *relayv1.AppendRequest) (*relayv1.AppendResponse, error) { return answer, nil }}
	return facing(t, f), f
}

func TestAnAppendWhoseStreamIsCutIsUnavailableAndMayBeRepeated(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(n int64, r *relayv1.AppendRequest) (*relayv1.AppendResponse, error) {
		if n == 1 {
			return nil, status.Error(codes.Unavailable, "cut")
		}
		return ok(len(r.GetEntries())), nil
	}}
	n := facing(t, f)
	testenv.Until(t, "linked", func() bool { return n.linked("fake") })
	id, _, err := foreign(t, n, f, "x")
	if errs.CodeOf(err) != errs.CodeUnavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	testenv.Until(t, "it is answered there again", func() bool {
		_, err := n.Append(t.Context(), id, entries("x"))
		return err == nil && f.calls.Load() == 2
	})
}

func TestAnAppendThatIsNotAnsweredEndsWithItsContext(t *testing.T) {
	t.Parallel()
	n, f := facingOne(t, nil)
	testenv.Until(t, "linked", func() bool { return n.linked("fake") })
	for id := range uint64(1000) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := n.Append(ctx, id, entries("x"))
		cancel()
		if f.calls.Load() == 0 {
			continue // the node owns it
		}
		if errs.CodeOf(err) != errs.CodeUnavailable {
			t.Errorf("got %v, want unavailable", err)
		}
		return
	}
	t.Error("the fake owns nothing")
}

// An owner that hangs holds up a sender for some seconds. Then its conversations are
// appended elsewhere.
func TestAPeerThatHangsOwnsNothing(t *testing.T) {
	t.Parallel()
	noAnswer := func(int64, *relayv1.AppendRequest) (*relayv1.AppendResponse, error) { return nil, nil }
	f := &fake{mute: true, answer: noAnswer}
	n := facing(t, f)
	testenv.Until(t, "linked", func() bool { return n.linked("fake") })
	at := time.Now()
	id, _, err := foreign(t, n, f, "x")
	if errs.CodeOf(err) != errs.CodeUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("held up for %v", took)
	}
	before := n.appends()
	testenv.Until(t, "it is appended on the node itself", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, _ = n.Append(ctx, id, entries("x"))
		return n.appends() > before
	})
}

// A peer that accepts connections and sends nothing is never linked, and no sender
// waits for it.
func TestAPeerThatNeverAnswersIsNeverLinked(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := start(t, "n", "127.0.0.1:0", 1)
	n.list(&node{instance: "tcp only", address: l.Addr().String()})
	other := facing(t, &fake{silent: true})
	deadline := time.Now().Add(2500 * time.Millisecond) // beyond the first attempt
	for id := uint64(0); time.Now().Before(deadline); id++ {
		for _, n := range []*node{n, other} {
			if _, err := n.Append(t.Context(), id, entries("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n.linked("tcp only") || other.linked("fake") {
		t.Error("linked with a peer that sends nothing")
	}
	for _, n := range []*node{n, other} {
		at := time.Now()
		n.stop()
		if took := time.Since(at); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
	}
}

// A server of the release before has no index. It is sent the users of each
// delivery, and no own states.
func TestAPeerOfTheReleaseBeforeIsSentTheUsers(t *testing.T) {
	t.Parallel()
	requests := make(chan *relayv1.AppendRequest, 1000)
	f := &fake{
		answer: func(_ int64, r *relayv1.AppendRequest) (*relayv1.AppendResponse, error) {
			requests <- r
			return ok(1), nil
		},
		frames: make(chan *relayv1.DeliverRequest, 1000),
	}
	n := facing(t, f)
	testenv.Until(t, "they are linked", func() bool { return n.linked("fake") })
	id, _, err := foreign(t, n, f, "x")
	if err != nil {
		t.Fatal(err)
	}
	if r := <-requests; !slices.Equal(r.GetMemberIds(), []uint64{id, id + 1}) { // see Members of the node
		t.Errorf("conversation %d was offered with members %v", id, r.GetMemberIds())
	}
	event := &relayv1.Delivery_Event{Event: &chatv1.Event{ConversationId: 5, Seq: 1}}
	head := &relayv1.Delivery_Head{Head: &chatv1.Head{ConversationId: 6, Seq: 1}}
	ownState := &relayv1.Delivery_OwnState{OwnState: &chatv1.OwnState{ConversationId: 5, Number: 1}}
	ownHead := &relayv1.Delivery_Head{Head: &chatv1.Head{ConversationId: 5, OwnState: 1}}
	n.Send("fake",
		&relayv1.Delivery{What: ownState, UserId: 1},
		&relayv1.Delivery{What: ownHead, UserId: 1})
	n.Connected(1)
	n.Send("fake",
		&relayv1.Delivery{What: event, ExceptConnection: 7},
		&relayv1.Delivery{What: head, MembersNumber: 1})
	var got []*relayv1.Delivery
	for len(got) < 2 {
		frame := <-f.frames
		if len(frame.GetDeliveries()) > 0 && frame.GetCounter() != 1 {
			t.Errorf("the first frame with deliveries has the number %d", frame.GetCounter())
		}
		got = append(got, frame.GetDeliveries()...)
	}
	want := []*relayv1.Delivery{
		{UserIds: []uint64{5, 6}, What: event, ExceptConnection: 7},
		{UserIds: []uint64{6, 7}, What: head},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
