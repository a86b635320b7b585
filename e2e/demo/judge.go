package demo

import (
	"cmp"
	"slices"
	"time"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// tally counts what journals say was typed, acknowledged and shown.
func tally(journals []*journal.Journal) (c Counts) {
	for _, j := range journals {
		for e := range j.All() {
			if i := slices.Index([]journal.Kind{journal.Typed, journal.Acked, journal.Shown}, e.Kind); i >= 0 {
				c[i]++
			}
		}
	}
	return c
}

// broken counts what a report says was lost, doubled and reordered.
func broken(r *check.Report) (c Counts) {
	for i, kinds := range [][]check.Kind{
		{check.Lost, check.Renumbered, check.Missing},
		{check.Doubled, check.Repeated},
		{check.Reordered, check.Disordered},
	} {
		for _, k := range kinds {
			c[i] += r.Count(k)
		}
	}
	return c
}

// upTo copies journals without what was shown above a number.
func upTo(head uint64, journals []*journal.Journal) []*journal.Journal {
	copies := make([]*journal.Journal, len(journals))
	for i, j := range journals {
		copies[i] = journal.New(j.Device)
		for e := range j.All() {
			if e.Kind != journal.Shown || e.Seq <= head {
				copies[i].Add(e)
			}
		}
	}
	return copies
}

// judge checks what ann and ben were shown, which may be more than the log of the
// run has. typed are the digests of the texts that the director typed for each, all
// of them acknowledged, and no two of one person equal. With hands, what else the
// log has of a person was typed by hand, and must be shown like the rest.
func judge(run *check.Run, typed [2][]uint64, hands bool) (report *check.Report, byHand int) {
	slices.SortFunc(run.Log, func(a, b check.Row) int { return cmp.Compare(a.Seq, b.Seq) })
	run.Journals = upTo(uint64(len(run.Log)), run.Journals)
	for i, j := range run.Journals {
		keyboard := func(name string) *journal.Journal { // it shows nothing, as a device that left
			k := journal.New(journal.Device{User: j.Device.User, Name: names[i] + name})
			k.Add(journal.Entry{Kind: journal.Left, At: run.Quiet.Add(-time.Second)})
			return k
		}
		director, hand := keyboard(" by the director"), keyboard(" by hand")
		typing := func(on *journal.Journal, r check.Row) {
			e := journal.Entry{ID: r.ID, Conversation: r.Conversation, Seq: r.Seq, Sender: r.Sender, Text: r.Text}
			for _, e.Kind = range []journal.Kind{journal.Typed, journal.Acked} {
				e.At = time.UnixMilli(r.At)
				on.Add(e)
			}
		}
		for n, text := range typed[i] {
			is := func(r check.Row) bool { return r.Sender == j.Device.User && r.Text == text }
			row := check.Row{ID: [16]byte{0xff, byte(i), byte(n >> 8), byte(n)}, At: run.Quiet.UnixMilli()} // lost
			if at := slices.IndexFunc(run.Log, is); at >= 0 {
				row = run.Log[at]
			}
			typing(director, row)
		}
		for _, r := range run.Log {
			if hands && r.Sender == j.Device.User && !slices.Contains(typed[i], r.Text) {
				typing(hand, r)
				byHand++
			}
		}
		run.Journals = append(run.Journals, director, hand)
	}
	return run.Check(), byHand
}
