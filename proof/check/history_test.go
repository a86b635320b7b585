package check_test

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// history is a run that tests make up and break.
type history struct {
	devices []*device
	run     check.Run
}

type device struct {
	journal.Device
	entries []journal.Entry
}

const heartbeat = 2 * time.Second

// began is when histories begin; typing stops a minute later.
var began = time.Now().Add(-time.Hour)

func at(seconds float64) time.Time {
	return began.Add(time.Duration(seconds * float64(time.Second)))
}

const quiet = 60.0

func newHistory(members map[uint64][]uint64) *history {
	return &history{run: check.Run{Members: members, Quiet: at(quiet), Heartbeat: heartbeat}}
}

// built is the run as a checker gets it.
func (h *history) built() *check.Run {
	run := h.run
	for _, d := range h.devices {
		j := journal.New(d.Device)
		for _, e := range d.entries {
			j.Add(e)
		}
		run.Journals = append(run.Journals, j)
	}
	return &run
}

func (h *history) device(name string) *device {
	for _, d := range h.devices {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// open begins a device that shows every conversation above its head in heads.
func (h *history) open(when float64, user uint64, name string, heads map[uint64]uint64) *device {
	d := h.device(name)
	if d == nil {
		d = &device{Device: journal.Device{User: user, Name: name}}
		h.devices = append(h.devices, d)
	}
	d.add(when, journal.Entry{Kind: journal.LoggedIn})
	d.add(when, journal.Entry{Kind: journal.Online, Detail: "chat-1"})
	for conversation, head := range heads {
		d.add(when, journal.Entry{Kind: journal.Joined, Conversation: conversation, Seq: head})
	}
	d.add(when, journal.Entry{Kind: journal.Joined})
	return d
}

func (d *device) add(when float64, e journal.Entry) {
	e.At = at(when)
	d.entries = append(d.entries, e)
}

// find is where a device's nth entry of a kind is, or -1.
func (d *device) find(kind journal.Kind, n int) int {
	for i, e := range d.entries {
		if e.Kind == kind {
			if n--; n < 0 {
				return i
			}
		}
	}
	return -1
}

func (d *device) remove(i int) { d.entries = slices.Delete(d.entries, i, i+1) }

// insert puts an entry after the ith.
func (d *device) insert(i int, e journal.Entry) { d.entries = slices.Insert(d.entries, i+1, e) }

func id(n uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

// say has a device type message n: it is acknowledged and in the log.
func (h *history) say(when float64, d *device, conversation, seq, n uint64) check.Row {
	r := check.Row{Conversation: conversation, Seq: seq, Sender: d.User, ID: id(n), Text: n}
	h.run.Log = append(h.run.Log, r)
	d.add(when, journal.Entry{Kind: journal.Typed, ID: r.ID, Conversation: conversation, Sender: d.User, Text: n})
	d.add(when+0.01, journal.Entry{
		Kind: journal.Acked, ID: r.ID, Conversation: conversation, Seq: seq, Sender: d.User, Text: n,
	})
	return r
}

func shown(r check.Row) journal.Entry {
	return journal.Entry{
		Kind: journal.Shown, ID: r.ID, Conversation: r.Conversation, Seq: r.Seq, Sender: r.Sender, Text: r.Text,
	}
}

// show has every device of the members show a row.
func (h *history) show(when float64, r check.Row) {
	for _, d := range h.devices {
		if slices.Contains(h.run.Members[r.Conversation], d.User) {
			d.add(when, shown(r))
		}
	}
}

// mark has a device's person read a conversation up to a number.
func (h *history) mark(when float64, d *device, conversation, seq uint64) {
	d.add(when, journal.Entry{Kind: journal.Marked, Conversation: conversation, Seq: seq})
	s := h.state(d.User, conversation)
	s.Read = max(s.Read, seq)
	h.publish(when+0.02, s)
}

// draft has a device's person begin a text.
func (h *history) draft(when float64, d *device, conversation uint64, text string) {
	d.add(when, journal.Entry{Kind: journal.Drafted, Conversation: conversation, Text: journal.Digest(text)})
	s := h.state(d.User, conversation)
	s.Draft = text
	h.publish(when+0.02, s)
}

// state is a user's own state in the database, which is made.
func (h *history) state(user, conversation uint64) *check.State {
	for i := range h.run.States {
		if s := &h.run.States[i]; s.User == user && s.Conversation == conversation {
			return s
		}
	}
	h.run.States = append(h.run.States, check.State{User: user, Conversation: conversation})
	return &h.run.States[len(h.run.States)-1]
}

// publish gives a state its next number, and to every device of the user that
// has not left.
func (h *history) publish(when float64, s *check.State) {
	s.Number++
	for _, d := range h.devices {
		if d.User == s.User && d.entries[len(d.entries)-1].Kind != journal.Left {
			d.add(when, stated(*s))
		}
	}
}

// learn gives a device all own states of its user.
func (h *history) learn(when float64, d *device) {
	for _, s := range h.run.States {
		if s.User == d.User {
			d.add(when, stated(s))
		}
	}
}

func stated(s check.State) journal.Entry {
	return journal.Entry{
		Kind: journal.Stated, Conversation: s.Conversation,
		Number: s.Number, Seq: s.Read, Text: journal.Digest(s.Draft),
	}
}

// small is the history that the tables break: ann (user 1, on two devices) and
// bob (user 2) in conversation 7. ann types 1 and 3, bob 2 and 4. ann's own state
// comes to number 4, bob's to 2.
func small() *history {
	h := newHistory(map[uint64][]uint64{7: {1, 2}})
	ann := h.open(0, 1, "ann", nil)
	other := h.open(0, 1, "ann's other", nil)
	bob := h.open(0, 2, "bob", nil)
	for n := uint64(1); n <= 4; n++ {
		who := ann
		if n%2 == 0 {
			who = bob
		}
		when := float64(n) * 10
		h.show(when+0.02, h.say(when, who, 7, n, n))
		if n == 2 {
			h.mark(21, ann, 7, 2)
			h.mark(22, bob, 7, 1)
			h.draft(23, bob, 7, "perhaps")
		}
	}
	h.draft(41, other, 7, "und")
	h.mark(42, other, 7, 3)
	h.draft(43, ann, 7, "und dann")
	return h
}
