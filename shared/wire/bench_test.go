package wire_test

import (
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/wire"
)

// letIn accepts connections; each gets what is given behind Welcome, and then
// whatever follow writes.
func letIn(b *testing.B, behind []byte, follow func(nc net.Conn)) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			b.Cleanup(func() { _ = nc.Close() })
			go func() {
				if _, err := frame.Read(nc, 1<<20, nil, &chatv1.ClientFrame{}); err != nil {
					return
				}
				if _, err := nc.Write(append(encode(welcome(time.Minute)), behind...)); err == nil {
					follow(nc)
				}
			}()
		}
	}()
	return l.Addr().String()
}

type counter struct {
	frames int
	wanted int
	done   chan struct{}
}

func (c *counter) Frame(*chatv1.ServerFrame) {
	if c.frames++; c.frames == c.wanted {
		close(c.done)
	}
}
func (*counter) Drained() {}

func inUse() uint64 {
	runtime.GC()
	runtime.GC() // the second empties what pools kept, and shrinks stacks
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// BenchmarkIdle shows what a connection costs that got the heads of 50
// conversations and then nothing more. The server's side costs nothing here.
func BenchmarkIdle(b *testing.B) {
	heads := &chatv1.Heads{}
	for i := range uint64(50) {
		heads.Heads = append(heads.Heads, &chatv1.Head{ConversationId: 1<<40 + i, Seq: 1000 + i})
	}
	keeper := wire.NewKeeper()
	b.Cleanup(keeper.Close)
	d := &wire.Dialer{Keeper: keeper}
	address := letIn(b, encode(&chatv1.ServerFrame{Body: &chatv1.ServerFrame_Heads{Heads: heads}}), func(net.Conn) {})
	const conns = 2000
	before := inUse()
	for range b.N {
		var serving sync.WaitGroup
		var open []*wire.Conn
		counters := make([]*counter, conns)
		for i := range counters {
			c, _, err := d.Dial(b.Context(), &chatv1.Endpoint{Address: address}, login)
			if err != nil {
				b.Fatal(err)
			}
			counters[i] = &counter{wanted: 1, done: make(chan struct{})}
			open = append(open, c)
			serving.Go(func() { _ = c.Serve(counters[i]) })
		}
		for _, c := range counters {
			<-c.done
		}
		b.ReportMetric(float64(inUse()-before)/conns, "B/conn")
		for _, c := range open {
			c.Close()
		}
		serving.Wait()
	}
}

// BenchmarkServe shows what a pushed event costs its reader, ten in a burst.
func BenchmarkServe(b *testing.B) {
	const burst = 10
	one := encode(event(1, "the quick brown fox jumps over the lazy dog"))
	var many []byte
	for range burst {
		many = append(many, one...)
	}
	start := make(chan struct{})
	address := letIn(b, nil, func(nc net.Conn) {
		<-start
		for range b.N/burst + 1 {
			if _, err := nc.Write(many); err != nil {
				return
			}
		}
	})
	c, _, err := new(wire.Dialer).Dial(b.Context(), &chatv1.Endpoint{Address: address}, login)
	if err != nil {
		b.Fatal(err)
	}
	got := &counter{wanted: b.N, done: make(chan struct{})}
	go func() { _ = c.Serve(got) }()
	b.ReportAllocs()
	b.ResetTimer()
	close(start)
	<-got.done
	b.StopTimer()
	c.Close()
}
