package load

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/retry"
	"github.com/msrchat/msrchat/shared/wire"

	"github.com/msrchat/msrchat/bench/failure"
	"github.com/msrchat/msrchat/bench/latency"
)

// dialers is how many clients connect at once: more would only wait for the
// servers.
const dialers = 64

func newRunner(cfg Config, side Side, hooks Hooks) *runner {
	const sentence = "the quick brown fox jumps over the lazy dog. "
	r := &runner{
		cfg: cfg, side: side, hooks: hooks, texts: []byte(strings.Repeat(sentence, cfg.MaxSize/len(sentence)+1)),
		ack: latency.NewRecorder(), delivery: latency.NewRecorder(), errors: make(map[string]int64), start: time.Now(),
	}
	var nonce [4]byte
	_, _ = rand.Read(nonce[:]) // never fails: the program would end
	r.nonce = binary.BigEndian.Uint32(nonce[:])
	window := cfg.Window
	if cfg.Rate > 0 {
		window = maxOutstanding
	}
	r.pairs = make([]*pair, cfg.Clients/2)
	for i := range r.pairs {
		r.pairs[i] = newPair(r, i, window)
	}
	return r
}

// connect connects everybody in a random order, so that servers which are assigned
// in turn do not get all senders, and begins the conversations.
func (r *runner) connect(ctx context.Context) ([]*wire.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]*wire.Conn, r.cfg.Clients)
	todo := make(chan int, r.cfg.Clients)
	for _, i := range mathrand.Perm(r.cfg.Clients) {
		todo <- i
	}
	close(todo)
	var working sync.WaitGroup
	for range min(dialers, r.cfg.Clients) {
		working.Go(func() {
			for i := range todo {
				c, err := r.side.Connect(ctx, i)
				if err == nil {
					conns[i] = c
					if i%2 == 0 {
						err = r.pairs[i/2].open(ctx, c, r.side.Name(i+1))
					}
				}
				if err != nil {
					cancel(fmt.Errorf("client %d: %w", i, err))
					return
				}
				r.connected.Add(1)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		working.Wait()
	}()
	r.watch(done)
	if err := context.Cause(ctx); err != nil {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
		return nil, err
	}
	return conns, nil
}

// watch shows progress until done is closed.
func (r *runner) watch(done <-chan struct{}) {
	started := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			r.progress("connecting", time.Since(started), 0)
		}
	}
}

// backoff is between attempts to reconnect.
var backoff = retry.Policy{Min: 250 * time.Millisecond, Max: 5 * time.Second}

// stable is how long a connection must last for the waits to begin anew.
const stable = 5 * time.Second

// attend serves the i-th client's connection, and reconnects when it was lost,
// until ctx ends or the server says that coming back cannot help.
func (r *runner) attend(ctx context.Context, i int, c *wire.Conn) {
	p := r.pairs[i/2]
	for failures := 1; ; failures++ {
		started := time.Now()
		stop := context.AfterFunc(ctx, c.Close)
		h := p.join(i%2 == 0, c)
		p.pump()
		err := c.Serve(h)
		stop()
		p.leave(i%2 == 0, c)
		if ctx.Err() != nil {
			return
		}
		r.connected.Add(-1)
		r.failed(failure.Kind(err))
		if time.Since(started) > stable {
			failures = 1
		}
		if c = r.reconnect(ctx, i, &failures, err); c == nil {
			return
		}
		r.connected.Add(1)
	}
}

// reconnect waits and connects, as often as needed, and counts the failures. The
// last one was cause. nil means that ctx ended, or that coming back cannot help.
func (r *runner) reconnect(ctx context.Context, i int, failures *int, cause error) *wire.Conn {
	for ; ; *failures++ {
		wait := backoff.After(*failures)
		var bye *wire.GoodbyeError
		if errors.As(cause, &bye) {
			if !bye.Reconnect() {
				return nil
			}
			wait = max(wait, retry.Asked(bye.After()))
		}
		if !retry.Sleep(ctx, wait) {
			return nil
		}
		c, err := r.side.Connect(ctx, i)
		if err == nil {
			return c
		}
		if ctx.Err() == nil {
			r.failed("connect: " + failure.Kind(err))
		}
		cause = err
	}
}

// open begins the pair's conversation.
func (p *pair) open(ctx context.Context, c *wire.Conn, peer string) error {
	f, err := c.Call(ctx, &chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: peer},
	}})
	if err != nil {
		return fmt.Errorf("begin to talk with %s: %w", peer, err)
	}
	conversation := f.GetConversation()
	if conversation.GetId() == 0 {
		return fmt.Errorf("begin to talk with %s: the server answered without a conversation", peer)
	}
	p.conversation, p.seen = conversation.GetId(), conversation.GetHead()
	return nil
}
