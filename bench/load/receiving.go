package load

import (
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/frame"

	"github.com/msrchat/msrchat/bench/wire"
)

// maxAhead bounds the events that are remembered while those before them are
// fetched; beyond it they are fetched as well.
const maxAhead = 1024

// receive is what a pair's receiver knows of the log. The pair's mu owns it.
type receive struct {
	head uint64 // all up to this place were displayed
	last uint64 // the highest message number among them
	// ahead are messages by place, behind a gap.
	ahead map[uint64]uint64
	// asking is set while a page is on its way, told the furthest known place.
	asking  bool
	told    uint64
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
				p.told = max(p.told, head.GetSeq())
			}
		}
		p.mu.Unlock()
	case *chatv1.ServerFrame_HistoryPage:
		p.mu.Lock()
		p.asking = false
		p.told = max(p.told, body.HistoryPage.GetHead())
		for _, e := range body.HistoryPage.GetEvents() {
			p.event(e, true)
		}
		p.mu.Unlock()
	case *chatv1.ServerFrame_Failure:
		p.run.failed("history: " + body.Failure.GetCode())
		p.mu.Lock()
		p.asking = false
		p.mu.Unlock()
	}
}

// Drained asks for what is missing, and lets the sender go on.
func (h receiving) Drained() {
	p := h.pair
	p.mu.Lock()
	missing := p.told > p.head && !p.asking
	p.mu.Unlock()
	if missing {
		p.pull()
	}
	p.pump()
}

// ask is for a receiver that still misses something at the end.
func (p *pair) ask() {
	p.mu.Lock()
	missing := p.over+1 < p.next
	p.mu.Unlock()
	if missing {
		p.pull()
	}
}

// pull asks for the events behind those that were displayed.
func (p *pair) pull() {
	p.mu.Lock()
	c := p.receiver
	p.asking = c != nil
	p.request++
	request := &chatv1.ClientFrame{RequestId: p.request, Body: &chatv1.ClientFrame_History{History: &chatv1.History{
		ConversationId: p.conversation, After: p.head,
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
		p.run.failed(wire.Kind(err))
	}
}

// event takes one event. It needs mu.
func (p *pair) event(e *chatv1.Event, pulled bool) {
	number, mine := p.number(e.GetClientMsgId())
	if !mine {
		number = 0 // of somebody else, or of an earlier run
	}
	switch seq := e.GetSeq(); {
	case e.GetConversationId() != p.conversation || seq <= p.head:
		return // known: a push may come twice
	case seq > p.head+1:
		p.told = max(p.told, seq)
		if len(p.ahead) < maxAhead {
			p.ahead[seq] = number
		}
		return
	default:
		p.display(seq, number, pulled)
	}
	for len(p.ahead) > 0 {
		number, next := p.ahead[p.head+1]
		if !next {
			break
		}
		delete(p.ahead, p.head+1)
		p.display(p.head+1, number, false)
	}
	if len(p.ahead) > 0 && pulled { // what the page brought as well
		for seq := range p.ahead {
			if seq <= p.head {
				delete(p.ahead, seq)
			}
		}
	}
}

// display is what a person would see: the log's next event.
func (p *pair) display(seq, number uint64, pulled bool) {
	p.head = seq
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
	s.received, s.place = true, seq
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
