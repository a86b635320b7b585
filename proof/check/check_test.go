package check_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// each applies a change to every entry that is about a message.
func (h *history) each(n uint64, change func(*journal.Entry)) {
	for _, d := range h.devices {
		for i := range d.entries {
			if d.entries[i].ID == id(n) {
				change(&d.entries[i])
			}
		}
	}
}

// drop removes the entries of a kind that are about a message.
func (h *history) drop(kind journal.Kind, n uint64) {
	for _, d := range h.devices {
		d.entries = slices.DeleteFunc(d.entries, func(e journal.Entry) bool { return e.Kind == kind && e.ID == id(n) })
	}
}

// swap exchanges the places of messages a and b in the log, as everybody sees it.
func (h *history) swap(a, b uint64) {
	row := func(n uint64) int {
		return slices.IndexFunc(h.run.Log, func(r check.Row) bool { return r.ID == id(n) })
	}
	i, j := row(a), row(b)
	h.run.Log[i].Seq, h.run.Log[j].Seq = h.run.Log[j].Seq, h.run.Log[i].Seq
	for _, d := range h.devices {
		for k, e := range d.entries {
			switch {
			case e.Kind == journal.Shown && e.ID == id(a):
				d.entries[k] = shown(h.run.Log[j])
			case e.Kind == journal.Shown && e.ID == id(b):
				d.entries[k] = shown(h.run.Log[i])
			case e.Kind == journal.Acked && e.ID == id(a):
				d.entries[k].Seq = h.run.Log[i].Seq
			case e.Kind == journal.Acked && e.ID == id(b):
				d.entries[k].Seq = h.run.Log[j].Seq
			}
			d.entries[k].At = e.At
		}
	}
}

type broken struct {
	name  string
	spoil func(h *history)
	want  []check.Kind
}

// Each broken history is found, and called by its name and no other.
func TestBrokenHistories(t *testing.T) {
	for _, c := range slices.Concat(logs(), screens(), times(), owns(), samples()) {
		t.Run(c.name, func(t *testing.T) {
			h := small()
			c.spoil(h)
			report := h.built().Check()
			var got []check.Kind
			for _, v := range report.Violations {
				got = append(got, v.Kind)
				if v.Count < len(v.Examples) || len(v.Examples) == 0 || report.Count(v.Kind) != v.Count {
					t.Errorf("%s: %d times with %d examples", v.Kind, v.Count, len(v.Examples))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +:\n%s\n%s", diff, report)
			}
			if err := report.Err(); (err == nil) != (len(c.want) == 0) {
				t.Errorf("the error is %v", err)
			}
			for _, k := range c.want {
				if !strings.Contains(report.Err().Error(), string(k)) ||
					!strings.Contains(report.String(), strings.ToUpper(string(k))) {
					t.Errorf("%s is not named in %v or in:\n%s", k, report.Err(), report)
				}
			}
		})
	}
}

// logs are faults of the log and of what was acknowledged.
func logs() []broken {
	row := func(h *history, n int) *check.Row { return &h.run.Log[n-1] }
	return []broken{
		{"healthy", func(*history) {}, nil},
		{"acknowledged before the commit", func(h *history) {
			h.run.Log = h.run.Log[:3]
			h.drop(journal.Shown, 4)
		}, []check.Kind{check.Lost}},
		{"a row that was shown is gone", func(h *history) {
			h.run.Log = slices.Delete(h.run.Log, 1, 2)
		}, []check.Kind{check.Lost, check.Gap, check.Ghost}},
		{"a retry logged a second time", func(h *history) {
			again := *row(h, 1)
			again.Seq = 5
			h.run.Log = append(h.run.Log, again)
			h.show(50, again)
		}, []check.Kind{check.Doubled}},
		{"logged in two conversations", func(h *history) {
			h.run.Members[8] = []uint64{1, 2}
			again := *row(h, 2)
			again.Conversation, again.Seq = 8, 1
			h.run.Log = append(h.run.Log, again)
			h.show(50, again)
		}, []check.Kind{check.Doubled}},
		{"acknowledged at another number", func(h *history) {
			h.each(4, func(e *journal.Entry) {
				if e.Kind == journal.Acked {
					e.Seq = 5
				}
			})
		}, []check.Kind{check.Renumbered}},
		{"acknowledged in another conversation", func(h *history) {
			h.each(4, func(e *journal.Entry) {
				if e.Kind == journal.Acked {
					e.Conversation = 8
				}
			})
		}, []check.Kind{check.Renumbered}},
		{"another text than typed", func(h *history) {
			row(h, 2).Text = 99
			h.each(2, func(e *journal.Entry) {
				if e.Kind == journal.Shown {
					e.Text = 99
				}
			})
		}, []check.Kind{check.Altered}},
		{"another sender than typed", func(h *history) {
			row(h, 2).Sender = 1
			h.each(2, func(e *journal.Entry) {
				if e.Kind == journal.Shown {
					e.Sender = 1
				}
			})
		}, []check.Kind{check.Altered}},
		{"a number is left out", func(h *history) {
			row(h, 4).Seq = 6
			h.each(4, func(e *journal.Entry) {
				if e.Kind != journal.Typed {
					e.Seq = 6
				}
			})
		}, []check.Kind{check.Gap}},
		{"a number is taken twice", func(h *history) {
			h.say(45, h.device("bob"), 7, 4, 5)
		}, []check.Kind{check.Gap, check.Missing}},
		{"nobody typed it", func(h *history) {
			r := check.Row{Conversation: 7, Seq: 5, Sender: 2, ID: id(5), Text: 5}
			h.run.Log = append(h.run.Log, r)
			h.show(50, r)
		}, []check.Kind{check.Untyped}},
		{"in another order than typed", func(h *history) { h.swap(1, 3) }, []check.Kind{check.Reordered}},
		{"two people's messages cross", func(h *history) { h.swap(1, 2) }, nil},
		{"refused and logged", func(h *history) {
			h.each(4, func(e *journal.Entry) {
				if e.Kind == journal.Acked {
					e.Kind, e.Seq = journal.Refused, 0
				}
			})
		}, []check.Kind{check.Rejected}},
		{"refused", func(h *history) {
			bob := h.device("bob")
			bob.add(50, journal.Entry{Kind: journal.Typed, ID: id(5), Text: 5})
			bob.add(50, journal.Entry{Kind: journal.Refused, ID: id(5), Text: 5})
		}, nil},
		{"no outcome", func(h *history) {
			h.device("bob").add(50, journal.Entry{Kind: journal.Typed, ID: id(5), Text: 5})
		}, []check.Kind{check.Unsettled}},
		{"no outcome recorded, but logged", func(h *history) { h.drop(journal.Acked, 3) }, nil},
	}
}

// screens are faults of what devices showed.
func screens() []broken {
	change := func(n int, change func(*journal.Entry)) func(*history) {
		return func(h *history) {
			d := h.device("bob")
			change(&d.entries[d.find(journal.Shown, n-1)])
		}
	}
	return []broken{
		{"one left out", func(h *history) {
			h.device("bob").remove(h.device("bob").find(journal.Shown, 1))
		}, []check.Kind{check.Missing}},
		{"the last one left out", func(h *history) {
			h.device("ann's other").remove(h.device("ann's other").find(journal.Shown, 3))
		}, []check.Kind{check.Missing}},
		{"nothing shown", func(h *history) {
			d := h.device("bob")
			d.entries = slices.DeleteFunc(d.entries, func(e journal.Entry) bool { return e.Kind == journal.Shown })
		}, []check.Kind{check.Missing}},
		{"twice", func(h *history) {
			h.device("bob").add(50, shown(h.run.Log[1]))
		}, []check.Kind{check.Repeated}},
		{"out of order", func(h *history) {
			d := h.device("bob")
			i, j := d.find(journal.Shown, 1), d.find(journal.Shown, 2)
			d.entries[i], d.entries[j] = d.entries[j], d.entries[i]
		}, []check.Kind{check.Disordered}},
		{"another order than the others", func(h *history) {
			d := h.device("bob")
			a, b := &d.entries[d.find(journal.Shown, 1)], &d.entries[d.find(journal.Shown, 2)]
			a.ID, b.ID = b.ID, a.ID
		}, []check.Kind{check.Distorted}},
		{"another text", change(2, func(e *journal.Entry) { e.Text = 99 }), []check.Kind{check.Distorted}},
		{"another sender", change(2, func(e *journal.Entry) { e.Sender = 1 }), []check.Kind{check.Distorted}},
		{
			"at a number that nothing has", change(4, func(e *journal.Entry) { e.Seq = 9 }),
			[]check.Kind{check.Missing, check.Distorted},
		},
		{"from nowhere", func(h *history) {
			h.device("bob").add(50, shown(check.Row{Conversation: 7, Seq: 5, Sender: 1, ID: id(5), Text: 5}))
		}, []check.Kind{check.Ghost}},
		{
			"from nowhere in another's place", change(2, func(e *journal.Entry) { e.ID = id(77) }),
			[]check.Kind{check.Ghost},
		},
		{"to somebody else", func(h *history) {
			h.run.Members[8] = []uint64{2, 3}
			carol := h.open(0, 3, "carol", nil)
			h.show(50, h.say(50, carol, 8, 1, 5))
			carol.add(50, shown(h.run.Log[0]))
		}, []check.Kind{check.Foreign}},
		{"a conversation that does not exist", func(h *history) {
			r := h.run.Log[0]
			r.Conversation = 99
			h.device("bob").add(50, shown(r))
		}, []check.Kind{check.Foreign}},
	}
}

// times are faults of when, and devices that were not there all the time.
func times() []broken {
	// lateBy moves bob's last message to after quiet.
	lateBy := func(h *history, after float64) *device {
		d := h.device("bob")
		d.remove(d.find(journal.Shown, 3))
		d.add(quiet+after, shown(h.run.Log[3]))
		return d
	}
	// reconnect takes a device offline and back, before its last entry.
	reconnect := func(d *device, from, to float64) {
		last := len(d.entries) - 2
		d.insert(last, journal.Entry{At: at(to), Kind: journal.Online})
		d.insert(last, journal.Entry{At: at(from), Kind: journal.Offline})
	}
	// newcomer opens a device of ann's after two messages; it shows from the third on.
	newcomer := func(h *history, heads map[uint64]uint64) *device {
		d := h.open(25, 1, "new", heads)
		d.add(30.1, shown(h.run.Log[2]))
		d.add(40.1, shown(h.run.Log[3]))
		h.learn(50, d)
		return d
	}
	beat := heartbeat.Seconds()
	return []broken{
		{"within a heartbeat", func(h *history) { lateBy(h, beat) }, nil},
		{"late", func(h *history) { lateBy(h, beat+0.1) }, []check.Kind{check.Late}},
		{"healed by a reconnect", func(h *history) {
			reconnect(lateBy(h, beat+0.3), quiet+beat+0.1, quiet+beat+0.2)
		}, []check.Kind{check.Late}},
		{"late because it was offline", func(h *history) {
			reconnect(lateBy(h, 3*beat), quiet+0.9*beat, quiet+2.5*beat)
		}, nil},
		{"late after it was offline", func(h *history) {
			reconnect(lateBy(h, 4*beat), quiet+0.9*beat, quiet+2.5*beat)
		}, []check.Kind{check.Late}},
		{"late, and reports no connections", func(h *history) {
			d := lateBy(h, beat+0.1)
			d.remove(d.find(journal.Online, 0))
		}, []check.Kind{check.Late}},
		{"acknowledged late", func(h *history) {
			lateBy(h, beat+0.1)
			h.each(4, func(e *journal.Entry) {
				if e.Kind == journal.Acked {
					e.At = at(quiet + 1)
				}
			})
		}, nil},
		{"a newcomer", func(h *history) { newcomer(h, map[uint64]uint64{7: 2}) }, nil},
		{"a newcomer that was shown more", func(h *history) { newcomer(h, map[uint64]uint64{7: 3}) }, nil},
		{
			"a newcomer that lacks the first", func(h *history) { newcomer(h, map[uint64]uint64{7: 1}) },
			[]check.Kind{check.Missing},
		},
		{"a newcomer to a new conversation", func(h *history) { newcomer(h, nil) }, []check.Kind{check.Missing}},
		{"a newcomer that lacks the last", func(h *history) {
			d := newcomer(h, map[uint64]uint64{7: 2})
			d.remove(d.find(journal.Shown, 1))
		}, []check.Kind{check.Missing}},
		{"opened again on its store", func(h *history) {
			d := h.device("ann's other")
			i := d.find(journal.Shown, 1)
			for _, e := range []journal.Entry{
				{Kind: journal.Joined},
				{Kind: journal.Joined, Conversation: 7, Seq: 3},
				{Kind: journal.LoggedIn},
				{Kind: journal.Left},
			} {
				e.At = at(25)
				d.insert(i, e)
			}
		}, nil},
		{"opened again, and skips one", func(h *history) {
			d := h.device("ann's other")
			d.remove(d.find(journal.Shown, 2))
			i := d.find(journal.Shown, 1)
			for _, e := range []journal.Entry{
				{Kind: journal.Joined},
				{Kind: journal.Joined, Conversation: 7, Seq: 3},
				{Kind: journal.LoggedIn},
				{Kind: journal.Left},
			} {
				e.At = at(25)
				d.insert(i, e)
			}
		}, []check.Kind{check.Missing}},
		{"left before the end", func(h *history) {
			d := h.device("bob")
			d.entries = d.entries[:d.find(journal.Shown, 3)]
			d.add(45, journal.Entry{Kind: journal.Typed, ID: id(5), Text: 5})
			d.add(46, journal.Entry{Kind: journal.Left})
		}, nil},
		{"left, and lacked one", func(h *history) {
			d := h.device("bob")
			d.remove(d.find(journal.Shown, 1))
			d.add(46, journal.Entry{Kind: journal.Left})
		}, []check.Kind{check.Missing}},
		{"left when it was quiet", func(h *history) {
			d := h.device("bob")
			d.remove(d.find(journal.Shown, 3))
			d.add(quiet+0.1, journal.Entry{Kind: journal.Left})
		}, []check.Kind{check.Missing}},
		{"never joined", func(h *history) {
			d := h.device("bob")
			d.remove(d.find(journal.Joined, 0))
		}, []check.Kind{check.Unjoined}},
		{"restored", func(h *history) {
			h.device("bob").add(50, journal.Entry{Kind: journal.Reset})
		}, []check.Kind{check.Reset}},
	}
}

// samples are runs that prove nothing.
func samples() []broken {
	unsettled := func(h *history) {
		d := h.device("bob")
		d.remove(d.find(journal.Shown, 3))
		d.add(50, journal.Entry{Kind: journal.Typed, ID: id(5), Text: 5})
	}
	return []broken{
		{"not quiet", func(h *history) { h.run.Quiet = time.Time{}; unsettled(h) }, []check.Kind{check.Restless}},
		{"interrupted", func(h *history) { h.run.Quiet, h.run.Interrupted = time.Time{}, true; unsettled(h) }, nil},
		{"interrupted when it was quiet", func(h *history) { h.run.Interrupted = true; unsettled(h) }, nil},
		{"interrupted, and one left out", func(h *history) {
			h.run.Quiet, h.run.Interrupted = time.Time{}, true
			h.device("bob").remove(h.device("bob").find(journal.Shown, 1))
		}, []check.Kind{check.Missing}},
		{"empty", func(h *history) { *h = *newHistory(nil) }, []check.Kind{check.NoSample}},
		{"nobody typed", func(h *history) {
			*h = *newHistory(map[uint64][]uint64{7: {1, 2}})
			h.open(0, 1, "ann", nil)
			h.open(0, 2, "bob", nil)
		}, []check.Kind{check.NoSample}},
		{"nothing acknowledged", func(h *history) {
			for n := range uint64(5) {
				h.drop(journal.Acked, n)
			}
		}, []check.Kind{check.NoSample}},
		{"fewer than required", func(h *history) { h.run.Minimum = 5 }, []check.Kind{check.NoSample}},
		{"as many as required", func(h *history) { h.run.Minimum = 4 }, nil},
		{"everybody left", func(h *history) {
			for _, d := range h.devices {
				d.add(50, journal.Entry{Kind: journal.Left})
			}
		}, []check.Kind{check.NoSample}},
	}
}
