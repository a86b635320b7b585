package load

import (
	"math/rand/v2"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/errs"
)

// sending handles what arrives at a pair's sender.
type sending struct{ *pair }

// Frame takes answers. Pushes of the sender's own messages are of no interest.
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
	s.acked, s.seq = true, seq
	p.run.acked.Add(1)
	p.compare(s)
	if p.run.measuring.Load() {
		p.run.ack.Record(p.index, time.Since(p.run.start)-s.due)
	}
	p.advance()
}

// compare checks the two places that a message was said to have.
func (p *pair) compare(s *slot) {
	if s.acked && s.received && s.seq != s.place {
		p.run.misnumbered.Add(1)
	}
}

// refused sends again later what may be taken then.
func (p *pair) refused(number uint64, f *chatv1.Failure) {
	p.run.failed(f.GetCode())
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.under(number)
	if s == nil || s.acked {
		return
	}
	switch errs.Code(f.GetCode()) {
	case errs.CodeUnavailable, errs.CodeExhausted, errs.CodeRateLimited, errs.CodeInternal:
	default:
		s.refused = true
		p.advance()
		return
	}
	if p.again {
		return
	}
	p.again = true
	wait := max(time.Duration(f.GetRetryAfterMs())*time.Millisecond, 20*time.Millisecond)
	time.AfterFunc(wait+rand.N(wait/4+1), func() {
		p.mu.Lock()
		p.again = false
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
	for n := p.over + 1; n < p.next; n++ {
		if s := p.at(n); !s.acked && !s.refused {
			p.encode(n)
		}
	}
}
