//go:build planted

package planted

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
)

// recorder is a stream that remembers what was sent.
type recorder struct {
	grpc.ClientStream
	sent []int
}

func (r *recorder) SendMsg(m any) error {
	r.sent = append(r.sent, m.(int))
	return nil
}

func (r *recorder) CloseSend() error { return nil }

// Each word does to deliveries what it says, and appends are only doubled.
func TestRelayFaults(t *testing.T) {
	const frames = 300 // so many that one in three is certain to be hit
	straight := make([]int, frames)
	for i := range straight {
		straight[i] = i
	}
	for _, c := range []struct {
		mode       string
		deliveries bool
		changed    bool // other than straight
		whole      bool // everything arrived
		sorted     bool
	}{
		{"", true, false, true, true},
		{"drop", true, true, false, true},
		{"double", true, true, true, true},
		{"reorder", true, true, true, false},
		{"drop", false, false, true, true},
		{"double", false, true, true, true},
		{"reorder", false, false, true, true},
	} {
		file := filepath.Join(t.TempDir(), "faults")
		if err := os.WriteFile(file, []byte(c.mode+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		to := &recorder{}
		s := &faultyStream{ClientStream: to, from: &injector{file: file}, deliveries: c.deliveries}
		for _, i := range straight {
			if err := s.SendMsg(i); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		got := to.sent
		whole := slices.Sorted(slices.Values(got))
		whole = slices.Compact(whole)
		if slices.Equal(got, straight) == c.changed || slices.Equal(whole, straight) != c.whole ||
			slices.IsSorted(got) != c.sorted {
			t.Errorf("%q, deliveries %v: %d frames of %d came: %v", c.mode, c.deliveries, len(got), frames, got)
		}
	}
}
