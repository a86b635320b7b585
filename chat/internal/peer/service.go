package peer

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	relayv1 "github.com/msrchat/msrchat/proto/msrchat/relay/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/msglog"
)

// MaxMessage bounds a gRPC message between servers: a frame of the longest
// deliveries, with room.
const MaxMessage = 16 << 20

// Bounds on what one request of a peer may hold.
const (
	maxEntries = 1024
	maxMembers = 100_000
	// maxAppends requests of one stream are worked on at once; beyond it the
	// stream is not read, which holds up that peer only.
	maxAppends = 1024
)

// ear is what was heard from one peer. The mutex of Peers owns it.
type ear struct {
	boot    uint64
	counter uint64
	stream  uint64 // the newest stream; an older one's end means nothing
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
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	frames := make(chan *relayv1.DeliverRequest)
	go func() {
		defer close(frames)
		for {
			f, err := stream.Recv()
			if err != nil {
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
	draining := false
	defer func() {
		if from != "" && !draining {
			p.lost(from, number)
		}
	}()
	for {
		select {
		case f, ok := <-frames:
			if !ok {
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
	return stream.Send(&relayv1.DeliverResponse{Instance: p.opts.Instance, BootId: p.opts.Boot, Draining: p.isDraining()})
}

// begin notes a new stream of a peer and numbers it.
func (p *Peers) begin(f *relayv1.DeliverRequest) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.heard[f.GetInstance()]
	if e == nil || e.boot != f.GetBootId() {
		// A process that counts from the start has sent us nothing yet. What an
		// earlier process under this name left behind was noticed at its end.
		e = &ear{boot: f.GetBootId(), stream: streamOf(e)}
		p.heard[f.GetInstance()] = e
	}
	e.stream++
	return e.stream
}

func streamOf(e *ear) uint64 {
	if e == nil {
		return 0
	}
	return e.stream
}

// hear checks the counter and hands on what came.
func (p *Peers) hear(f *relayv1.DeliverRequest) {
	expected := uint64(0)
	if len(f.GetDeliveries()) > 0 {
		expected = 1
	}
	p.mu.Lock()
	e := p.heard[f.GetInstance()]
	gap := e == nil || f.GetCounter() != e.counter+expected
	if e != nil {
		e.counter = f.GetCounter()
	}
	p.mu.Unlock()
	if gap {
		p.metrics.gaps.Inc()
		p.opts.Missed(f.GetInstance())
	}
	if len(f.GetDeliveries()) > 0 {
		p.opts.Deliver(f.GetDeliveries())
	}
}

// lost is called when a stream ended that the peer did not take leave on. What
// it had committed and not yet sent may never come.
func (p *Peers) lost(instance string, number uint64) {
	p.mu.RLock()
	e := p.heard[instance]
	newest := e == nil || e.stream == number
	p.mu.RUnlock()
	if newest {
		p.opts.Missed(instance)
	}
}

// Append appends what a peer sends. Requests are worked on at once, since each
// conversation has only one under way at each peer.
func (s *Service) Append(stream relayv1.RelayService_AppendServer) error {
	var sending sync.Mutex
	var working sync.WaitGroup
	defer working.Wait()
	places := make(chan struct{}, maxAppends)
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil // the peer closed, or broke off: it offers again what is open
		}
		if err := check(request); err != nil {
			return err
		}
		select {
		case places <- struct{}{}:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
		working.Go(func() {
			defer func() { <-places }()
			response := s.append(stream.Context(), request)
			sending.Lock()
			defer sending.Unlock()
			_ = stream.Send(response) // a broken stream ends in Recv
		})
	}
}

func check(r *relayv1.AppendRequest) error {
	if n := len(r.GetEntries()); n == 0 || n > maxEntries || len(r.GetMemberIds()) > maxMembers {
		return status.Error(codes.InvalidArgument, "an append of that size is not allowed")
	}
	for _, e := range r.GetEntries() {
		if len(e.GetClientMsgId()) != 16 || e.GetSenderId() == 0 {
			return status.Error(codes.InvalidArgument, "an entry without sender or message id")
		}
	}
	return nil
}

func (s *Service) append(ctx context.Context, request *relayv1.AppendRequest) *relayv1.AppendResponse {
	entries := make([]msglog.Entry, len(request.GetEntries()))
	for i, e := range request.GetEntries() {
		entries[i] = msglog.Entry{SenderID: e.GetSenderId(), Kind: uint8(e.GetKind()), Body: e.GetBody()}
		copy(entries[i].ClientMsgID[:], e.GetClientMsgId())
	}
	response := &relayv1.AppendResponse{RequestId: request.GetRequestId()}
	results, err := s.peers.opts.Log.Append(ctx, request.GetConversationId(), request.GetMemberIds(), entries)
	if err != nil {
		e := errs.From(err)
		response.ErrorCode, response.ErrorText = string(e.Code), e.Message
		return response
	}
	response.Results = make([]*relayv1.Appended, len(results))
	for i, r := range results {
		a := &relayv1.Appended{Seq: r.Seq, CreatedAtMs: r.CreatedAt, Existing: r.Existing}
		if r.Err != nil {
			e := errs.From(r.Err)
			a.ErrorCode, a.ErrorText = string(e.Code), e.Message
		}
		response.Results[i] = a
	}
	return response
}
