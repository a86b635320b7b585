package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/frame"
)

const (
	protocol    = 1
	maxFrame    = 8 << 20 // a page of the longest texts has 4 MiB
	dialTimeout = 5 * time.Second
	// answerTimeout is a little more than a chat server takes for a request.
	answerTimeout = 20 * time.Second
)

// errEnded: the line ended before the answer came, so the outcome is unknown.
var errEnded = errors.New("the connection ended")

// goodbye is the server's last word.
type goodbye struct{ *chatv1.Goodbye }

func (g goodbye) Error() string { return "the server said goodbye: " + g.GetText() }

// line is one person's connection to one chat server. One goroutine reads it;
// ask and start may be called from any. It ends by itself or by close.
type line struct {
	user    uint64
	server  server
	conn    net.Conn
	welcome *chatv1.Welcome
	done    chan struct{} // closed when the reader has ended

	writing sync.Mutex // owns the socket's sending side

	mu      sync.Mutex // owns the fields below
	asked   uint64
	answers map[uint64]chan *chatv1.ServerFrame
	err     error
}

// listener is told what is pushed, from the line's goroutine.
type listener interface {
	event(l *line, e *chatv1.Event)
	heads(l *line, h *chatv1.Heads)
	ended(l *line)
}

// dial connects a person to a server.
func dial(ctx context.Context, to server, who *person, ears listener) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", to.address)
	if err != nil {
		return nil, fmt.Errorf("connect to chat server %s: %w", to, err)
	}
	l := &line{
		user: who.id, server: to, conn: conn, done: make(chan struct{}), asked: 1,
		answers: map[uint64]chan *chatv1.ServerFrame{},
	}
	reader := bufio.NewReaderSize(conn, 4<<10)
	if err := l.introduce(reader, who); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("introduce to chat server %s: %w", to, err)
	}
	go l.read(reader, ears)
	go l.keepAlive()
	return l, nil
}

func (l *line) introduce(reader *bufio.Reader, who *person) error {
	if err := l.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	if err := l.write(&chatv1.ClientFrame{RequestId: 1, Body: &chatv1.ClientFrame_Hello{
		Hello: &chatv1.Hello{Protocol: protocol, Token: who.token, Client: "msrchat-probe"},
	}}); err != nil {
		return err
	}
	var answer chatv1.ServerFrame
	if _, err := frame.Read(reader, maxFrame, nil, &answer); err != nil {
		return fmt.Errorf("wait for welcome: %w", err)
	}
	switch body := answer.GetBody().(type) {
	case *chatv1.ServerFrame_Welcome:
		l.welcome = body.Welcome
		return l.conn.SetDeadline(time.Time{})
	case *chatv1.ServerFrame_Goodbye:
		return goodbye{body.Goodbye}
	}
	return fmt.Errorf("the server began with %T", answer.GetBody())
}

func (l *line) heartbeat() time.Duration {
	return max(time.Duration(l.welcome.GetHeartbeatMs())*time.Millisecond, 100*time.Millisecond)
}

// read handles frames until the connection ends.
func (l *line) read(reader *bufio.Reader, ears listener) {
	defer close(l.done)
	var err error
	for err == nil {
		if err = l.conn.SetReadDeadline(time.Now().Add(2 * l.heartbeat())); err != nil {
			break
		}
		f := &chatv1.ServerFrame{}
		if _, err = frame.Read(reader, maxFrame, nil, f); err != nil {
			break
		}
		switch body := f.GetBody().(type) {
		case *chatv1.ServerFrame_Goodbye:
			err = goodbye{body.Goodbye}
		case *chatv1.ServerFrame_Event:
			if len(body.Event.GetClientMsgId()) == 16 {
				ears.event(l, body.Event)
			}
		case *chatv1.ServerFrame_Heads:
			ears.heads(l, body.Heads)
		default:
			l.answered(f)
		}
	}
	l.end(err)
	ears.ended(l)
}

func (l *line) answered(f *chatv1.ServerFrame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reply := l.answers[f.GetRequestId()]; reply != nil {
		delete(l.answers, f.GetRequestId())
		reply <- f // has room for one
	}
}

// end closes the socket, and the channels of all that wait for an answer.
func (l *line) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	for id, reply := range l.answers {
		delete(l.answers, id)
		close(reply)
	}
	_ = l.conn.Close()
}

// close ends the line and waits for its reader.
func (l *line) close() {
	l.end(errEnded)
	<-l.done
}

// alive says that the line has not ended.
func (l *line) alive() bool { return l.ending() == nil }

// ending is why the line ended, nil while it has not.
func (l *line) ending() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// keepAlive says something once a heartbeat.
func (l *line) keepAlive() {
	ticker := time.NewTicker(l.heartbeat())
	defer ticker.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-ticker.C:
			if err := l.write(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Ping{Ping: &chatv1.Ping{}}}); err != nil {
				l.end(err)
				return
			}
		}
	}
}

func (l *line) write(f *chatv1.ClientFrame) error {
	out, err := frame.Append(nil, f)
	if err != nil {
		return err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	_, err = l.conn.Write(out)
	return err
}

// start sends a request. Its answer comes from the channel, which is closed when
// the line ends first.
func (l *line) start(f *chatv1.ClientFrame) <-chan *chatv1.ServerFrame {
	reply := make(chan *chatv1.ServerFrame, 1)
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		close(reply)
		return reply
	}
	l.asked++
	f.RequestId = l.asked
	l.answers[f.GetRequestId()] = reply
	l.mu.Unlock()
	if err := l.write(f); err != nil {
		l.end(err) // closes reply
	}
	return reply
}

// await takes an answer: a refusal is an *errs.Error, errEnded says that none
// came.
func (l *line) await(ctx context.Context, reply <-chan *chatv1.ServerFrame) (*chatv1.ServerFrame, error) {
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case f, ok := <-reply:
		if !ok {
			return nil, fmt.Errorf("chat server %s: %w: %w", l.server, errEnded, l.ending())
		}
		if refusal := f.GetFailure(); refusal != nil {
			return nil, errs.New(errs.Code(refusal.GetCode()), "%s", refusal.GetText()).
				Retry(time.Duration(refusal.GetRetryAfterMs()) * time.Millisecond)
		}
		return f, nil
	case <-timer.C:
		l.end(fmt.Errorf("no answer for %v", answerTimeout)) // what else is under way here is as lost
		return nil, fmt.Errorf("chat server %s: %w: no answer for %v", l.server, errEnded, answerTimeout)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errEnded, ctx.Err())
	}
}

func (l *line) ask(ctx context.Context, f *chatv1.ClientFrame) (*chatv1.ServerFrame, error) {
	return l.await(ctx, l.start(f))
}

// pages reads a log from a number up to another one, and its head.
func (l *line) pages(ctx context.Context, talk, from, to uint64) (events []*chatv1.Event, head uint64, err error) {
	for after := from - 1; after < to; {
		f, err := l.ask(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{
			History: &chatv1.History{ConversationId: talk, After: after, Limit: 200},
		}})
		if err != nil {
			return nil, 0, fmt.Errorf("read conversation %d on %s: %w", talk, l.server, err)
		}
		page := f.GetHistoryPage()
		head = page.GetHead()
		for _, e := range page.GetEvents() {
			if e.GetSeq() <= after || len(e.GetClientMsgId()) != 16 {
				return nil, 0, fmt.Errorf("read conversation %d on %s: the page is in disorder", talk, l.server)
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
