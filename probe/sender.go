package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/retry"
)

const (
	// burst is how many messages a sender sends before it waits for their
	// acknowledgements: enough to see one overtake another.
	burst = 4
	// resendFor is how long refused messages are sent again. minResend and
	// maxResend bound the wait, which is otherwise what the server asked for.
	resendFor            = 15 * time.Second
	minResend, maxResend = 200 * time.Millisecond, 2 * time.Second
)

// sender writes one side of a conversation. It belongs to one goroutine.
type sender struct {
	round        *round
	conversation uint64
	from, to     *participant
	last         uint64 // the highest number that was acknowledged
}

// run sends bursts while the round has messages left.
func (s *sender) run(ctx context.Context) error {
	for {
		n := burst
		if left := s.round.left.Add(-burst); left <= -burst {
			return nil
		} else if left < 0 {
			n += int(left)
		}
		if !s.round.limiter.wait(ctx, n) {
			return ctx.Err()
		}
		if err := s.write(ctx, n); err != nil {
			return err
		}
	}
}

// write sends n messages and returns when all are acknowledged. An error says
// that some were given up.
func (s *sender) write(ctx context.Context, n int) error {
	tracker := s.round.probe.tracker
	pending := make([]*message, n)
	for i := range pending {
		m := &message{
			conversation: s.conversation, sender: s.from.account.id, reader: s.to.account.id,
			via: s.from.server, to: s.to.server,
		}
		rand.Read(m.id[:]) // never fails: see its documentation
		m.text = fmt.Sprintf("probe %x", m.id[:8])
		tracker.sending(m)
		pending[i] = m
	}
	before, all, once := s.last, pending, true
	for deadline := time.Now().Add(resendFor); ; once = false {
		var err error
		if pending, err = s.send(ctx, pending); len(pending) == 0 {
			break
		}
		wait := minResend
		if e := (*errs.Error)(nil); errors.As(err, &e) {
			wait = min(max(wait, e.RetryAfter), maxResend)
		}
		if time.Now().After(deadline) || !errs.MayPass(err) || !retry.Sleep(ctx, wait) {
			for _, m := range pending {
				tracker.forget(m)
			}
			s.from.disconnect() // this connection's later messages would be refused until these come again
			return err
		}
	}
	s.round.probe.broken(ordered(all, before, once))
	return nil
}

// send sends messages in order, returns those that were not acknowledged, and why
// the first of them was not.
func (s *sender) send(ctx context.Context, list []*message) (left []*message, why error) {
	c, err := s.from.connected(ctx)
	if err != nil {
		return list, err
	}
	replies := make([]<-chan *chatv1.ServerFrame, len(list))
	for i, m := range list {
		replies[i] = c.start(&chatv1.ClientFrame{Body: &chatv1.ClientFrame_Send{Send: &chatv1.Send{
			ConversationId: m.conversation, ClientMsgId: m.id[:], Kind: content.Text, Body: []byte(m.text),
		}}})
	}
	for i, m := range list {
		f, err := c.await(ctx, replies[i])
		if err != nil || f.GetSent().GetSeq() == 0 {
			left = append(left, m)
			if why == nil {
				why = err
			}
			continue
		}
		s.round.probe.tracker.acknowledged(m, f.GetSent().GetSeq(), s.to.current())
		s.last = max(s.last, f.GetSent().GetSeq())
	}
	if len(left) > 0 && why == nil {
		why = fmt.Errorf("chat server %s answered a send with something else", c.server)
	}
	return left, why
}

// ordered judges the numbers of a burst. They are above what was acknowledged
// before the burst was sent; within it they rise, unless some were sent more than
// once: two connections are two devices to the log.
func ordered(list []*message, before uint64, once bool) []fault {
	for i, m := range list {
		if m.seq <= before {
			return []fault{faultf(reordered, "%s: number %d had been acknowledged before it was sent", m, before)}
		}
		if once && i > 0 && m.seq <= list[i-1].seq {
			return []fault{faultf(reordered, "%s: a message sent before it has number %d", m, list[i-1].seq)}
		}
	}
	return nil
}
