package check_test

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// owns are faults of own states. ann's other device sets number 2, a draft, and 3,
// a read mark; ann sets 4, another draft.
func owns() []broken {
	const last = 3 // the place of number 4 among the own states of ann's devices
	other := func(h *history) *device { return h.device("ann's other") }
	change := func(n int, change func(*journal.Entry)) func(*history) {
		return func(h *history) {
			d := other(h)
			change(&d.entries[d.find(journal.Stated, n)])
		}
	}
	// everywhere changes the newest state in the database and on all devices.
	everywhere := func(h *history, change func(*check.State)) {
		s := h.state(1, 7)
		change(s)
		for _, d := range []*device{h.device("ann"), other(h)} {
			i := d.find(journal.Stated, last)
			e := stated(*s)
			e.At = d.entries[i].At
			d.entries[i] = e
		}
	}
	merged := func(draft string) func(h *history) {
		return func(h *history) {
			h.draft(44, other(h), 7, "oder\nnicht")
			s := h.state(1, 7)
			s.Draft = draft
			h.publish(45, s)
		}
	}
	list := []broken{
		{
			"a device lacks the newest", func(h *history) { other(h).remove(other(h).find(journal.Stated, last)) },
			[]check.Kind{check.Stale},
		},
		{"a device has none", func(h *history) {
			d := other(h)
			d.entries = slices.DeleteFunc(d.entries, func(e journal.Entry) bool { return e.Kind == journal.Stated })
		}, []check.Kind{check.Stale}},
		{"a device that left lacks the newest", func(h *history) {
			d := other(h)
			d.remove(d.find(journal.Stated, last))
			d.add(50, journal.Entry{Kind: journal.Left})
		}, nil},
		{"interrupted, and a device lacks the newest", func(h *history) {
			h.run.Quiet, h.run.Interrupted = time.Time{}, true
			other(h).remove(other(h).find(journal.Stated, last))
		}, nil},
		{
			"another draft under the newest number", change(last, func(e *journal.Entry) { e.Text++ }),
			[]check.Kind{check.Diverged},
		},
		{
			"another draft under an older number", change(1, func(e *journal.Entry) { e.Text++ }),
			[]check.Kind{check.Diverged},
		},
		{
			"another read mark under the newest number", change(last, func(e *journal.Entry) { e.Seq = 5 }),
			[]check.Kind{check.Diverged, check.Ahead, check.Forgotten},
		},
		{
			"a read mark that fell", change(last, func(e *journal.Entry) { e.Seq = 2 }),
			[]check.Kind{check.Diverged, check.Fallen},
		},
		{"a number that fell", func(h *history) {
			d := other(h)
			before, newest := d.entries[d.find(journal.Stated, last-1)], d.entries[d.find(journal.Stated, last)]
			d.add(45, before)
			d.add(46, newest)
		}, []check.Kind{check.Fallen}},
		{"the same state once more", func(h *history) { h.learn(50, other(h)) }, nil},
		{
			"a number that the database does not have", change(last, func(e *journal.Entry) { e.Number = 9 }),
			[]check.Kind{check.Ahead},
		},
		{"read above the head", func(h *history) {
			h.mark(50, h.device("ann"), 7, 9)
		}, []check.Kind{check.Ahead}},
		{"a read mark that the database lost", func(h *history) {
			h.state(1, 7).Read = 2
		}, []check.Kind{check.Diverged, check.Forgotten}},
		{"a read mark that never came", func(h *history) {
			h.device("ann").add(50, journal.Entry{Kind: journal.Marked, Conversation: 7, Seq: 4})
		}, []check.Kind{check.Forgotten}},
		{"a read mark that never came, of a device that left", func(h *history) {
			d := h.open(44, 1, "gone", map[uint64]uint64{7: 4})
			d.add(45, journal.Entry{Kind: journal.Marked, Conversation: 7, Seq: 4})
			d.add(46, journal.Entry{Kind: journal.Left})
			h.learn(44.5, d)
		}, nil},
		{"a draft that nobody typed", func(h *history) {
			everywhere(h, func(s *check.State) { s.Draft = "und was" })
		}, []check.Kind{check.Undrafted}},
		{"somebody else's draft", func(h *history) {
			everywhere(h, func(s *check.State) { s.Draft = "perhaps" })
		}, []check.Kind{check.Undrafted}},
		{"a draft that lost stands below the one that won", merged("und dann\noder\nnicht"), nil},
		{"three drafts in one", merged("und\noder\nnicht\nund dann"), nil},
		{"a part of what was typed in a draft", merged("und dann\noder"), []check.Kind{check.Undrafted}},
		{"an empty line in a draft", merged("und dann\n"), []check.Kind{check.Undrafted}},
		{"an emptied draft", func(h *history) { h.draft(50, h.device("ann"), 7, "") }, nil},
		{"an own state of a conversation of others", func(h *history) {
			h.run.Members[8] = []uint64{1, 2}
			h.open(0, 3, "carol", nil).add(50, stated(check.State{Conversation: 8, Number: 1}))
		}, []check.Kind{check.Foreign}},
	}
	return append(list, lateStates()...)
}

// lateStates are own states that come when it has been quiet.
func lateStates() []broken {
	beat := heartbeat.Seconds()
	lateBy := func(h *history, after float64) *device {
		d := h.device("ann's other")
		i := d.find(journal.Stated, 3)
		e := d.entries[i]
		d.remove(i)
		d.add(quiet+after, e)
		return d
	}
	return []broken{
		{"an own state within a heartbeat", func(h *history) { lateBy(h, beat) }, nil},
		{"an own state that is late", func(h *history) { lateBy(h, beat+0.1) }, []check.Kind{check.Late}},
		{"an own state that a reconnect brought", func(h *history) {
			d := lateBy(h, beat+0.3)
			last := len(d.entries) - 2
			d.insert(last, journal.Entry{At: at(quiet + beat + 0.2), Kind: journal.Online})
			d.insert(last, journal.Entry{At: at(quiet + beat + 0.1), Kind: journal.Offline})
		}, []check.Kind{check.Late}},
		{"one that is not the newest is late", func(h *history) {
			d := h.device("ann's other")
			i := d.find(journal.Stated, 3)
			newest, before := d.entries[i], d.entries[i-1]
			d.entries = d.entries[:i-1]
			d.add(quiet+0.1, before)
			d.add(quiet+0.2, newest)
		}, nil},
	}
}

// ownMutations break own states.
func ownMutations() []mutation {
	onStated := func(change func(h *history, d *device, i int) bool) func(*history, *rand.Rand) bool {
		return func(h *history, rnd *rand.Rand) bool {
			d, i := h.pick(rnd, journal.Stated)
			return d != nil && change(h, d, i)
		}
	}
	onStored := func(change func(s *check.State) bool) func(*history, *rand.Rand) bool {
		return func(h *history, rnd *rand.Rand) bool {
			return len(h.run.States) > 0 && change(&h.run.States[rnd.IntN(len(h.run.States))])
		}
	}
	return []mutation{
		{"a device lacks the newest own state", check.Stale, onStated(func(_ *history, d *device, i int) bool {
			d.remove(d.newest(i))
			return d.stays()
		})},
		{"an own state is late", check.Late, onStated(func(h *history, d *device, i int) bool {
			i = d.newest(i)
			e := d.entries[i]
			d.remove(i)
			stays := d.stays()
			d.add(quiet+heartbeat.Seconds()+0.1, e)
			return stays
		})},
		{
			"a newest own state has another draft on a device", check.Diverged,
			onStated(func(h *history, d *device, i int) bool {
				i = d.newest(i)
				d.entries[i].Text++
				return d.entries[i].Number == h.state(d.User, d.entries[i].Conversation).Number
			}),
		},
		{"the numbers fall on a device", check.Fallen, onStated(func(h *history, d *device, i int) bool {
			j := d.newest(i)
			d.entries[i], d.entries[j] = d.entries[j], d.entries[i]
			return i != j
		})},
		{"a read mark is above the head", check.Ahead, onStated(func(h *history, d *device, i int) bool {
			d.entries[i].Seq += 1000
			return true
		})},
		{"somebody else has an own state", check.Foreign, onStated(func(h *history, d *device, i int) bool {
			h.open(0, 99, "carol", nil).add(50, d.entries[i])
			return true
		})},
		{"the database lost an own state", check.Ahead, onStored(func(s *check.State) bool {
			s.Number--
			return true
		})},
		{"the database lost a read mark", check.Forgotten, onStored(func(s *check.State) bool {
			s.Read--
			return s.Read+1 > 0
		})},
		{"the database has a draft that nobody typed", check.Undrafted, onStored(func(s *check.State) bool {
			s.Draft += "."
			return true
		})},
	}
}

// newest is where the last own state is of the same conversation as the ith entry.
func (d *device) newest(i int) int {
	last := i
	for j, e := range d.entries {
		if e.Kind == journal.Stated && e.Conversation == d.entries[i].Conversation {
			last = j
		}
	}
	return last
}

// stays says whether the device is there at the end.
func (d *device) stays() bool { return d.entries[len(d.entries)-1].Kind != journal.Left }
