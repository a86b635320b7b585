package demo

import (
	"fmt"
	"slices"
)

// conversation is what ann and ben have of theirs at the end.
type conversation struct {
	// typed are the director's texts by who typed them, acked the numbers that the
	// first of them were acknowledged with.
	typed map[string][]string
	acked map[string][]uint64
	// history is what the service tells each of them, shown what appeared on the
	// screen of each.
	history, shown map[string][]line
}

// outcome is what a comparison found.
type outcome struct {
	Logged, Typed, ByHand, Acknowledged int
	Problems                            []string
}

func (o *outcome) fail(format string, args ...any) {
	o.Problems = append(o.Problems, fmt.Sprintf(format, args...))
}

// compare judges what ann and ben have. In their terminals somebody may have
// typed by hand: such a message stands in no list of typed ones, and has to be in
// the log and on the screens once like every other one.
func (c conversation) compare(names ...string) outcome {
	var o outcome
	log := c.history[names[0]]
	for _, name := range names[1:] { // later, so it may have more
		if n := len(c.history[name]); n < len(log) {
			o.fail("%s's history has %d messages, %s's %d", name, n, names[0], len(log))
		}
	}
	o.Logged = len(log)
	for i, l := range log {
		if l.Seq != uint64(i+1) {
			o.fail("the log has number %d at place %d", l.Seq, i+1)
			break
		}
		if !slices.Contains(names, l.From) {
			o.fail("number %d is from %s", l.Seq, l.From)
		}
	}
	for _, name := range names {
		o.same(name+"'s history", log, c.history[name])
		o.same(name+"'s screen", log, c.shown[name])
		o.find(name, log, c.typed[name], c.acked[name])
	}
	o.ByHand = o.Logged - o.Typed
	return o
}

// same compares what somebody has with the log: all of it, once, in its order.
// What came after the log was read does not count.
func (o *outcome) same(what string, log, has []line) {
	for i, l := range log {
		if i == len(has) {
			o.fail("%s ends at number %d of %d", what, i, len(log))
			return
		}
		if has[i] != l {
			o.fail("%s has number %d (%q) where number %d (%q) belongs", what, has[i].Seq, has[i].Text, l.Seq, l.Text)
			return
		}
	}
}

// find looks for what somebody typed: each text once, in the order typed, and
// where it was acknowledged.
func (o *outcome) find(name string, log []line, typed []string, acked []uint64) {
	at := make(map[string][]uint64)
	for _, l := range log {
		if l.From == name {
			at[l.Text] = append(at[l.Text], l.Seq)
		}
	}
	last := uint64(0)
	for i, text := range typed {
		found := at[text]
		if len(found) != 1 {
			o.fail("%s typed %q, which is in the log %d times", name, text, len(found))
			continue
		}
		o.Typed++
		if found[0] < last {
			o.fail("%s typed %q after what stands behind it", name, text)
		}
		last = found[0]
		if i < len(acked) {
			o.Acknowledged++
			if acked[i] != found[0] {
				o.fail("%q was acknowledged to %s as number %d and stands at %d", text, name, acked[i], found[0])
			}
		}
	}
}
