package check

import (
	"cmp"
	"time"

	"github.com/msrchat/msrchat/proof/journal"
)

// member is a user in a conversation.
type member struct{ user, conversation uint64 }

func (m member) compare(n member) int {
	return cmp.Or(cmp.Compare(m.user, n.user), cmp.Compare(m.conversation, n.conversation))
}

// own is a member's own state: as the database has it, and what all devices of the
// user wrote down about it.
type own struct {
	member
	stored State
	// marked is how far the user said to have read, typed are the digests of the
	// drafts that they typed.
	marked uint64
	typed  map[uint64]bool
	// drafts are the digests under each number, as the first device that had it
	// wrote it down, or the database.
	drafts map[uint64]uint64
}

// own returns a member's, and creates it if there is none.
func (c *checker) own(user, conversation uint64) *own {
	m := member{user, conversation}
	o := c.owns[m]
	if o == nil {
		o = &own{member: m, typed: make(map[uint64]bool), drafts: make(map[uint64]uint64)}
		c.owns[m] = o
	}
	return o
}

// readStored takes what the database has.
func (c *checker) readStored() {
	for _, s := range c.run.States {
		o := c.own(s.User, s.Conversation)
		o.stored = s
		o.drafts[s.Number] = journal.Digest(s.Draft)
	}
}

// readSettings takes what a device's person set.
func (c *checker) readSettings(device int) {
	j := c.run.Journals[device]
	for e := range j.All() {
		switch e.Kind {
		case journal.Marked:
			c.report.Marked++
			if o := c.own(j.Device.User, e.Conversation); c.held[device] {
				o.marked = max(o.marked, e.Seq)
			}
			c.checkMark(device, e)
		case journal.Drafted:
			c.report.Drafted++
			c.own(j.Device.User, e.Conversation).typed[e.Text] = true
		case journal.Stated:
			c.report.Stated++
		}
	}
}

// checkMark requires that a read mark is at an event.
func (c *checker) checkMark(device int, e journal.Entry) {
	if head := c.logs[e.Conversation].head(); e.Seq > head {
		c.fail(Ahead, 1, "%s has read conversation %d up to number %d, its last is %d",
			c.name(device), e.Conversation, e.Seq, head)
	}
}

// checkStored checks what the database has by itself and who set it.
func (c *checker) checkStored(o *own) {
	s := o.stored
	if head := c.logs[o.conversation].head(); s.Read > head {
		c.fail(Ahead, 1, "user %d has read conversation %d up to number %d, its last is %d",
			o.user, o.conversation, s.Read, head)
	}
	if s.Read < o.marked {
		c.fail(Forgotten, 1, "user %d has read conversation %d up to number %d, the database has %d",
			o.user, o.conversation, o.marked, s.Read)
	}
	if s.Draft != "" && !composed(s.Draft, o.typed) {
		c.fail(Undrafted, 1, "user %d has the draft %.40q in conversation %d, not composed of the %d typed ones",
			o.user, s.Draft, o.conversation, len(o.typed))
	}
}

// composed says whether a text consists of typed ones: a client whose draft lost
// against another one appends its own to that one, on a new line.
func composed(text string, typed map[uint64]bool) bool {
	// ends are the positions after which one of the typed texts may begin.
	ends := []int{0}
	for to := 0; to <= len(text); to++ {
		if to < len(text) && text[to] != '\n' {
			continue
		}
		for _, from := range ends {
			if from <= to && typed[journal.Digest(text[from:to])] {
				ends = append(ends, to+1)
				break
			}
		}
	}
	return ends[len(ends)-1] == len(text)+1
}

// state takes an own state that the device has.
func (s *screen) state(e journal.Entry, at time.Duration) {
	if !s.member(e.Conversation) {
		s.fail(Foreign, 1, "%s: user %d has an own state of conversation %d", s.name(s.device), s.user, e.Conversation)
		return
	}
	s.checkMark(s.device, e)
	o, v := s.own(s.user, e.Conversation), s.view(e.Conversation)
	if e.Number < v.number || e.Seq < v.read {
		s.fail(Fallen, 1, "%s: the own state of conversation %d fell from number %d, read up to %d,"+
			" to number %d and %d", s.name(s.device), e.Conversation, v.number, v.read, e.Number, e.Seq)
	}
	first := v.number < o.stored.Number && e.Number == o.stored.Number
	v.number, v.read = e.Number, e.Seq
	switch draft, seen := o.drafts[e.Number]; {
	case e.Number > o.stored.Number:
		s.fail(Ahead, 1, "%s has own state %d of conversation %d, the database has %d",
			s.name(s.device), e.Number, e.Conversation, o.stored.Number)
		return
	case !seen:
		o.drafts[e.Number] = e.Text
	case draft != e.Text, e.Number == o.stored.Number && e.Seq != o.stored.Read:
		s.fail(Diverged, 1, "%s has own state %d of conversation %d with the draft %016x, read up to %d;"+
			" elsewhere it has %016x", s.name(s.device), e.Number, e.Conversation, e.Text, e.Seq, draft)
	}
	if e.Seq > o.stored.Read {
		s.fail(Forgotten, 1, "%s has own state %d of conversation %d, read up to %d; the database has %d",
			s.name(s.device), e.Number, e.Conversation, e.Seq, o.stored.Read)
	}
	if first && s.waits(at) {
		s.await(at, 0, "own state %d of conversation %d", e.Number, e.Conversation)
	}
}

// finishStates reports the newest own states that the device lacks.
func (s *screen) finishStates() {
	for _, l := range s.of[s.user] {
		o, v := s.own(s.user, l.id), s.view(l.id)
		if v.number < o.stored.Number {
			s.fail(Stale, 1, "%s has own state %d of conversation %d, the database has %d",
				s.name(s.device), v.number, l.id, o.stored.Number)
		}
	}
}
