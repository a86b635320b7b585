package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/msrchat/msrchat/proof/journal"
)

// Check compares the journals with each other and with the log. It changes
// nothing of the run, which must not change meanwhile.
func (r *Run) Check() *Report {
	c := &checker{
		run: r,
		report: &Report{
			Devices: len(r.Journals), Logged: len(r.Log), Partial: r.Quiet.IsZero() || r.Interrupted,
		},
		found: make(map[Kind]*Violation), typed: make(map[[16]byte]*message),
		rows: make(map[[16]byte]int, len(r.Log)), logs: make(map[uint64]*log), of: make(map[uint64][]*log),
		owns: make(map[member]*own),
	}
	c.sortLog()
	c.readStored()
	for i := range r.Journals {
		c.readTyped(i)
	}
	for i := range r.Journals {
		c.readOutcomes(i)
	}
	for i := range r.Journals {
		c.checkOutcomes(i)
		c.readSettings(i)
	}
	for _, id := range slices.Sorted(maps.Keys(c.logs)) {
		c.checkLog(c.logs[id])
	}
	for _, m := range slices.SortedFunc(maps.Keys(c.owns), member.compare) {
		c.checkStored(c.owns[m])
	}
	for i := range r.Journals {
		c.checkScreen(i)
	}
	c.report.Lateness = summarise(c.late)
	c.checkSample()
	c.report.Violations = c.violations()
	return c.report
}

// checker is one check under way, in one goroutine.
type checker struct {
	run    *Run
	report *Report
	found  map[Kind]*Violation

	typed map[[16]byte]*message
	// rows has the first row of each id, by its place in sorted.
	sorted []Row
	rows   map[[16]byte]int
	logs   map[uint64]*log   // by conversation
	of     map[uint64][]*log // those of a user's conversations
	owns   map[member]*own
	// held are the devices that have to show everything at the end: those that
	// were there when it became quiet.
	held []bool
	late []time.Duration
}

// message is one that was typed, and its outcome.
type message struct {
	device  int // by its place in Run.Journals
	order   int // among all that the device typed
	text    uint64
	acked   time.Duration // after Quiet, negative before
	settled bool
	refused bool
}

// log is one conversation: its rows in order.
type log struct {
	id      uint64
	rows    []Row
	members []uint64
}

// head is the last number.
func (l *log) head() uint64 {
	if l == nil || len(l.rows) == 0 {
		return 0
	}
	return l.rows[len(l.rows)-1].Seq
}

// place is the index of a number in the rows, if they have it.
func (l *log) place(seq uint64) (int, bool) {
	if l == nil {
		return 0, false
	}
	// Mostly there is no gap, and a number is at its own index.
	if i := seq - 1; i < uint64(len(l.rows)) && l.rows[i].Seq == seq {
		return int(i), true
	}
	return slices.BinarySearchFunc(l.rows, seq, func(r Row, seq uint64) int { return cmp.Compare(r.Seq, seq) })
}

// fail counts n more violations of a kind. The first few are kept as text.
func (c *checker) fail(k Kind, n int, format string, args ...any) {
	v := c.found[k]
	if v == nil {
		v = &Violation{Kind: k}
		c.found[k] = v
	}
	v.Count += n
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

func (c *checker) name(device int) string { return c.run.Journals[device].Device.Name }

func (c *checker) sortLog() {
	c.sorted = slices.Clone(c.run.Log)
	slices.SortFunc(c.sorted, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Conversation, b.Conversation), cmp.Compare(a.Seq, b.Seq))
	})
	for _, id := range slices.Sorted(maps.Keys(c.run.Members)) {
		members := c.run.Members[id]
		c.logs[id] = &log{id: id, members: members}
		for _, user := range members {
			c.of[user] = append(c.of[user], c.logs[id])
		}
	}
	for from := 0; from < len(c.sorted); {
		id, to := c.sorted[from].Conversation, from+1
		for to < len(c.sorted) && c.sorted[to].Conversation == id {
			to++
		}
		if c.logs[id] == nil {
			c.logs[id] = &log{id: id}
		}
		c.logs[id].rows = c.sorted[from:to]
		from = to
	}
	for i, r := range c.sorted {
		if _, twice := c.rows[r.ID]; !twice {
			c.rows[r.ID] = i
		}
	}
	c.report.Conversations = len(c.logs)
}

func (c *checker) readTyped(device int) {
	order := 0
	for e := range c.run.Journals[device].All() {
		if e.Kind != journal.Typed {
			continue
		}
		c.typed[e.ID] = &message{device: device, order: order, text: e.Text}
		order++
	}
	c.report.Typed += order
}

func (c *checker) readOutcomes(device int) {
	var left time.Time
	for e := range c.run.Journals[device].All() {
		switch e.Kind {
		case journal.LoggedIn:
			left = time.Time{}
		case journal.Left:
			left = e.At
		case journal.Acked:
			c.report.Acked++
			if m := c.typed[e.ID]; m != nil {
				m.settled, m.acked = true, e.At.Sub(c.run.Quiet)
			}
			c.checkAck(device, e)
		case journal.Refused:
			c.report.Refused++
			if m := c.typed[e.ID]; m != nil {
				m.settled, m.refused = true, true
			}
		}
	}
	c.held = append(c.held, !c.report.Partial && (left.IsZero() || left.After(c.run.Quiet)))
}

func (c *checker) checkAck(device int, e journal.Entry) {
	first, logged := c.rows[e.ID]
	if !logged {
		c.fail(Lost, 1, "%s: acknowledged to %s at %s as number %d of conversation %d, but not in the log",
			hexID(e.ID), c.name(device), clock(e.At), e.Seq, e.Conversation)
		return
	}
	if r := c.sorted[first]; r.Conversation == e.Conversation && r.Seq == e.Seq {
		return
	}
	l := c.logs[e.Conversation]
	if at, ok := l.place(e.Seq); ok && l.rows[at].ID == e.ID {
		return // one of several that the log has, which is another violation
	}
	r := c.sorted[first]
	c.fail(Renumbered, 1, "%s: acknowledged to %s as number %d of conversation %d, but is number %d of %d",
		hexID(e.ID), c.name(device), e.Seq, e.Conversation, r.Seq, r.Conversation)
}

// checkOutcomes compares what a device typed with what the log has of it.
func (c *checker) checkOutcomes(device int) {
	for e := range c.run.Journals[device].All() {
		if e.Kind != journal.Typed {
			continue
		}
		m := c.typed[e.ID]
		_, logged := c.rows[e.ID]
		switch {
		case m.refused && logged:
			c.fail(Rejected, 1, "%s: refused to %s, but in the log", hexID(e.ID), c.name(device))
		case !m.settled && !logged:
			c.report.Unsettled++
			if c.held[device] {
				c.fail(Unsettled, 1, "%s: typed by %s, neither acknowledged nor refused nor in the log",
					hexID(e.ID), c.name(device))
			}
		}
	}
}

// checkLog checks one conversation's log by itself and who typed what is in it.
func (c *checker) checkLog(l *log) {
	newest := make(map[int]int) // of each device, the order of its latest message
	next := uint64(1)
	for _, r := range l.rows {
		switch {
		case r.Seq < next:
			c.fail(Gap, 1, "conversation %d: two messages have number %d", l.id, r.Seq)
		case r.Seq > next:
			c.fail(Gap, int(min(r.Seq-next, 1<<30)), "conversation %d: after number %d comes %d", l.id, next-1, r.Seq)
		}
		next = r.Seq + 1
		if first := c.sorted[c.rows[r.ID]]; first.Conversation != r.Conversation || first.Seq != r.Seq {
			c.fail(Doubled, 1, "%s: number %d of conversation %d, and number %d of %d",
				hexID(r.ID), first.Seq, first.Conversation, r.Seq, r.Conversation)
			continue
		}
		m := c.typed[r.ID]
		if m == nil {
			c.fail(Untyped, 1, "%s: number %d of conversation %d, from user %d", hexID(r.ID), r.Seq, l.id, r.Sender)
			continue
		}
		if user := c.run.Journals[m.device].Device.User; r.Sender != user || r.Text != m.text {
			c.fail(Altered, 1, "%s: number %d of conversation %d has sender %d and text %016x,"+
				" typed by %s of user %d as %016x",
				hexID(r.ID), r.Seq, l.id, r.Sender, r.Text, c.name(m.device), user, m.text)
		}
		if last, ok := newest[m.device]; ok && m.order < last {
			c.fail(Reordered, 1, "%s: number %d of conversation %d, after what %s typed later",
				hexID(r.ID), r.Seq, l.id, c.name(m.device))
			continue
		}
		newest[m.device] = m.order
	}
}

// checkSample refuses to prove anything by a run in which nothing happened.
func (c *checker) checkSample() {
	if want := max(c.run.Minimum, 1); c.report.Acked < want {
		c.fail(NoSample, 1, "%d messages were acknowledged, at least %d are required", c.report.Acked, want)
	}
	switch {
	case c.run.Interrupted:
	case c.run.Quiet.IsZero():
		c.fail(Restless, 1, "the run did not become quiet; %d messages are unsettled", c.report.Unsettled)
	case c.report.Complete == 0:
		c.fail(NoSample, 1, "no device had to show everything")
	}
}

// hexID is an id as MySQL's HEX shows it.
func hexID(id [16]byte) string { return fmt.Sprintf("%X", id) }

func clock(t time.Time) string { return t.Format("15:04:05.000") }
