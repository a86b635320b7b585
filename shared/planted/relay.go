//go:build planted

package planted

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// relay spoils frames between chat servers on their way into gRPC, whose
// transport itself neither loses nor reorders. While its file holds one of the
// words drop, double or reorder, that happens to one frame in three. Of the
// appends, whose answers are waited for, none is dropped or held back.
type relay struct {
	file string

	mu   sync.Mutex // owns the fields below
	mode string
	read time.Time
}

// rereadAfter is how soon a change of the file is noticed.
const rereadAfter = 50 * time.Millisecond

func (r *relay) current() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.read) > rereadAfter {
		text, _ := os.ReadFile(r.file) // no file, no faults
		r.mode, r.read = strings.TrimSpace(string(text)), time.Now()
	}
	return r.mode
}

func (r *relay) intercept(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, cc, method, opts...)
	switch {
	case err != nil:
		return nil, err
	case strings.HasSuffix(method, "RelayService/Deliver"):
		return &spoiled{ClientStream: stream, relay: r, deliveries: true}, nil
	case strings.HasSuffix(method, "RelayService/Append"):
		return &spoiled{ClientStream: stream, relay: r}, nil
	}
	return stream, nil // the reports to status are none of ours
}

// spoiled is a stream with a bad sender. SendMsg is called by one goroutine at
// a time, as gRPC demands, which owns held.
type spoiled struct {
	grpc.ClientStream
	relay      *relay
	deliveries bool
	held       any
}

// SendMsg sends a frame, or does not, or does so twice, or after the next one.
func (s *spoiled) SendMsg(m any) error {
	mode := s.relay.current()
	if held := s.held; held != nil {
		s.held = nil
		if err := s.ClientStream.SendMsg(m); err != nil {
			return err
		}
		return s.ClientStream.SendMsg(held)
	}
	if rand.IntN(3) == 0 {
		switch {
		case mode == "drop" && s.deliveries:
			return nil
		case mode == "reorder" && s.deliveries:
			s.held = m
			return nil
		case mode == "double":
			if err := s.ClientStream.SendMsg(m); err != nil {
				return err
			}
		}
	}
	return s.ClientStream.SendMsg(m)
}

// CloseSend gives out what is held first.
func (s *spoiled) CloseSend() error {
	if s.held != nil {
		_ = s.ClientStream.SendMsg(s.held) // the stream's end tells what went wrong
	}
	return s.ClientStream.CloseSend()
}
