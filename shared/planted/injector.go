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

// injector drops, doubles and reorders frames between chat servers on their way
// into gRPC, whose transport itself neither loses nor reorders. While its file
// holds one of the words drop, double or reorder, that happens to one frame in
// three. Appends, whose senders wait for an answer, are only doubled.
type injector struct {
	file string

	mu   sync.Mutex // owns the fields below
	mode string
	read time.Time
}

// rereadAfter is how soon a change of the file is noticed.
const rereadAfter = 50 * time.Millisecond

func (i *injector) current() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if time.Since(i.read) > rereadAfter {
		text, _ := os.ReadFile(i.file) // no file, no faults
		i.mode, i.read = strings.TrimSpace(string(text)), time.Now()
	}
	return i.mode
}

func (i *injector) intercept(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, cc, method, opts...)
	switch {
	case err != nil:
		return nil, err
	case strings.HasSuffix(method, "RelayService/Deliver"):
		return &faultyStream{ClientStream: stream, from: i, deliveries: true}, nil
	case strings.HasSuffix(method, "RelayService/Append"):
		return &faultyStream{ClientStream: stream, from: i}, nil
	}
	return stream, nil // the reports to status stay as they are
}

// faultyStream is a stream with a faulty sender. SendMsg is called by one
// goroutine at a time, as gRPC demands, which owns held.
type faultyStream struct {
	grpc.ClientStream
	from       *injector
	deliveries bool
	held       any
}

// SendMsg sends a frame, or drops it, sends it twice, or after the next one.
func (s *faultyStream) SendMsg(m any) error {
	mode := s.from.current()
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

// CloseSend first sends what is held back.
func (s *faultyStream) CloseSend() error {
	if s.held != nil {
		_ = s.ClientStream.SendMsg(s.held) // an error shows at the stream's end
	}
	return s.ClientStream.CloseSend()
}
