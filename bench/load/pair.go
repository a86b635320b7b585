package load

import (
	"encoding/binary"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
	"github.com/msrchat/msrchat/shared/frame"
	"github.com/msrchat/msrchat/shared/wire"
)

// pair is a client that sends and one that receives. Messages are numbered from
// 1; the number is in the message's id and is the request's id.
//
// mu owns all fields below it and is never held while something is written.
// flushing lets one goroutine write at a time, so that messages leave in the order
// of their numbers; it is taken before mu.
type pair struct {
	run          *runner
	index        int
	conversation uint64 // set before the first message

	flushing sync.Mutex

	mu               sync.Mutex
	sender, receiver *wire.Conn // nil while away
	// slots are the messages under way, at number modulo length.
	slots []slot
	next  uint64 // number of the next message
	done  uint64 // all up to this number are done
	// due are the times of messages that wait for a slot (open loop).
	due []time.Duration
	out []byte // encoded, not yet written
	// repeating is set while a timer for sending again runs.
	repeating bool

	receive
}

// slot is one message under way.
type slot struct {
	number          uint64
	due             time.Duration // since the run's start
	acknowledged    uint64        // its sequence number in the acknowledgement
	pushed          uint64        // and in the log, as it was received
	acked, received bool
	refused         bool // for good
}

func (s *slot) isDone() bool { return s.acked && s.received || s.refused }

func newPair(r *runner, index, window int) *pair {
	return &pair{
		run: r, index: index, slots: make([]slot, window), next: 1, receive: receive{ahead: make(map[uint64]uint64)},
	}
}

// join starts to use a connection. A sender that reconnected sends again what is
// unanswered, before anything new.
func (p *pair) join(sends bool, c *wire.Conn) wire.Handler {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !sends {
		p.receiver, p.pulling = c, false
		return receiving{p}
	}
	p.sender = c
	p.repeat()
	return sending{p}
}

func (p *pair) leave(sends bool, c *wire.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case sends && p.sender == c:
		p.sender, p.out = nil, nil
	case !sends && p.receiver == c:
		p.receiver = nil
	}
}

// add makes a message due.
func (p *pair) add(due time.Duration) {
	p.mu.Lock()
	p.due = append(p.due, due)
	p.mu.Unlock()
	p.run.waiting.Add(1)
	p.pump()
}

// pump sends what the window allows.
func (p *pair) pump() {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	p.mu.Lock()
	p.fill()
	out, c := p.out, p.sender
	p.out = nil
	p.mu.Unlock()
	if len(out) > 0 && c != nil {
		_ = c.Write(out) // after an error Serve ends as well
	}
	if out != nil {
		p.mu.Lock()
		if p.out == nil {
			p.out = out[:0]
		}
		p.mu.Unlock()
	}
}

// fill puts messages into the free slots.
func (p *pair) fill() {
	r := p.run
	if p.sender == nil {
		return
	}
	for p.next-p.done <= uint64(len(p.slots)) {
		due := time.Since(r.start)
		switch {
		case r.cfg.Rate > 0 && len(p.due) == 0:
			return
		case r.cfg.Rate > 0:
			due = p.due[0]
			p.due = p.due[1:]
		case !r.sending.Load():
			return
		default:
			r.waiting.Add(1)
		}
		*p.at(p.next) = slot{number: p.next, due: due}
		p.encode(p.next)
		p.next++
		r.sent.Add(1)
	}
}

func (p *pair) at(number uint64) *slot { return &p.slots[number%uint64(len(p.slots))] }

// under returns the slot of a message under way, or nil.
func (p *pair) under(number uint64) *slot {
	if s := p.at(number); number != 0 && s.number == number {
		return s
	}
	return nil
}

// encode appends a Send.
func (p *pair) encode(number uint64) {
	id := p.id(number)
	send := &chatv1.Send{
		ConversationId: p.conversation, ClientMsgId: id[:], Kind: content.Text, Body: p.text(number),
	}
	out, err := frame.Append(p.out, &chatv1.ClientFrame{RequestId: number, Body: &chatv1.ClientFrame_Send{Send: send}})
	if err != nil {
		p.run.failed(err.Error()) // ASCII can always be encoded
	}
	p.out = out
}

// id has the form of a UUIDv7, so that the log's index gets what clients make. It
// holds the time, the run, the pair and the message's number.
func (p *pair) id(number uint64) (id [16]byte) {
	at := p.run.start.Add(p.at(number).due).UnixMilli()
	binary.BigEndian.PutUint64(id[:], uint64(at)<<16|0x7000|uint64(p.run.nonce&0xfff))
	binary.BigEndian.PutUint64(id[8:], 1<<63|uint64(p.index&0xff_ffff)<<32|number&0xffff_ffff)
	return id
}

// number reads the message's number out of an id of this run and pair.
func (p *pair) number(id []byte) (uint64, bool) {
	if len(id) != 16 {
		return 0, false
	}
	high, low := binary.BigEndian.Uint64(id), binary.BigEndian.Uint64(id[8:])
	mine := uint32(high&0xfff) == p.run.nonce&0xfff && low>>32 == 1<<31|uint64(p.index&0xff_ffff)
	return low & 0xffff_ffff, mine
}

// text has a length between the bounds that follows from the number.
func (p *pair) text(number uint64) []byte {
	c := p.run.cfg
	n := c.MinSize
	if spread := uint64(c.MaxSize - c.MinSize); spread > 0 {
		n += int((number*0x9e3779b97f4a7c15 + uint64(p.index)) >> 20 % (spread + 1))
	}
	return p.run.texts[:n]
}

// advance frees the slots of what is done.
func (p *pair) advance() {
	for p.done+1 < p.next && p.at(p.done+1).isDone() {
		p.done++
		p.run.waiting.Add(-1)
	}
}

// finish counts what is still open at the end.
func (p *pair) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := p.done + 1; n < p.next; n++ {
		switch s := p.at(n); {
		case s.isDone():
		case s.acked:
			p.run.lost.Add(1)
		default:
			p.run.unanswered.Add(1)
		}
	}
}
