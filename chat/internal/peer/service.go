package peer

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/msrchat/msrchat/chat/internal/msglog"
	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

// MaxMessage bounds a gRPC message between servers: a frame of the longest
// deliveries, with room.
const MaxMessage = 16 << 20

// Bounds on what one request of a peer may hold.
const (
	maxEntries = 1024
	// maxAppends requests of one stream are worked on at once, and of all streams
	// maxOffered bytes; beyond it a stream is not read, which holds up its peer
	// only.
	maxAppends = 1024
	maxOffered = 64 << 20
)

// ear is what was heard from one peer. The mutex of Peers owns it. It stays
// while the peer is known or talks to us.
type ear struct {
	boot    uint64
	counter uint64
	stream  uint64 // the newest stream; an older one's end means nothing
	open    int    // streams that have not ended
	// farewell: the newest stream ended with the peer taking leave.
	farewell bool
}

// addressee names, in a stream's metadata, who is meant: behind an address that
// was used again stands another server, whose count of our frames must not be
// disturbed.
const addressee = "msrchat-to"

// meant says whether a stream is for this server.
func (p *Peers) meant(ctx context.Context) bool {
	to := metadata.ValueFromIncomingContext(ctx, addressee)
	return len(to) == 0 || to[0] == p.opts.Instance
}

// Service is the side of Peers that serves the others.
type Service struct {
	relayv1.UnimplementedRelayServiceServer
	peers *Peers
}

// Service returns what to register with a gRPC server.
func (p *Peers) Service() *Service { return &Service{peers: p} }

// Deliver takes a peer's frames. It ends when the peer is silent, so that a
// peer that hangs is noticed as one that died is.
func (s *Service) Deliver(stream relayv1.RelayService_DeliverServer) error {
	p := s.peers
	if !p.meant(stream.Context()) {
		return status.Errorf(codes.FailedPrecondition, "this is %s", p.opts.Instance)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	frames := make(chan *relayv1.DeliverRequest)
	var ended error // of Recv, before frames is closed
	go func() {
		defer close(frames)
		for {
			f, err := stream.Recv()
			if err != nil {
				ended = err
				return
			}
			select {
			case frames <- f:
			case <-ctx.Done():
				return
			}
		}
	}()
	ticker := time.NewTicker(signOfLife)
	defer ticker.Stop()
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	var from string
	var number uint64
	draining, farewell := false, false
	defer func() {
		if from != "" {
			p.finish(from, number, farewell)
		}
	}()
	left := p.left
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				// A peer that leaves sends what it has, then closes its side. One that
				// dies while it leaves does not.
				farewell = draining && errors.Is(ended, io.EOF)
				return nil
			}
			if f.GetInstance() == "" || from != "" && f.GetInstance() != from {
				return status.Error(codes.InvalidArgument, "a frame must name its sender")
			}
			quiet.Reset(silence)
			if from == "" {
				from = f.GetInstance()
				number = p.begin(f)
				if err := s.sign(stream); err != nil {
					return err
				}
			}
			draining = f.GetDraining()
			p.hear(f)
		case <-left: // tell at once, so that the peer offers its messages elsewhere
			left = nil
			if from == "" {
				continue // the answer to its first frame will say it
			}
			if err := s.sign(stream); err != nil {
				return err
			}
		case <-ticker.C:
			if err := s.sign(stream); err != nil {
				return err
			}
		case <-quiet.C:
			return status.Error(codes.DeadlineExceeded, "no sign of life")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func (s *Service) sign(stream relayv1.RelayService_DeliverServer) error {
	p := s.peers
	return stream.Send(&relayv1.DeliverResponse{
		Instance: p.opts.Instance, BootId: p.opts.Boot, Draining: p.isDraining(), Stuck: p.stuck(), Revision: Revision,
	})
}

// begin notes a new stream of a peer and numbers it.
func (p *Peers) begin(f *relayv1.DeliverRequest) uint64 {
	p.mu.Lock()
	e := p.heard[f.GetInstance()]
	if e == nil {
		e = &ear{boot: f.GetBootId()}
		p.heard[f.GetInstance()] = e
	}
	gap := false
	if e.boot != f.GetBootId() {
		// A process that counts from the start has sent us nothing yet. What an
		// earlier process under this name left behind is noticed at the end of its
		// stream, unless that comes after this beginning.
		gap = e.open > 0
		e.boot, e.counter = f.GetBootId(), 0
	}
	e.stream++
	e.open++
	e.farewell = false
	number := e.stream
	p.mu.Unlock()
	if gap {
		p.missed(f.GetInstance())
	}
	return number
}

// missed is for what may never come.
func (p *Peers) missed(instance string) {
	p.metrics.gaps.Inc()
	p.opts.Missed(instance)
}

// hear checks the counter and hands on what came.
func (p *Peers) hear(f *relayv1.DeliverRequest) {
	expected := uint64(0)
	if len(f.GetDeliveries()) > 0 {
		expected = 1
	}
	p.mu.Lock()
	e := p.heard[f.GetInstance()]
	// A frame of an earlier process, read late, must not disturb the count.
	gap := f.GetBootId() == e.boot && f.GetCounter() != e.counter+expected
	if f.GetBootId() == e.boot {
		e.counter = f.GetCounter()
	}
	p.mu.Unlock()
	if gap {
		p.missed(f.GetInstance())
	}
	if len(f.GetDeliveries()) > 0 {
		p.opts.Deliver(f.GetDeliveries())
	}
}

// finish is called when a stream ended. Where the peer did not take leave, what
// it had committed and not yet sent may never come.
func (p *Peers) finish(instance string, number uint64, farewell bool) {
	p.mu.Lock()
	e := p.heard[instance]
	e.open--
	newest := e.stream == number
	e.farewell = farewell && newest
	if p.links[instance] == nil {
		p.forget(instance)
	}
	p.mu.Unlock()
	if newest && !farewell {
		p.missed(instance)
	}
}

// forget drops what was heard from a peer that no longer talks. It needs the
// lock.
func (p *Peers) forget(instance string) {
	if e := p.heard[instance]; e != nil && e.open == 0 {
		delete(p.heard, instance)
	}
}

// Append appends what a peer sends. Requests are worked on at once, since each
// conversation has only one under way at each peer. A request that makes no
// sense is answered as such: an end of the stream would have the peer offer it
// again, for ever.
func (s *Service) Append(stream relayv1.RelayService_AppendServer) error {
	var sending sync.Mutex
	answer := func(response *relayv1.AppendResponse) {
		sending.Lock()
		defer sending.Unlock()
		_ = stream.Send(response) // a broken stream ends in Recv
	}
	var working sync.WaitGroup
	defer working.Wait()
	places := make(chan struct{}, maxAppends)
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil // the peer closed, or broke off: it offers again what is open
		}
		if err := check(request); err != nil {
			s.peers.opts.Logger.Warn("append refused", "conversation", request.GetConversationId(), "err", err)
			answer(refusal(request, err))
			continue
		}
		size := requestSize(request)
		if err := s.peers.room.Acquire(stream.Context(), size); err != nil {
			return status.FromContextError(err).Err()
		}
		select {
		case places <- struct{}{}:
		case <-stream.Context().Done():
			s.peers.room.Release(size)
			return status.FromContextError(stream.Context().Err()).Err()
		}
		working.Go(func() {
			defer func() {
				<-places
				s.peers.room.Release(size)
			}()
			answer(s.answer(stream.Context(), request))
		})
	}
}

// check says what is wrong with a request, nil if nothing is.
func check(r *relayv1.AppendRequest) *errs.Error {
	if n := len(r.GetEntries()); n == 0 || n > maxEntries {
		return errs.New(errs.CodeInvalid, "an append of that size is not allowed")
	}
	for _, e := range r.GetEntries() {
		if len(e.GetClientMsgId()) != 16 || e.GetSenderId() == 0 || e.GetKind() > math.MaxUint8 {
			return errs.New(errs.CodeInvalid, "an entry without sender or message id, or of an impossible kind")
		}
	}
	return nil
}

// requestSize is about what a request takes, in bytes.
func requestSize(r *relayv1.AppendRequest) int64 {
	const each = 128
	n := 0
	for _, e := range r.GetEntries() {
		n += each + len(e.GetBody())
	}
	return int64(n)
}

func refusal(request *relayv1.AppendRequest, e *errs.Error) *relayv1.AppendResponse {
	return &relayv1.AppendResponse{RequestId: request.GetRequestId(), ErrorCode: string(e.Code), ErrorText: e.Message}
}

var errLeaving = errs.New(errs.CodeUnavailable, "the server is stopping")

// answer appends what a peer sent, unless the server stops.
func (s *Service) answer(ctx context.Context, request *relayv1.AppendRequest) *relayv1.AppendResponse {
	if !s.peers.offered.enter() {
		return refusal(request, errLeaving)
	}
	defer s.peers.offered.leave()
	return s.append(ctx, request)
}

func (s *Service) append(ctx context.Context, request *relayv1.AppendRequest) *relayv1.AppendResponse {
	events := make([]msglog.Event, len(request.GetEntries()))
	for i, e := range request.GetEntries() {
		events[i] = msglog.Event{
			Conversation: request.GetConversationId(), Sender: e.GetSenderId(), Kind: uint8(e.GetKind()), Body: e.GetBody(),
			Connection: e.GetConnection(), Uncounted: e.GetUncounted(),
		}
		copy(events[i].ID[:], e.GetClientMsgId())
	}
	results, err := s.peers.opts.Log.Append(ctx, request.GetConversationId(), events)
	if err != nil {
		return refusal(request, errs.From(err))
	}
	response := &relayv1.AppendResponse{RequestId: request.GetRequestId(), Results: make([]*relayv1.Appended, len(results))}
	for i, r := range results {
		a := &relayv1.Appended{Seq: r.Seq, Ordinal: r.Ordinal, CreatedAtMs: r.CreatedAt, Existing: r.Existing}
		if r.Err != nil {
			e := errs.From(r.Err)
			a.ErrorCode, a.ErrorText = string(e.Code), e.Message
		}
		response.Results[i] = a
	}
	return response
}
