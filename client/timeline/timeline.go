// Package timeline folds the events of a conversation's log into the rows that a
// person sees. An event need not be a row: one of another kind may change an
// earlier row instead. So a row stands for the event that made it, and is found by
// that event's number; numbers that made none have no row.
//
// What a row shows depends on the events alone, not on the order in which pages of
// the log came in: a log that grew at both ends equals one that was read at once.
package timeline

import (
	"cmp"
	"slices"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/content"
)

// Row is what a person sees of one event.
type Row struct {
	// Event made the row. Its Seq and ID name the row for ever.
	Event store.Message
	// Text is what is to be shown, as later events left it.
	Text string
	// Hidden: the event is of a kind that this program cannot show. It has its place
	// all the same.
	Hidden bool
}

// kind is what events of a kind do. Exactly one of the two is set.
type kind struct {
	// show fills a row that the event makes.
	show func(r *Row)
	// changes returns the number of the event whose row this one changes, and the
	// change.
	changes func(e store.Message) (seq uint64, change func(r *Row))
}

// kinds is the table of all kinds that this program knows.
var kinds = map[uint32]kind{
	content.Text: {show: func(r *Row) { r.Text = r.Event.Text() }},
}

// Log is a part of a conversation's log that has no gap, and its rows. The zero
// value is empty and ready. It is not safe for use by several goroutines.
type Log struct {
	kinds   map[uint32]kind // for tests; nil is the table above
	lo, hi  uint64          // the events that are held; lo is 0 while there are none
	rows    []*Row          // by Event.Seq
	changes map[uint64][]store.Message
}

// Lo and Hi are the first and the last event that are held, 0 where none are.
func (l *Log) Lo() uint64 { return l.lo }

// Hi is described at Lo.
func (l *Log) Hi() uint64 { return l.hi }

// Rows are the rows in order. A row keeps its pointer for as long as it is held.
// The caller must not change the slice.
func (l *Log) Rows() []*Row { return l.rows }

// Index is where in Rows the event's row is, or would be where it made none;
// there says which.
func (l *Log) Index(seq uint64) (i int, there bool) {
	return slices.BinarySearchFunc(l.rows, seq, func(r *Row, seq uint64) int { return cmp.Compare(r.Event.Seq, seq) })
}

// Append adds the events after Hi, in order; into an empty log any that follow one
// another. Events up to Hi are skipped, and so is everything from a gap on. It
// returns the rows that were there before and look different now.
func (l *Log) Append(events ...store.Message) (changed []*Row) {
	for _, e := range events {
		switch {
		case l.lo == 0:
			l.lo = e.Seq
		case e.Seq <= l.hi:
			continue
		case e.Seq > l.hi+1:
			return changed
		}
		l.hi = e.Seq
		row, target := l.take(e)
		if row != nil {
			l.rows = append(l.rows, row)
		} else if i, there := l.Index(target); there {
			l.draw(l.rows[i])
			changed = append(changed, l.rows[i])
		}
	}
	return changed
}

// Prepend adds a page: the events before Lo, in order. Events from Lo on are
// skipped, and so is everything before a gap. It returns how many rows came to be
// at the beginning of Rows. No row that was there before looks different: an event
// changes earlier ones only.
func (l *Log) Prepend(events ...store.Message) (added int) {
	if l.lo == 0 {
		l.Append(newest(events)...)
		return len(l.rows)
	}
	var page []*Row
	for _, e := range slices.Backward(events) {
		if e.Seq >= l.lo {
			continue
		}
		if e.Seq+1 != l.lo {
			break
		}
		l.lo = e.Seq
		if row, _ := l.take(e); row != nil {
			page = append(page, row)
		}
	}
	for _, row := range page {
		l.draw(row) // what changes it may stand before it in page
	}
	slices.Reverse(page)
	l.rows = slices.Concat(page, l.rows)
	return len(page)
}

// newest is the end of events that has no gap.
func newest(events []store.Message) []store.Message {
	for i := len(events) - 1; i > 0; i-- {
		if events[i-1].Seq+1 != events[i].Seq {
			return events[i:]
		}
	}
	return events
}

// Trim forgets the oldest rows but n, and the events before the first one that is
// left.
func (l *Log) Trim(n int) {
	over := len(l.rows) - max(n, 1)
	if over <= 0 {
		return
	}
	l.rows = slices.Clone(l.rows[over:])
	l.lo = l.rows[0].Event.Seq
	for seq, list := range l.changes {
		list = slices.DeleteFunc(list, func(e store.Message) bool { return e.Seq < l.lo })
		if l.changes[seq] = list; len(list) == 0 {
			delete(l.changes, seq)
		}
	}
}

// take returns the row that an event makes, or else keeps the event with those
// that change the row of another one and returns that one's number.
func (l *Log) take(e store.Message) (*Row, uint64) {
	k, known := l.table()[e.Kind]
	if known && k.changes != nil {
		seq, _ := k.changes(e)
		if l.changes == nil {
			l.changes = map[uint64][]store.Message{}
		}
		l.changes[seq] = append(l.changes[seq], e)
		return nil, seq
	}
	row := &Row{Event: e}
	l.draw(row)
	return row, 0
}

// draw makes a row anew from its event and all that was said about it.
func (l *Log) draw(r *Row) {
	*r = Row{Event: r.Event}
	k, known := l.table()[r.Event.Kind]
	if r.Hidden = !known; known {
		k.show(r)
	}
	list := l.changes[r.Event.Seq]
	slices.SortFunc(list, func(a, b store.Message) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, e := range list {
		if e.Seq > r.Event.Seq {
			_, change := l.table()[e.Kind].changes(e)
			change(r)
		}
	}
}

func (l *Log) table() map[uint32]kind {
	if l.kinds == nil {
		return kinds
	}
	return l.kinds
}
