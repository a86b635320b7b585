package check_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// world makes up a healthy history: people in several conversations, some on
// several devices that come late, go early, lose their connection and come back.
type world struct {
	*history
	rnd   *rand.Rand
	heads map[uint64]uint64
	// from is where a device's view of a conversation begins.
	from map[string]map[uint64]uint64
	gone map[string]bool
	n    uint64
}

func healthy(seed uint64) *history {
	w := &world{
		history: newHistory(make(map[uint64][]uint64)), rnd: rand.New(rand.NewPCG(seed, 0)),
		heads: make(map[uint64]uint64), from: make(map[string]map[uint64]uint64), gone: make(map[string]bool),
	}
	users := 2 + w.rnd.Uint64N(4)
	for c := range 1 + w.rnd.Uint64N(4) {
		members := []uint64{1, 2} // so that somebody is in all of them
		for u := uint64(3); u <= users; u++ {
			if w.rnd.IntN(2) == 0 {
				members = append(members, u)
			}
		}
		w.run.Members[100+c] = members
	}
	for u := range users {
		w.join(0, u+1)
	}
	steps := 20 + w.rnd.IntN(60)
	for i := range steps {
		when := quiet * float64(i) / float64(steps)
		w.talk(when)
		switch w.rnd.IntN(16) {
		case 0:
			w.join(when+0.1, 1+w.rnd.Uint64N(users))
		case 1:
			w.reopen(when + 0.1)
		case 2:
			d := w.present()
			d.add(when+0.1, journal.Entry{Kind: journal.Offline})
			d.add(when+0.2, journal.Entry{Kind: journal.Online, Detail: "chat-2"})
		case 3:
			d := w.present()
			w.n++
			d.add(when+0.1, journal.Entry{Kind: journal.Typed, ID: id(w.n), Text: w.n})
			d.add(when+0.1, journal.Entry{Kind: journal.Refused, ID: id(w.n), Text: w.n})
		case 5, 6, 7:
			w.set(when + 0.1)
		case 4:
			// One device of each conversation's members stays to the end.
			if d := w.present(); d.User > 2 {
				d.add(when+0.1, journal.Entry{Kind: journal.Left})
				w.gone[d.Name] = true
			}
		}
	}
	for range 2 { // so that there is something of everybody's
		w.talk(quiet - 0.1)
	}
	return w.history
}

// join opens one more device of a user, which begins at the heads or below.
func (w *world) join(when float64, user uint64) {
	name := fmt.Sprintf("device %d", len(w.devices))
	from, listed := make(map[uint64]uint64), make(map[uint64]uint64)
	for c, members := range w.run.Members {
		if head := w.heads[c]; head > 0 && slices.Contains(members, user) {
			from[c], listed[c] = head, head
		}
	}
	w.from[name] = from
	w.learn(when, w.open(when, user, name, listed))
}

// set has a person mark as read or type a draft, or two of their devices cross, so
// that one draft stands below the other.
func (w *world) set(when float64) {
	d := w.present()
	mine := w.of(d.User)
	if len(mine) == 0 {
		return
	}
	c := mine[w.rnd.IntN(len(mine))]
	w.n++
	text := fmt.Sprintf("draft %d\nof two lines", w.n)
	switch head := w.heads[c]; w.rnd.IntN(4) {
	case 0:
		w.draft(when, d, c, "")
	case 1:
		w.draft(when, d, c, text)
		d.add(when+0.05, journal.Entry{Kind: journal.Drafted, Conversation: c, Text: journal.Digest("mine")})
		s := w.state(d.User, c)
		s.Draft += "\nmine"
		w.publish(when+0.06, s)
	default:
		if head > 0 {
			w.mark(when, d, c, 1+w.rnd.Uint64N(head))
		}
	}
}

// of are a user's conversations.
func (w *world) of(user uint64) (mine []uint64) {
	for c := uint64(100); c < 100+uint64(len(w.run.Members)); c++ {
		if slices.Contains(w.run.Members[c], user) {
			mine = append(mine, c)
		}
	}
	return mine
}

// reopen closes a device and opens it again on its store.
func (w *world) reopen(when float64) {
	d := w.present()
	d.add(when, journal.Entry{Kind: journal.Left})
	w.open(when, d.User, d.Name, w.heads)
}

func (w *world) present() *device {
	for {
		if d := w.devices[w.rnd.IntN(len(w.devices))]; !w.gone[d.Name] {
			return d
		}
	}
}

// talk has a device say something, which those who are there are shown.
func (w *world) talk(when float64) {
	d := w.present()
	mine := w.of(d.User)
	if len(mine) == 0 {
		return
	}
	c := mine[w.rnd.IntN(len(mine))]
	w.n++
	w.heads[c]++
	r := w.say(when, d, c, w.heads[c], w.n)
	if w.rnd.IntN(20) == 0 {
		d.remove(len(d.entries) - 1) // it never learned that it was acknowledged
	}
	for _, d := range w.devices {
		if !w.gone[d.Name] && slices.Contains(w.run.Members[c], d.User) {
			d.add(when+0.02+w.rnd.Float64()/100, shown(r))
		}
	}
}

// mutation breaks a history in one place that random numbers choose, after which
// want must be found. It returns false where the history has no such place.
type mutation struct {
	name  string
	want  check.Kind
	spoil func(h *history, rnd *rand.Rand) bool
}

// pick chooses a random entry of a kind.
func (h *history) pick(rnd *rand.Rand, kind journal.Kind) (d *device, i int) {
	for range 100 {
		d = h.devices[rnd.IntN(len(h.devices))]
		n := 0
		for _, e := range d.entries {
			if e.Kind == kind {
				n++
			}
		}
		if n > 0 {
			return d, d.find(kind, rnd.IntN(n))
		}
	}
	return nil, 0
}

// row finds where the log has a message.
func (h *history) row(id [16]byte) int {
	return slices.IndexFunc(h.run.Log, func(r check.Row) bool { return r.ID == id })
}

func mutations() []mutation {
	// onEntry changes a random entry of a kind.
	onEntry := func(kind journal.Kind, change func(h *history, d *device, i int) bool) func(*history, *rand.Rand) bool {
		return func(h *history, rnd *rand.Rand) bool {
			d, i := h.pick(rnd, kind)
			return d != nil && change(h, d, i)
		}
	}
	onRow := func(change func(h *history, r *check.Row)) func(*history, *rand.Rand) bool {
		return func(h *history, rnd *rand.Rand) bool {
			change(h, &h.run.Log[rnd.IntN(len(h.run.Log))])
			return true
		}
	}
	return append([]mutation{
		{"an acknowledged row is gone", check.Lost, onEntry(journal.Acked, func(h *history, d *device, i int) bool {
			at := h.row(d.entries[i].ID)
			h.run.Log = slices.Delete(h.run.Log, at, at+1)
			return true
		})},
		{"a row is doubled", check.Doubled, onRow(func(h *history, r *check.Row) {
			again := *r
			again.Seq += 1000
			h.run.Log = append(h.run.Log, again)
		})},
		{"a row's text is altered", check.Altered, onRow(func(_ *history, r *check.Row) { r.Text++ })},
		{"a row's sender is altered", check.Altered, onRow(func(_ *history, r *check.Row) { r.Sender++ })},
		{"a row's id is altered", check.Untyped, onRow(func(_ *history, r *check.Row) { r.ID[0]++ })},
		{"a row is renumbered", check.Gap, onRow(func(_ *history, r *check.Row) { r.Seq += 1000 })},
		{
			"an acknowledgement is renumbered", check.Renumbered,
			onEntry(journal.Acked, func(_ *history, d *device, i int) bool {
				d.entries[i].Seq++
				return true
			}),
		},
		{"two of one device change places", check.Reordered, swapped},
		{"an outcome is gone", check.Unsettled, onEntry(journal.Refused, func(h *history, d *device, i int) bool {
			d.remove(i)
			return d.entries[len(d.entries)-1].Kind != journal.Left
		})},
		{"one is not shown", check.Missing, onEntry(journal.Shown, func(h *history, d *device, i int) bool {
			e := d.entries[i]
			d.remove(i)
			if d.entries[len(d.entries)-1].Kind != journal.Left {
				return true // what was shown first by a newcomer is above the head that it joined at
			}
			return slices.ContainsFunc(d.entries[i:], func(l journal.Entry) bool {
				return l.Kind == journal.Shown && l.Conversation == e.Conversation
			})
		})},
		{"one is shown twice", check.Repeated, func(h *history, rnd *rand.Rand) bool {
			d, i := h.pick(rnd, journal.Shown)
			if d != nil {
				d.insert(i+rnd.IntN(len(d.entries)-i), d.entries[i])
			}
			return d != nil
		}},
		{
			"two are shown in the wrong order", check.Disordered,
			onEntry(journal.Shown, func(_ *history, d *device, i int) bool {
				for j := i + 1; j < len(d.entries); j++ {
					if d.entries[j].Kind == journal.Shown && d.entries[j].Conversation == d.entries[i].Conversation {
						d.entries[i], d.entries[j] = d.entries[j], d.entries[i]
						return true
					}
				}
				return false
			}),
		},
		{"a shown text is altered", check.Distorted, onEntry(journal.Shown, func(_ *history, d *device, i int) bool {
			d.entries[i].Text++
			return true
		})},
		{"a ghost is shown", check.Ghost, onEntry(journal.Shown, func(_ *history, d *device, i int) bool {
			ghost := d.entries[i]
			ghost.ID[0]++
			ghost.Seq += 1000
			d.insert(i, ghost)
			return true
		})},
		{"somebody else is shown one", check.Foreign, onEntry(journal.Shown, func(h *history, d *device, i int) bool {
			h.open(0, 99, "carol", nil).add(50, d.entries[i])
			return true
		})},
		{"the last is shown late", check.Late, onEntry(journal.Shown, func(_ *history, d *device, i int) bool {
			last := i
			for j := i + 1; j < len(d.entries); j++ {
				switch e := d.entries[j]; {
				case e.Kind == journal.Left:
					return false
				case e.Kind == journal.Shown && e.Conversation == d.entries[i].Conversation:
					last = j
				}
			}
			e := d.entries[last]
			d.remove(last)
			d.add(quiet+heartbeat.Seconds()+0.1, e)
			return true
		})},
	}, ownMutations()...)
}

// swapped exchanges the places of two messages of one device and conversation, as
// everybody sees it.
func swapped(h *history, rnd *rand.Rand) bool {
	d, i := h.pick(rnd, journal.Acked)
	if d == nil {
		return false
	}
	for _, e := range d.entries[i+1:] {
		if e.Kind == journal.Acked && e.Conversation == d.entries[i].Conversation {
			a, b := h.row(d.entries[i].ID), h.row(e.ID)
			h.swap(h.run.Log[a].Text, h.run.Log[b].Text)
			return true
		}
	}
	return false
}

// mustBeHealthy makes a history, in which nothing may be found.
func mustBeHealthy(t *testing.T, seed uint64) {
	t.Helper()
	if report := healthy(seed).built().Check(); report.Err() != nil || report.Complete == 0 {
		t.Fatalf("seed %d, healthy:\n%s", seed, report)
	}
}

// mustBeFound breaks a healthy history, which must be found. It says whether
// there was something to break.
func mustBeFound(t *testing.T, seed uint64, m mutation) bool {
	t.Helper()
	h := healthy(seed)
	if !m.spoil(h, rand.New(rand.NewPCG(seed, 1))) {
		return false
	}
	if report := h.built().Check(); report.Count(m.want) == 0 {
		t.Fatalf("seed %d, %s: not found:\n%s", seed, m.name, report)
	}
	return true
}

func TestRandomHistories(t *testing.T) {
	const seeds = 25
	for seed := range uint64(4 * seeds) {
		mustBeHealthy(t, seed)
	}
	for _, m := range mutations() {
		t.Run(m.name, func(t *testing.T) {
			tried := 0
			for seed := range uint64(seeds) {
				if mustBeFound(t, seed, m) {
					tried++
				}
			}
			if tried < seeds/5 {
				t.Errorf("only %d histories could be broken this way", tried)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(uint64(1), uint8(0))
	all := mutations()
	f.Fuzz(func(t *testing.T, seed uint64, which uint8) {
		mustBeHealthy(t, seed)
		mustBeFound(t, seed, all[int(which)%len(all)])
	})
}
