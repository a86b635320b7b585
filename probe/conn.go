package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/wire"
)

const (
	// dialTimeout bounds connecting, logging in included.
	dialTimeout = 5 * time.Second
	// answerTimeout is a little more than a chat server takes for a request.
	answerTimeout = 20 * time.Second
	// historyPage is how many events are asked for at once.
	historyPage = 200
)

// errEnded: the connection ended before the answer came, so the outcome is
// unknown.
var errEnded = errors.New("the connection ended")

// conn is one account's connection to one chat server. It ends by itself or by
// close. Its methods may be called from any goroutine.
type conn struct {
	probe  *Probe
	user   uint64
	server server
	epoch  uint64 // of the log
	wire   *wire.Conn
	done   chan struct{} // closed when serve has ended

	mu      sync.Mutex // owns the fields below
	lastID  uint64     // of a request; Hello had 1
	answers map[uint64]chan *chatv1.ServerFrame
	err     error // why it ended
}

// dial logs an account in to a server.
func (p *Probe) dial(ctx context.Context, to server, who *account) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	w, welcome, err := p.dialer.Dial(ctx, to.endpoint(), wire.Login{Token: who.token, Program: "msrchat-probe"})
	if err != nil {
		return nil, fmt.Errorf("chat server %s: %w", to, err)
	}
	c := &conn{
		probe: p, user: who.id, server: to, epoch: welcome.GetLogEpoch(), wire: w,
		done: make(chan struct{}), lastID: 1, answers: map[uint64]chan *chatv1.ServerFrame{},
	}
	go c.serve()
	return c, nil
}

// serve handles what arrives until the connection ends.
func (c *conn) serve() {
	defer close(c.done)
	c.end(c.wire.Serve(c))
	c.probe.tracker.disconnected(c)
}

// Frame makes conn the handler of its frames.
func (c *conn) Frame(f *chatv1.ServerFrame) {
	switch body := f.GetBody().(type) {
	case *chatv1.ServerFrame_Event:
		if len(body.Event.GetClientMsgId()) == 16 {
			c.probe.broken(c.probe.tracker.pushed(c, body.Event))
		}
	case *chatv1.ServerFrame_Heads:
		c.probe.tracker.heads(c, body.Heads)
	default:
		c.answered(f)
	}
}

// Drained has nothing to write.
func (c *conn) Drained() {}

func (c *conn) answered(f *chatv1.ServerFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reply := c.answers[f.GetRequestId()]; reply != nil {
		delete(c.answers, f.GetRequestId())
		reply <- &chatv1.ServerFrame{RequestId: f.GetRequestId(), Body: f.GetBody()} // it has room for one
	}
}

// end closes the connection, and the channels of all requests without an answer.
func (c *conn) end(reason error) {
	reason = c.wire.Fail(reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = reason
	for id, reply := range c.answers {
		delete(c.answers, id)
		close(reply)
	}
}

// close ends the connection and waits for serve.
func (c *conn) close() {
	c.end(errEnded)
	<-c.done
}

// alive says that the connection has not ended.
func (c *conn) alive() bool { return c.ended() == nil }

// ended is why the connection ended, nil while it has not.
func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// start sends a request. Its answer comes from the channel, which is closed when
// the connection ends first.
func (c *conn) start(f *chatv1.ClientFrame) <-chan *chatv1.ServerFrame {
	reply := make(chan *chatv1.ServerFrame, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		close(reply)
		return reply
	}
	c.lastID++
	f.RequestId = c.lastID
	c.answers[f.GetRequestId()] = reply
	c.mu.Unlock()
	encoded, err := c.wire.Append(nil, f)
	if err != nil {
		c.end(err) // closes reply
		return reply
	}
	_ = c.wire.Write(encoded) // after an error serve ends, which closes reply
	return reply
}

// await waits for an answer: a refusal is an *errs.Error, errEnded says that none
// came.
func (c *conn) await(ctx context.Context, reply <-chan *chatv1.ServerFrame) (*chatv1.ServerFrame, error) {
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case f, ok := <-reply:
		if !ok {
			return nil, fmt.Errorf("chat server %s: %w: %w", c.server, errEnded, c.ended())
		}
		return f, wire.Failure(f)
	case <-timer.C:
		c.end(fmt.Errorf("no answer for %v", answerTimeout)) // its other requests are as lost
		return nil, fmt.Errorf("chat server %s: %w: no answer for %v", c.server, errEnded, answerTimeout)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errEnded, ctx.Err())
	}
}

// ask makes a request and waits for its answer.
func (c *conn) ask(ctx context.Context, f *chatv1.ClientFrame) (*chatv1.ServerFrame, error) {
	return c.await(ctx, c.start(f))
}

// ping returns once the server has answered.
func (c *conn) ping(ctx context.Context) error {
	_, err := c.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}})
	return err
}

// history reads a log from a number up to another one, and its head.
func (c *conn) history(ctx context.Context, conversation, from, to uint64) (
	events []*chatv1.Event, head uint64, err error,
) {
	for after := from - 1; after < to; {
		f, err := c.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
			History: &chatv1.History{ConversationId: conversation, After: after, Limit: historyPage},
		}})
		if err != nil {
			return nil, 0, fmt.Errorf("read conversation %d on %s: %w", conversation, c.server, err)
		}
		page := f.GetHistoryPage()
		head = page.GetHead()
		for _, e := range page.GetEvents() {
			if e.GetSeq() <= after || len(e.GetClientMsgId()) != 16 {
				return nil, 0, fmt.Errorf("read conversation %d on %s: a page out of order", conversation, c.server)
			}
			after = e.GetSeq()
		}
		events = append(events, page.GetEvents()...)
		if len(page.GetEvents()) == 0 {
			break
		}
	}
	return events, head, nil
}
