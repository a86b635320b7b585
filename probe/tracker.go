package probe

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
	"github.com/msrchat/msrchat/shared/content"
)

// kind is which promise was broken.
type kind string

const (
	lost        kind = "lost"        // not in the log under the acknowledged number
	altered     kind = "altered"     // there, but not as it was sent
	doubled     kind = "doubled"     // there twice, or pushed under two numbers
	reordered   kind = "reordered"   // a later message has the lower number
	undelivered kind = "undelivered" // the reader was connected and got nothing
)

var kinds = []kind{lost, altered, doubled, reordered, undelivered}

// fault is one broken promise, in words.
type fault struct {
	kind kind
	text string
}

func (f fault) String() string { return string(f.kind) + ": " + f.text }

func faultf(k kind, format string, args ...any) fault { return fault{k, fmt.Sprintf(format, args...)} }

// message is one message of the probe. The tracker's mutex owns what changes.
type message struct {
	id             [16]byte
	conversation   uint64
	sender, reader uint64 // users
	text           string
	via, to        server // of the sender and of the reader
	sent           time.Time

	acked     time.Time
	seq       uint64 // 0 until acknowledged
	listening *conn  // the reader's connection when it was acknowledged
	pushed    uint64 // the number under which it was pushed to the reader
}

// String is how a verdict names a message.
func (m *message) String() string {
	return fmt.Sprintf("message %s of conversation %d, acknowledged as number %d at %s by %s for a reader on %s",
		hex.EncodeToString(m.id[:]), m.conversation, m.seq, m.acked.UTC().Format("15:04:05.000"), m.via, m.to)
}

// is says whether an event has what was sent.
func (m *message) is(e *chatv1.Event) bool {
	return e.GetKind() == content.Text && string(e.GetBody()) == m.text && e.GetSenderId() == m.sender
}

// tracker has every message that was sent and not yet both found in the log and
// delivered. Its methods may be called from any goroutine.
type tracker struct {
	metrics *metrics

	mu      sync.Mutex
	open    map[[16]byte]*message
	reached map[*conn]map[uint64]uint64 // the highest number of each conversation that a connection got
}

func newTracker(m *metrics) *tracker {
	return &tracker{metrics: m, open: map[[16]byte]*message{}, reached: map[*conn]map[uint64]uint64{}}
}

// sending adds a message that is about to be sent.
func (t *tracker) sending(m *message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.sent = time.Now()
	t.open[m.id] = m
}

// acknowledged notes the number, and on which connection the reader then listened.
func (t *tracker) acknowledged(m *message, seq uint64, listening *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.acked, m.seq, m.listening = time.Now(), seq, listening
	t.metrics.acked.Observe(m.acked.Sub(m.sent).Seconds())
}

// forget drops a message that was not acknowledged: nothing is promised.
func (t *tracker) forget(m *message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, m.id)
	t.metrics.unknown.Inc()
}

// clear drops all messages and returns how many that were.
func (t *tracker) clear() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.open)
	clear(t.open)
	return n
}

func (t *tracker) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// pushed takes an event that was pushed to a connection.
func (t *tracker) pushed(to *conn, e *chatv1.Event) []fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reach(to, e.GetConversationId(), e.GetSeq())
	m := t.open[[16]byte(e.GetClientMsgId())]
	switch {
	case m == nil || to.user != m.reader:
		return nil // another probe's, one that was settled, or the sender's other connection
	case !m.is(e) || e.GetConversationId() != m.conversation:
		return []fault{faultf(altered, "%s: it was pushed as %q of sender %d", m, e.GetBody(), e.GetSenderId())}
	case m.pushed == 0:
		m.pushed = e.GetSeq()
		t.metrics.delivered.Observe(time.Since(m.sent).Seconds())
	case m.pushed != e.GetSeq():
		return []fault{faultf(doubled, "%s: it was pushed as number %d and as number %d", m, m.pushed, e.GetSeq())}
	}
	return nil
}

// heads takes heads that were pushed to a connection.
func (t *tracker) heads(to *conn, heads *chatv1.Heads) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range heads.GetHeads() {
		t.reach(to, h.GetConversationId(), h.GetSeq())
	}
}

// reach notes that a connection got a number. The mutex is held.
func (t *tracker) reach(to *conn, conversation, seq uint64) {
	heads := t.reached[to]
	if heads == nil {
		heads = map[uint64]uint64{}
		t.reached[to] = heads
	}
	heads[conversation] = max(heads[conversation], seq)
}

// disconnected drops what is noted of a connection.
func (t *tracker) disconnected(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.reached, c)
}

// undelivered lists the acknowledged messages whose reader has been connected ever
// since and got neither them nor a higher number. A reader that reconnected got
// the heads.
func (t *tracker) undelivered() (out []*message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.open {
		if m.seq == 0 || m.listening == nil || !m.listening.alive() || m.pushed != 0 {
			continue
		}
		if t.reached[m.listening][m.conversation] < m.seq {
			out = append(out, m)
		}
	}
	return out
}

// due lists the acknowledged messages by conversation, each in the log's order.
func (t *tracker) due() map[uint64][]*message {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[uint64][]*message{}
	for _, m := range t.open {
		if m.seq != 0 {
			out[m.conversation] = append(out[m.conversation], m)
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b *message) int { return cmp.Compare(a.seq, b.seq) })
	}
	return out
}

// settle drops messages that were judged.
func (t *tracker) settle(list []*message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range list {
		delete(t.open, m.id)
	}
	t.metrics.verified.Add(float64(len(list)))
}

// compare compares acknowledged messages of one conversation, in order, with what
// the log has from the first one's number on. The log begins at first: what was
// before it has been trimmed. Of messages that are due only pushed still changes,
// under the mutex.
func (t *tracker) compare(due []*message, events []*chatv1.Event, first, head uint64) (faults []fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	bySeq, seqs := map[uint64]*chatv1.Event{}, map[[16]byte][]uint64{}
	for _, e := range events {
		id := [16]byte(e.GetClientMsgId())
		bySeq[e.GetSeq()] = e
		seqs[id] = append(seqs[id], e.GetSeq())
	}
	for _, m := range due {
		if m.seq < first {
			continue
		}
		e, at := bySeq[m.seq], seqs[m.id]
		switch {
		case len(at) > 1:
			faults = append(faults, faultf(doubled, "%s: the log has it as numbers %v", m, at))
		case e == nil:
			faults = append(faults, faultf(lost, "%s: the log has no such number and reaches to %d", m, head))
		case [16]byte(e.GetClientMsgId()) != m.id && len(at) == 1:
			faults = append(faults, faultf(altered, "%s: the log has it as number %d", m, at[0]))
		case [16]byte(e.GetClientMsgId()) != m.id:
			faults = append(faults, faultf(lost, "%s: the log has another message under that number", m))
		case !m.is(e):
			faults = append(faults, faultf(altered, "%s: the log has %q of sender %d", m, e.GetBody(), e.GetSenderId()))
		case m.pushed != 0 && m.pushed != m.seq:
			faults = append(faults, faultf(altered, "%s: it was pushed as number %d", m, m.pushed))
		}
	}
	if len(faults) == 0 && len(due) > 0 {
		for seq := max(due[0].seq, first); seq <= due[len(due)-1].seq; seq++ {
			if bySeq[seq] == nil {
				return []fault{
					faultf(lost, "conversation %d has no number %d, but later ones", due[0].conversation, seq),
				}
			}
		}
	}
	return faults
}
