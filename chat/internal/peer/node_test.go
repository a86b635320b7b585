package peer_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/discovery"
	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/chat/internal/msglog"
	"github.com/msrchat/msrchat/chat/internal/peer"
)

// node is one server's Peers with a real relay port; its mutex owns what came in.
type node struct {
	*peer.Peers
	instance, address string
	missed            atomic.Int64
	calm              atomic.Bool // no conversation had a conflict
	catalog           chan []discovery.Instance
	srv               *grpc.Server
	kill              func() // ends everything at once
	stop              func() // ends Run and waits for it; the port stays open

	mu        sync.Mutex
	delivered []*relayv1.Delivery
	appended  []uint64 // conversations
	entries   []msglog.Event
	hold      chan struct{} // if set, appends do not end before it is closed
	stalled   time.Duration // the answer of the log's Stalled
}

// start starts a node at an address, "127.0.0.1:0" for any.
func start(t *testing.T, instance, at string, boot uint64) *node {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{instance: instance, address: l.Addr().String(), catalog: make(chan []discovery.Instance)}
	n.Peers = peer.New(peer.Options{
		Instance: instance,
		Boot:     boot,
		Log:      logOf{n},
		Logger:   slog.New(slog.DiscardHandler),
		Dial:     insecurely(),
		Missed:   func(string) { n.missed.Add(1) },
		Members:  func(conversation uint64) []uint64 { return []uint64{conversation, conversation + 1} },
		Deliver: func(from string, d []*relayv1.Delivery) {
			if from == "" {
				t.Error("a delivery from nobody")
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.delivered = append(n.delivered, d...)
		},
	})
	n.srv = grpc.NewServer(grpc.MaxRecvMsgSize(peer.MaxMessage))
	relayv1.RegisterRelayServiceServer(n.srv, n.Service())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = n.srv.Serve(l)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = n.Run(ctx, func(ctx context.Context, fn func([]discovery.Instance)) error {
			for {
				select {
				case c := <-n.catalog:
					fn(c)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}()
	n.stop = func() {
		cancel()
		<-ran
	}
	n.kill = func() {
		n.srv.Stop() // cuts the streams, so that nothing is sent any more
		n.stop()
		<-served
	}
	t.Cleanup(n.kill)
	return n
}

func insecurely() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
}

// logOf is the log of a node.
type logOf struct{ *node }

func (l logOf) Stalled() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stalled
}

// Conflicted is true, so that the owner is asked, unless the test wants another answer.
func (l logOf) Conflicted(uint64) bool { return !l.calm.Load() }

// stall sets how long the node's log has been working on the same entries.
func (n *node) stall(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalled = d
}

func (l logOf) Append(ctx context.Context, conversation uint64, entries []msglog.Event) ([]msglog.Result, error) {
	n := l.node
	n.mu.Lock()
	first := uint64(len(n.entries))
	n.appended = append(n.appended, conversation)
	n.entries = append(n.entries, entries...)
	hold := n.hold
	n.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	results := make([]msglog.Result, len(entries))
	for i := range results {
		results[i] = msglog.Result{Seq: first + uint64(i) + 1, CreatedAt: 7}
	}
	return results, nil
}

func (l logOf) Begin(conversation uint64, take func() []msglog.Event, ended func([]msglog.Result, error)) bool {
	go func() { ended(l.Append(context.Background(), conversation, take())) }()
	return true
}

// list puts nodes into a node's catalog.
func (n *node) list(others ...*node) {
	var all []discovery.Instance
	for _, o := range others {
		all = append(all, at(o.instance, o.address))
	}
	n.catalog <- all
}

func at(instance, address string) discovery.Instance {
	return discovery.Instance{
		ID:      instance,
		Address: "client-of-" + instance,
		Meta:    map[string]string{discovery.MetaRelay: address},
	}
}

// linked says whether a node has a link to an instance that it lists.
func (n *node) linked(instance string) bool {
	for _, e := range n.Alternates() {
		if e.GetInstance() == instance {
			return true
		}
	}
	return false
}

// pair starts two linked nodes.
func pair(t *testing.T) (a, b *node) {
	t.Helper()
	a, b = start(t, "a", "127.0.0.1:0", 1), start(t, "b", "127.0.0.1:0", 2)
	a.list(a, b)
	b.list(a, b)
	testenv.Until(t, "both link", func() bool { return a.linked("b") && b.linked("a") })
	return a, b
}

func (n *node) got() []*relayv1.Delivery {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*relayv1.Delivery(nil), n.delivered...)
}

func (n *node) appends() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.appended)
}

func event(seq uint64) *relayv1.Delivery {
	return &relayv1.Delivery{What: &relayv1.Delivery_Event{Event: &chatv1.Event{
		ConversationId: 1, Seq: max(seq, 1), SenderId: 1, ClientMsgId: make([]byte, 16), Kind: 1, Body: []byte("x"),
	}}}
}

func entries(texts ...string) []msglog.Event {
	out := make([]msglog.Event, len(texts))
	for i, s := range texts {
		out[i] = msglog.Event{Sender: 1, ID: [16]byte{byte(i + 1)}, Kind: 1, Body: []byte(s)}
	}
	return out
}
