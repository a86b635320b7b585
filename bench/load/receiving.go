package load

import (
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"

	"github.com/msrchat/msrchat/bench/failure"
)

// maxAhead bounds the events that are remembered while those before them are
// pulled; beyond it they are pulled as well.
const maxAhead = 1024

// receive is a pair's receiver. The pair's mu owns it.
type receive struct {
	seen uint64 // the log was displayed up to this sequence number
	last uint64 // the highest message number in it
	// ahead are the numbers of messages behind a gap, by sequence number.
	ahead map[uint64]uint64
	// pulling is set while a page is awaited. head is the highest sequence number
	// that any push or page named.
	pulling bool
	head    uint64
	request uint64
}

// receiving handles what arrives at a pair's receiver.
type receiving struct{ *pair }

// Frame takes events and heads, as hints, and pages, as the truth.
func (h receiving) Frame(f *chatv1.ServerFrame) {
	p := h.pair
	switch body := f.GetBody().(type) {
	case *chatv1.ServerFrame_Event:
		p.mu.Lock()
		p.event(body.Event, false)
		p.mu.Unlock()
	case *chatv1.ServerFrame_Heads:
		p.mu.Lock()
		for _, head := range body.Heads.GetHeads() {
			if head.GetConversationId() == p.conversation {
				p.head = max(p.head, head.GetSeq())
			}
		}
		p.mu.Unlock()
	case *chatv1.ServerFrame_HistoryPage:
		p.mu.Lock()
		p.pulling = false
		p.head = max(p.head, body.HistoryPage.GetHead())
		for _, e := range body.HistoryPage.GetEvents() {
			p.event(e, true)
		}
		p.mu.Unlock()
	case *chatv1.ServerFrame_Failure:
		p.run.failed("history: " + body.Failure.GetCode())
		p.mu.Lock()
		p.pulling = false
		p.mu.Unlock()
	}
}

// Drained pulls what is missing, and lets the sender send more.
func (h receiving) Drained() {
	p := h.pair
	p.mu.Lock()
	missing := p.head > p.seen && !p.pulling
	p.mu.Unlock()
	if missing {
		p.pull()
	}
	p.pump()
}

// pullRest pulls for a receiver that still misses something at the end.
func (p *pair) pullRest() {
	p.mu.Lock()
	missing := p.done+1 < p.next
	p.mu.Unlock()
	if missing {
		p.pull()
	}
}

// pull asks for the events behind those that were displayed.
func (p *pair) pull() {
	p.mu.Lock()
	c := p.receiver
	p.pulling = c != nil
	p.request++
	request := &chatv1.ClientFrame{RequestId: p.request, Body: &chatv1.ClientFrame_History{History: &chatv1.History{
		ConversationId: p.conversation, After: p.seen,
	}}}
	p.mu.Unlock()
	if c == nil {
		return
	}
	encoded, err := frame.Append(nil, request)
	if err == nil {
		err = c.Write(encoded)
	}
	if err != nil {
		p.run.failed(failure.Kind(err))
	}
}

// event takes one event. It needs mu.
func (p *pair) event(e *chatv1.Event, pulled bool) {
	number, mine := p.number(e.GetClientMsgId())
	if !mine {
		number = 0 // of another sender, or of an earlier run
	}
	switch seq := e.GetSeq(); {
	case e.GetConversationId() != p.conversation || seq <= p.seen:
		return // a push may come twice
	case seq > p.seen+1:
		p.head = max(p.head, seq)
		if len(p.ahead) < maxAhead {
			p.ahead[seq] = number
		}
		return
	default:
		p.display(seq, number, pulled)
	}
	for len(p.ahead) > 0 {
		number, next := p.ahead[p.seen+1]
		if !next {
			break
		}
		delete(p.ahead, p.seen+1)
		p.display(p.seen+1, number, false)
	}
	if len(p.ahead) > 0 && pulled { // what the page brought as well
		for seq := range p.ahead {
			if seq <= p.seen {
				delete(p.ahead, seq)
			}
		}
	}
}

// display takes the log's next event, as a client would show it.
func (p *pair) display(seq, number uint64, pulled bool) {
	p.seen = seq
	if number == 0 {
		return
	}
	s := p.under(number)
	if s == nil || s.received {
		p.run.doubled.Add(1) // slots are used again only after their message was received
		return
	}
	if number < p.last {
		p.run.reordered.Add(1)
	}
	p.last = max(p.last, number)
	s.received, s.pushed = true, seq
	p.compare(s)
	p.run.delivered.Add(1)
	if pulled {
		p.run.pulled.Add(1)
	}
	if p.run.measuring.Load() {
		p.run.measured.Add(1)
		p.run.delivery.Record(p.index, time.Since(p.run.start)-s.due)
	}
	p.advance()
}
