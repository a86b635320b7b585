package load

import (
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/retry"
)

// minRepeat is the least wait before a refused message is sent again.
const minRepeat = 20 * time.Millisecond

// sending handles what arrives at a pair's sender.
type sending struct{ *pair }

// Frame takes answers; the sender ignores pushes.
func (h sending) Frame(f *chatv1.ServerFrame) {
	switch body := f.GetBody().(type) {
	case *chatv1.ServerFrame_Sent:
		h.acked(f.GetRequestId(), body.Sent.GetSeq())
	case *chatv1.ServerFrame_Failure:
		h.refused(f.GetRequestId(), body.Failure)
	}
}

// Drained sends what has become possible.
func (h sending) Drained() { h.pump() }

func (p *pair) acked(number, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.under(number)
	if s == nil || s.acked {
		return // a message that was sent again is answered again
	}
	s.acked, s.acknowledged = true, seq
	p.run.acked.Add(1)
	p.compare(s)
	if p.run.measuring.Load() {
		p.run.ack.Record(p.index, time.Since(p.run.start)-s.due)
	}
	p.advance()
}

// compare checks that a message was acknowledged under the number that it has.
func (p *pair) compare(s *slot) {
	if s.acked && s.received && s.acknowledged != s.pushed {
		p.run.misnumbered.Add(1)
	}
}

// refused sends again later what may be accepted then.
func (p *pair) refused(number uint64, f *chatv1.Failure) {
	p.run.failed(f.GetCode())
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.under(number)
	if s == nil || s.acked {
		return
	}
	if !errs.Code(f.GetCode()).MayPass() {
		s.refused = true
		p.advance()
		return
	}
	if p.repeating {
		return
	}
	p.repeating = true
	asked := max(time.Duration(f.GetRetryAfterMs())*time.Millisecond, minRepeat)
	time.AfterFunc(retry.Asked(asked), func() {
		p.mu.Lock()
		p.repeating = false
		p.repeat()
		p.mu.Unlock()
		p.pump()
	})
}

// repeat sends everything unanswered again, in order, before anything new. It
// needs mu.
func (p *pair) repeat() {
	if p.sender == nil {
		return
	}
	for n := p.done + 1; n < p.next; n++ {
		if s := p.at(n); !s.acked && !s.refused {
			p.encode(n)
		}
	}
}
