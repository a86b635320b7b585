package probe

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// kind is which promise was broken.
type kind string

const (
	lost        kind = "lost"        // not in the log under the acknowledged number
	altered     kind = "altered"     // there, but not as it was sent
	doubled     kind = "doubled"     // there twice, or pushed under two numbers
	reordered   kind = "reordered"   // a later message has the lower number
	undelivered kind = "undelivered" // the reader was connected and told nothing
)

var kinds = []kind{lost, altered, doubled, reordered, undelivered}

// fault is one broken promise, in words.
type fault struct {
	kind kind
	text string
}

func (f fault) String() string { return string(f.kind) + ": " + f.text }

// message is one message of the probe. The book's mutex owns what changes.
type message struct {
	id             [16]byte
	talk           uint64
	sender, reader uint64 // users
	text           string
	via, to        server // of the sender and of the reader
	typed          time.Time

	acked  time.Time
	seq    uint64 // 0 until acknowledged
	at     *line  // the reader's line when it was acknowledged
	pushed uint64 // the number under which the reader was shown it
}

// String is how a verdict names a message.
func (m *message) String() string {
	return fmt.Sprintf("message %s of conversation %d, acknowledged as number %d at %s by %s for a reader on %s",
		hex.EncodeToString(m.id[:]), m.talk, m.seq, m.acked.UTC().Format("15:04:05.000"), m.via, m.to)
}

// book has every message that is not settled: sent, and not yet both found in
// the log and delivered. Its methods may be called from any goroutine.
type book struct {
	metrics *metrics

	mu    sync.Mutex
	open  map[[16]byte]*message
	heads map[*line]map[uint64]uint64 // how far a line was told that logs reach
}

func newBook(m *metrics) *book {
	return &book{metrics: m, open: map[[16]byte]*message{}, heads: map[*line]map[uint64]uint64{}}
}

// typed enters a message that is about to be sent.
func (b *book) typed(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.typed = time.Now()
	b.open[m.id] = m
}

// acknowledged notes the number, and on which line the reader then listened.
func (b *book) acknowledged(m *message, seq uint64, at *line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.acked, m.seq, m.at = time.Now(), seq, at
	b.metrics.acked.Observe(m.acked.Sub(m.typed).Seconds())
}

// forget gives up a message that was not acknowledged: nothing is promised.
func (b *book) forget(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, m.id)
	b.metrics.unknown.Inc()
}

// clear forgets everything and says how much that was.
func (b *book) clear() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.open)
	clear(b.open)
	return n
}

func (b *book) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// shown takes an event that was pushed to a line.
func (b *book) shown(l *line, e *chatv1.Event) []fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reach(l, e.GetConversationId(), e.GetSeq())
	m := b.open[[16]byte(e.GetClientMsgId())]
	switch {
	case m == nil || l.user != m.reader:
		return nil // another probe's, one that was settled, or the sender's other device
	case e.GetText() != m.text || e.GetSenderId() != m.sender || e.GetConversationId() != m.talk:
		return []fault{{altered, fmt.Sprintf("%s: it was pushed as %q of sender %d", m, e.GetText(), e.GetSenderId())}}
	case m.pushed == 0:
		m.pushed = e.GetSeq()
		b.metrics.told.Observe(time.Since(m.typed).Seconds())
	case m.pushed != e.GetSeq():
		return []fault{{doubled, fmt.Sprintf("%s: it was pushed as number %d and as number %d", m, m.pushed, e.GetSeq())}}
	}
	return nil
}

// told takes the heads that a line was told.
func (b *book) told(l *line, heads *chatv1.Heads) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range heads.GetHeads() {
		b.reach(l, h.GetConversationId(), h.GetSeq())
	}
}

// reach notes that a reader at the line learnt of a number. The mutex is held.
func (b *book) reach(l *line, talk, seq uint64) {
	known := b.heads[l]
	if known == nil {
		known = map[uint64]uint64{}
		b.heads[l] = known
	}
	known[talk] = max(known[talk], seq)
}

// ended forgets what a line was told.
func (b *book) ended(l *line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.heads, l)
}

// untold lists the acknowledged messages whose reader listens ever since and has
// learnt of neither them nor of a higher number. A reader who reconnected was
// told the heads.
func (b *book) untold() (out []*message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.open {
		if m.seq != 0 && m.at != nil && m.at.alive() && m.pushed == 0 && b.heads[m.at][m.talk] < m.seq {
			out = append(out, m)
		}
	}
	return out
}

// due lists the acknowledged messages by conversation, each in the log's order.
func (b *book) due() map[uint64][]*message {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[uint64][]*message{}
	for _, m := range b.open {
		if m.seq != 0 {
			out[m.talk] = append(out[m.talk], m)
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b *message) int { return cmp.Compare(a.seq, b.seq) })
	}
	return out
}

// settle forgets messages that were judged.
func (b *book) settle(list []*message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range list {
		delete(b.open, m.id)
	}
	b.metrics.verified.Add(float64(len(list)))
}

// examine compares acknowledged messages of one conversation, in order, with
// what the log has from the first one's number on. What lies before first was
// removed by a policy. The book's mutex is held by nobody: messages that are due
// change no more, but for pushed.
func (b *book) examine(due []*message, events []*chatv1.Event, first, head uint64) (faults []fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bySeq, places := map[uint64]*chatv1.Event{}, map[[16]byte][]uint64{}
	for _, e := range events {
		id := [16]byte(e.GetClientMsgId())
		bySeq[e.GetSeq()] = e
		places[id] = append(places[id], e.GetSeq())
	}
	for _, m := range due {
		if m.seq < first {
			continue
		}
		e, at := bySeq[m.seq], places[m.id]
		switch {
		case len(at) > 1:
			faults = append(faults, fault{doubled, fmt.Sprintf("%s: the log has it as numbers %v", m, at)})
		case e == nil:
			faults = append(faults, fault{lost, fmt.Sprintf("%s: the log has no such number and reaches to %d", m, head)})
		case [16]byte(e.GetClientMsgId()) != m.id && len(at) == 1:
			faults = append(faults, fault{altered, fmt.Sprintf("%s: the log has it as number %d", m, at[0])})
		case [16]byte(e.GetClientMsgId()) != m.id:
			faults = append(faults, fault{lost, fmt.Sprintf("%s: the log has another message under that number", m)})
		case e.GetText() != m.text || e.GetSenderId() != m.sender:
			faults = append(faults, fault{altered, fmt.Sprintf("%s: the log has %q of sender %d", m, e.GetText(), e.GetSenderId())})
		case m.pushed != 0 && m.pushed != m.seq:
			faults = append(faults, fault{altered, fmt.Sprintf("%s: it was pushed as number %d", m, m.pushed)})
		}
	}
	if len(faults) == 0 && len(due) > 0 {
		for seq := max(due[0].seq, first); seq <= due[len(due)-1].seq; seq++ {
			if bySeq[seq] == nil {
				return []fault{{lost, fmt.Sprintf("conversation %d has no number %d, but later ones", due[0].talk, seq)}}
			}
		}
	}
	return faults
}
