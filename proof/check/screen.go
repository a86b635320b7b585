package check

import (
	"fmt"
	"slices"
	"time"

	"github.com/msrchat/msrchat/proof/journal"
)

// screen is what one device showed. Its times are those after Quiet.
type screen struct {
	*checker
	device int
	user   uint64
	views  map[uint64]*view // by conversation
	joined bool

	linked  bool // it has reported a connection
	online  bool
	since   time.Duration // online since
	reached []stretch     // connections that ended after Quiet
}

// stretch is a connection.
type stretch struct{ from, to time.Duration }

// view is what one device showed of one conversation.
type view struct {
	log *log
	// from: what is above it must be shown.
	from uint64
	seen []bool // by place in the log's rows
	// first and top are the least and the greatest number that was shown.
	first, top uint64
	// number and read are those of the own state that the device has.
	number, read uint64
}

// checkScreen follows one device through its journal.
func (c *checker) checkScreen(device int) {
	s := &screen{checker: c, device: device, user: c.run.Journals[device].Device.User, views: make(map[uint64]*view)}
	for e := range c.run.Journals[device].All() {
		at := e.At.Sub(c.run.Quiet)
		switch e.Kind {
		case journal.Online:
			s.disconnect(at)
			if s.linked {
				c.report.Reconnects++
			}
			s.linked, s.online, s.since = true, true, at
		case journal.Offline, journal.Left:
			s.disconnect(at)
		case journal.Reset:
			c.fail(Reset, 1, "%s learned at %s that the logs were restored", c.name(device), clock(e.At))
		case journal.Joined:
			s.join(e)
		case journal.Shown:
			c.report.Shown++
			s.show(e, at)
		case journal.Stated:
			s.state(e, at)
		}
	}
	s.finish()
}

// disconnect ends the connection.
func (s *screen) disconnect(at time.Duration) {
	if s.online && at > 0 {
		s.reached = append(s.reached, stretch{s.since, at})
	}
	s.online = false
}

// join notes from where the device shows a conversation. Only its first Joined
// counts: later it continues where it was.
func (s *screen) join(e journal.Entry) {
	switch {
	case s.joined:
	case e.Conversation == 0:
		s.joined = true
	default:
		s.view(e.Conversation).from = e.Seq
	}
}

// view returns the device's view of a conversation.
func (s *screen) view(conversation uint64) *view {
	v := s.views[conversation]
	if v == nil {
		l := s.logs[conversation]
		if l == nil {
			l = &log{id: conversation}
		}
		v = &view{log: l, seen: make([]bool, len(l.rows))}
		s.views[conversation] = v
	}
	return v
}

// member says whether the device's user takes part in a conversation.
func (s *screen) member(conversation uint64) bool {
	l := s.logs[conversation]
	return l != nil && slices.Contains(l.members, s.user)
}

// show takes a message that appeared on the screen.
func (s *screen) show(e journal.Entry, at time.Duration) {
	v := s.view(e.Conversation)
	if !s.member(e.Conversation) {
		s.fail(Foreign, 1, "%s: user %d was shown number %d of conversation %d",
			s.name(s.device), s.user, e.Seq, e.Conversation)
		return
	}
	place, stands := v.log.place(e.Seq)
	_, logged := s.rows[e.ID]
	if !logged || !stands {
		kind, what := Ghost, "does not have it"
		if logged {
			kind, what = Distorted, "has it elsewhere"
		}
		s.fail(kind, 1, "%s was shown %s as number %d of conversation %d, but the log %s",
			s.name(s.device), hexID(e.ID), e.Seq, e.Conversation, what)
		if stands {
			v.seen[place] = true // by something else: it is not missing as well
		}
		return
	}
	if r := v.log.rows[place]; r.ID != e.ID || r.Sender != e.Sender || r.Text != e.Text {
		s.fail(Distorted, 1, "%s was shown number %d of conversation %d as %s from %d with text %016x,"+
			" the log has %s from %d with %016x", s.name(s.device), e.Seq, e.Conversation,
			hexID(e.ID), e.Sender, e.Text, hexID(r.ID), r.Sender, r.Text)
	}
	switch {
	case v.seen[place]:
		s.fail(Repeated, 1, "%s was shown number %d of conversation %d a second time at %s",
			s.name(s.device), e.Seq, e.Conversation, clock(e.At))
		return
	case e.Seq < v.top:
		s.fail(Disordered, 1, "%s was shown number %d of conversation %d after number %d",
			s.name(s.device), e.Seq, e.Conversation, v.top)
	}
	v.seen[place] = true
	v.top = max(v.top, e.Seq)
	if v.first == 0 || e.Seq < v.first {
		v.first = e.Seq
	}
	if s.waits(at) {
		due := time.Duration(0)
		if m := s.typed[e.ID]; m != nil && m.settled {
			due = m.acked
		}
		s.await(at, due, "number %d of conversation %d", e.Seq, e.Conversation)
	}
}

// waits says whether the device was waited for at a time: after Quiet, and to the
// end.
func (s *screen) waits(at time.Duration) bool { return at > 0 && s.held[s.device] }

// await measures how long something that came after Quiet was waited for: the
// longest connection since it was due, without it. A device that was offline
// meanwhile could not have it sooner.
func (s *screen) await(at, due time.Duration, what string, args ...any) {
	due = max(due, 0)
	var longest time.Duration
	for _, r := range s.reached {
		longest = max(longest, r.to-max(r.from, due))
	}
	switch {
	case s.online:
		longest = max(longest, at-max(s.since, due))
	case !s.linked:
		longest = at - due // it reports no connections
	}
	s.late = append(s.late, longest)
	if longest > s.run.Heartbeat {
		s.fail(Late, 1, "%s had %s after %v of connection and quiet, a heartbeat is %v",
			s.name(s.device), fmt.Sprintf(what, args...), longest.Round(time.Millisecond), s.run.Heartbeat)
	}
}

// finish reports what was not shown.
func (s *screen) finish() {
	held := s.held[s.device]
	if held {
		s.finishStates()
	}
	if held && !s.joined {
		s.fail(Unjoined, 1, "%s never learned its conversations", s.name(s.device))
		held = false // from where it shows them is unknown
	}
	owed := 0
	for _, l := range s.of[s.user] {
		v := s.view(l.id)
		if s.joined && (v.first == 0 || v.from+1 < v.first) {
			v.first = v.from + 1
		}
		for i, r := range l.rows {
			// One that left, or that nobody waited for, may lack what is above its top.
			if v.first == 0 || r.Seq < v.first || !held && r.Seq > v.top {
				continue
			}
			owed++
			if !v.seen[i] {
				s.fail(Missing, 1, "%s was not shown number %d of conversation %d (%s)",
					s.name(s.device), r.Seq, l.id, hexID(r.ID))
			}
		}
	}
	if held && owed > 0 {
		s.report.Complete++
	}
}
