package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

func (w *worker) filler(v values, hostile float64) *filler {
	return &filler{values: v, world: w.run.world, self: v.IntN(people), hostile: hostile}
}

// chatAt is any chat server.
func chatAt(v values) string { return fmt.Sprint("chat ", v.IntN(8)) }

// anyRequest is a field of ClientFrame that is a request, Hello seldom.
func anyRequest(v values) protoreflect.FieldDescriptor {
	fields := bodies.Fields()
	for {
		if field := fields.Get(v.IntN(fields.Len())); field.Name() != "hello" || v.chance(0.01) {
			return field
		}
	}
}

// requests makes many of one person, and waits for their answers.
func requests(ctx context.Context, w *worker, p *player, v values) {
	f := w.filler(v, pick(v, []float64{0, 0.1, 0.1, 0.5}))
	p.do(ctx, Step{At: chatAt(v), Do: doOpen})
	p.do(ctx, Step{Do: doWrite, Pieces: [][]byte{f.hello(1)}})
	id := uint64(1)
	for range 1 + v.IntN(4) {
		if ctx.Err() != nil {
			return
		}
		var together [][]byte
		for range 1 + v.IntN(20) {
			id++
			if v.chance(0.02) {
				id = v.number() | 1
			}
			together = append(together, f.request(anyRequest(v), id))
		}
		p.do(ctx, Step{Do: doWrite, Pieces: [][]byte{bytes.Join(together, nil)}})
		if v.chance(0.7) {
			p.do(ctx, Step{Do: doAwait})
		}
	}
	finish(ctx, p, v, 0)
}

// finish waits for what is unanswered, or goes away without, as clients do.
func finish(ctx context.Context, p *player, v values, conn int) {
	switch {
	case v.chance(0.8):
		p.do(ctx, Step{Conn: conn, Do: doAwait})
		if v.chance(0.3) {
			p.do(ctx, Step{Conn: conn, Do: doShut})
		}
	case v.chance(0.5):
		p.do(ctx, Step{Conn: conn, Do: doShut})
	}
	p.do(ctx, Step{Conn: conn, Do: doClose})
}

// devices are connections of one person, who changes the same at all of them.
func devices(ctx context.Context, w *worker, p *player, v values) {
	f := w.filler(v, pick(v, []float64{0, 0.2}))
	n := 2 + v.IntN(4)
	for i := range n {
		p.do(ctx, Step{At: chatAt(v), Conn: i, Do: doOpen})
		p.do(ctx, Step{Conn: i, Do: doWrite, Pieces: [][]byte{f.hello(1)}})
	}
	for round := range 1 + v.IntN(6) {
		for i := range n {
			p.do(ctx, Step{Conn: i, Do: doWrite, Pieces: [][]byte{f.request(anyRequest(v), uint64(round)+2)}})
		}
	}
	for i := range n {
		finish(ctx, p, v, i)
	}
}

// almostFrames spoils frames, and their order.
func almostFrames(ctx context.Context, w *worker, p *player, v values) {
	f := w.filler(v, 0.2)
	p.do(ctx, Step{At: chatAt(v), Do: doOpen})
	write := func(pieces ...[]byte) { p.do(ctx, Step{Do: doWrite, Pieces: pieces}) }
	header := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	introduced := v.chance(0.7)
	if introduced {
		write(f.hello(1))
	}
	request := f.request(anyRequest(v), 2)
	switch v.IntN(14) {
	case 0:
		write(v.bytes())
	case 1:
		write(header(0))
	case 2:
		write(header(maxClientFrame+1+uint32(v.number())), v.bytes())
	case 3:
		write(append(header(maxClientFrame), make([]byte, maxClientFrame)...))
	case 4:
		write(f.hello(v.number()), request)
	case 5:
		write(f.request(bodies.Fields().ByName("hello"), 3), request)
	case 6:
		write(f.encode(&chatv1.ClientFrame{RequestId: v.number()}), request)
	case 7:
		write(f.request(anyRequest(v), 0))
	case 8: // cut
		write(request[:v.IntN(len(request)+1)])
	case 9: // byte by byte
		p.do(ctx, Step{
			Do: doWrite, Pieces: pieces(v, request, 60),
			Pause: time.Duration(v.IntN(20)) * time.Millisecond,
		})
	case 10:
		write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	case 11: // the same id for all
		var all [][]byte
		for range v.IntN(300) {
			all = append(all, f.request(anyRequest(v), 7))
		}
		write(bytes.Join(all, nil))
	default:
		for range 1 + v.IntN(3) {
			if body := request[min(4, len(request)):]; len(body) < 40_000 {
				write(framed(f.strange(body)))
			}
			request = f.request(anyRequest(v), 2+v.Uint64N(9))
		}
	}
	finish(ctx, p, v, 0)
}

// seen has a newcomer open a conversation with somebody, who looks at it.
func seen(ctx context.Context, w *worker, p *player, v values, made *person) {
	other := v.IntN(people)
	f := &filler{values: v, world: &world{
		people: []*person{made}, conversations: map[[2]int]uint64{{0, 0}: 1}, members: map[uint64][2]int{1: {0, 0}},
	}}
	p.do(ctx, Step{At: chatAt(v), Do: doOpen})
	p.do(ctx, Step{Do: doWrite, Pieces: [][]byte{f.hello(1), f.encode(&chatv1.ClientFrame{
		RequestId: 2, Body: &chatv1.ClientFrame_OpenDirect{OpenDirect: &chatv1.OpenDirect{
			PeerName: w.run.world.people[other].name,
		}},
	})}})
	p.do(ctx, Step{Do: doAwait})
	g := w.filler(v, 0)
	g.self = other
	p.do(ctx, Step{At: chatAt(v), Conn: 1, Do: doOpen})
	p.do(ctx, Step{Conn: 1, Do: doWrite, Pieces: [][]byte{g.hello(1), g.encode(&chatv1.ClientFrame{
		RequestId: 2, Body: &chatv1.ClientFrame_OpenDirect{OpenDirect: &chatv1.OpenDirect{PeerName: made.name}},
	}), g.encode(&chatv1.ClientFrame{
		RequestId: 3, Body: &chatv1.ClientFrame_ListConversations{ListConversations: &chatv1.ListConversations{
			AfterId: w.run.world.last(),
		}},
	})}})
	p.do(ctx, Step{Conn: 1, Do: doAwait})
	p.do(ctx, Step{Do: doClose})
	p.do(ctx, Step{Conn: 1, Do: doClose})
}
