package tui

import (
	"time"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// entry is one message of a chat: of the log, or on its way there. A message
// keeps its entry when it reaches the log, so that the view does not move.
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

func loggedEntry(m client.Message, me uint64) *entry {
	e := &entry{
		seq: m.Seq, id: m.ID, sender: m.Sender, mine: m.Sender == me, at: m.At,
		state: client.Acknowledged, text: clean(m.Text),
	}
	if m.Kind != store.KindText {
		e.text = "[a newer msrchat is needed to show this message]"
	}
	return e
}

func outgoingEntry(o client.Outgoing, me uint64) *entry {
	e := &entry{id: o.ID, sender: me, mine: true, at: o.At, text: clean(o.Text), raw: o.Text, order: o.Order}
	e.settle(o)
	return e
}

// settle takes over what is known of an outgoing message. What was settled stays
// so: news may overtake one another.
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
