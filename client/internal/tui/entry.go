package tui

import (
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/timeline"
)

// entry is one message of a chat as it is shown: a row of the log, or a message on
// its way there.
type entry struct {
	seq    uint64 // 0 while it is not known to be in the log
	id     client.MessageID
	sender uint64
	mine   bool
	at     time.Time
	text   string // clean
	raw    string // as it was typed, while it is in the outbox
	state  client.SendState
	order  int64  // the place in the outbox
	reason string // why it failed, clean

	block    block // the rendered form
	blockFor look  // what it was rendered for
}

func (e *entry) place() place { return place{e.seq, e.id} }

func rowEntry(r *timeline.Row, me uint64) *entry {
	m := r.Event
	e := &entry{
		seq: m.Seq, id: m.ID, sender: m.Sender, mine: m.Sender == me, at: m.At, state: client.Acknowledged,
	}
	e.show(r)
	return e
}

// show takes over what a row says now.
func (e *entry) show(r *timeline.Row) {
	e.text, e.blockFor = clean(r.Text), look{}
	if r.Hidden {
		e.text = "[a newer msrchat is needed to show this message]"
	}
}

func outgoingEntry(o client.Outgoing, me uint64) *entry {
	e := &entry{id: o.ID, sender: me, mine: true, at: o.At, text: clean(o.Text()), raw: o.Text(), order: o.Order}
	e.settle(o)
	return e
}

// settle takes over the state of an outgoing message. A settled one stays settled:
// events may overtake one another.
func (e *entry) settle(o client.Outgoing) {
	if e.state != client.Queued {
		return
	}
	e.state = o.State
	switch o.State {
	case client.Acknowledged:
		e.seq = o.Seq
		if !o.LoggedAt.IsZero() {
			e.at = o.LoggedAt
		}
	case client.Failed:
		e.reason = cleanLine(o.Reason)
		if e.reason == "" {
			e.reason = "the server refused it"
		}
	}
	e.blockFor = look{}
}
