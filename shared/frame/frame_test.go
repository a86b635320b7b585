package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
)

func text(s string) *chatv1.ClientFrame {
	return &chatv1.ClientFrame{RequestId: 7, Body: &chatv1.ClientFrame_Send{
		Send: &chatv1.Send{ConversationId: 3, ClientMsgId: make([]byte, 16), Body: []byte(s)},
	}}
}

func TestFramesRoundTripInAnyPieces(t *testing.T) {
	want := []*chatv1.ClientFrame{text("hi"), text("你好，北京 👨‍👩‍👧"), text(strings.Repeat("x", 50_000))}
	var wire []byte
	for _, m := range want {
		var err error
		if wire, err = frame.Append(wire, m); err != nil {
			t.Fatal(err)
		}
	}
	readers := map[string]io.Reader{
		"whole": bytes.NewReader(wire), "byte by byte": iotest.OneByteReader(bytes.NewReader(wire)),
		"half reads": iotest.HalfReader(bytes.NewReader(wire)),
	}
	for name, r := range readers {
		var buf []byte
		for i := range want {
			var got chatv1.ClientFrame
			var err error
			if buf, err = frame.Read(r, 64<<10, buf, &got); err != nil {
				t.Fatalf("%s, frame %d: %v", name, i, err)
			}
			if !proto.Equal(&got, want[i]) {
				t.Errorf("%s, frame %d differs", name, i)
			}
		}
		if _, err := frame.Read(r, 64<<10, buf, &chatv1.ClientFrame{}); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last frame got %v, want io.EOF", name, err)
		}
	}
}

func TestBurstsOfAnyPieces(t *testing.T) {
	want := []*chatv1.ClientFrame{text("hi"), text(strings.Repeat("x", 50_000)), text("你好"), text("last")}
	var wire []byte
	for _, m := range want {
		var err error
		if wire, err = frame.Append(wire, m); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(wire), "byte by byte": iotest.OneByteReader(bytes.NewReader(wire)),
		"data and end at once": iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		var got []*chatv1.ClientFrame
		buf := make([]byte, 0, 64)
		for len(got) < len(want) {
			var header [frame.HeaderLen]byte
			if _, err := io.ReadFull(r, header[:]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var err error
			buf, err = frame.Burst(r, 64<<10, append(buf[:0], header[:]...), func(body []byte) error {
				m := &chatv1.ClientFrame{}
				got = append(got, m)
				return proto.Unmarshal(body, m)
			})
			if err != nil {
				t.Fatalf("%s, frame %d: %v", name, len(got), err)
			}
		}
		for i := range want {
			if !proto.Equal(got[i], want[i]) {
				t.Errorf("%s, frame %d differs", name, i)
			}
		}
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	cases := []struct {
		name string
		wire []byte
		want error
	}{
		{"empty", []byte{0, 0, 0, 0}, frame.ErrEmpty},
		{"one over the limit", []byte{0, 0, 4, 1}, frame.ErrTooLarge},
		{"most negative as signed", []byte{0x80, 0, 0, 0}, frame.ErrTooLarge},
		{"largest", []byte{0xff, 0xff, 0xff, 0xff}, frame.ErrTooLarge},
		{"header cut", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"body cut", []byte{0, 0, 0, 9, 1, 2}, io.ErrUnexpectedEOF},
		{"body missing", []byte{0, 0, 0, 9}, io.ErrUnexpectedEOF},
	}
	for _, c := range cases {
		_, err := frame.Read(bytes.NewReader(c.wire), 1024, nil, &chatv1.ClientFrame{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if len(c.wire) < frame.HeaderLen {
			continue
		}
		_, err = frame.Burst(bytes.NewReader(c.wire[frame.HeaderLen:]), 1024,
			c.wire[:frame.HeaderLen:frame.HeaderLen], func([]byte) error { return nil })
		if !errors.Is(err, c.want) {
			t.Errorf("%s in a burst: got %v, want %v", c.name, err, c.want)
		}
	}
	garbage := bytes.NewReader([]byte{0, 0, 0, 3, 0xff, 0xff, 0xff})
	if _, err := frame.Read(garbage, 1024, nil, &chatv1.ClientFrame{}); err == nil {
		t.Error("garbage was accepted")
	}
	wrong := &chatv1.ClientFrame{
		Body: &chatv1.ClientFrame_OpenDirect{OpenDirect: &chatv1.OpenDirect{PeerName: "\xff\xfe"}},
	}
	if out, err := frame.Append([]byte("kept"), wrong); err == nil || string(out) != "kept" {
		t.Errorf("invalid UTF-8: got %q, %v", out, err)
	}
}

// A peer that announces a megabyte and sends ten bytes must not cost a megabyte.
func TestAnAnnouncedLengthIsNotAllocatedAhead(t *testing.T) {
	wire := append(binary.BigEndian.AppendUint32(nil, 1<<20), make([]byte, 10)...)
	got := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		for b.Loop() {
			_, err := frame.Read(bytes.NewReader(wire), 1<<20, nil, &chatv1.ClientFrame{})
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	})
	if got.AllocedBytesPerOp() > 64<<10 {
		t.Errorf("a false announcement costs %d bytes", got.AllocedBytesPerOp())
	}
}

func FuzzRead(f *testing.F) {
	seed, err := frame.Append(nil, text("seed"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0, 0, 0, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, wire []byte) {
		const limit = 4096
		var m chatv1.ClientFrame
		r := bytes.NewReader(wire)
		var buf []byte
		for {
			var err error
			buf, err = frame.Read(r, limit, buf, &m)
			if cap(buf) > limit {
				t.Fatalf("buffer of %d bytes, limit %d", cap(buf), limit)
			}
			if err != nil {
				return
			}
			again, err := frame.Append(nil, &m)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			if _, err := frame.Read(bytes.NewReader(again), 2*limit, nil, &chatv1.ClientFrame{}); err != nil &&
				!errors.Is(err, frame.ErrEmpty) {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	m := text(strings.Repeat("x", 128))
	wire, err := frame.Append(nil, m)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(wire)))
		buf := make([]byte, 0, 1024)
		for b.Loop() {
			if _, err := frame.Append(buf, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(wire)))
		r := bytes.NewReader(wire)
		var buf []byte
		var got chatv1.ClientFrame
		for b.Loop() {
			r.Reset(wire)
			if buf, err = frame.Read(r, 64<<10, buf, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
