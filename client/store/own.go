package store

import (
	"context"
	"strings"
	"time"
)

// OwnState is what the user has set in a conversation, for all devices of theirs:
// how far they have read, and what they have begun to write. A server keeps it
// under a rising number. What was changed here and not sent to a server yet is
// unsent; the other fields say how far that is.
type OwnState struct {
	// Number is that of the server's state which this one is based on; 0: of none.
	Number uint64
	// Read is the last message that was read, ReadOrdinal its ordinal.
	Read, ReadOrdinal uint64
	Draft             string
	DraftEdited       time.Time // zero where it is not known

	// ServerRead is how far the server knows the user to have read.
	ServerRead uint64
	// DraftUnsent says that the draft was changed here. Base is then the Number on
	// which that began: newer drafts of other devices were not seen when it was
	// typed.
	DraftUnsent bool
	Base        uint64
	// Edits counts the changes of the draft made here: an answer to one of them
	// must not undo the next.
	Edits uint64
}

// Unsent says that there is something to tell the server.
func (o *OwnState) Unsent() bool { return o.Read > o.ServerRead || o.DraftUnsent }

// Same says whether an application would see the same: what is set, under which
// number, and whether a server has it.
func (o *OwnState) Same(p OwnState) bool {
	return o.Number == p.Number && o.Read == p.Read && o.ReadOrdinal == p.ReadOrdinal && o.Draft == p.Draft &&
		o.Unsent() == p.Unsent()
}

// SetRead raises the read mark.
func (o *OwnState) SetRead(seq, ordinal uint64) {
	if seq > o.Read {
		o.Read, o.ReadOrdinal = seq, ordinal
	}
}

// SetDraft replaces the draft as the user typed it at a time.
func (o *OwnState) SetDraft(text string, at time.Time) {
	if text == o.Draft {
		return
	}
	if !o.DraftUnsent {
		o.DraftUnsent, o.Base = true, o.Number
	}
	o.Draft, o.DraftEdited = text, at
	o.Edits++
}

// Take takes over a state from a server. The greater number is the newer
// one; a read mark never falls, and an unsent draft stays until the server has
// judged it.
func (o *OwnState) Take(server OwnState) {
	if server.Number <= o.Number {
		return
	}
	o.Number = server.Number
	o.takeRead(server)
	if !o.DraftUnsent || o.Draft == server.Draft {
		o.takeDraft(server)
	}
}

// Answered takes the answer to what was sent: sent is the state as it was then,
// its draft a part of the request where it was unsent.
//
// What other devices set meanwhile may be known here before the answer. An answer
// older than that still says whether the draft was accepted; Number then falls
// back to the answer's, and the newer state is to be asked for.
func (o *OwnState) Answered(sent, server OwnState, at time.Time) {
	overtaken := server.Number < o.Number
	o.takeRead(server)
	if !overtaken {
		o.Number = server.Number
	}
	switch accepted := sent.Draft == server.Draft; {
	case !sent.DraftUnsent || !o.DraftUnsent: // it was not about a draft, or that was settled meanwhile
		if !overtaken && !o.DraftUnsent {
			o.takeDraft(server)
		}
	case accepted && o.Edits == sent.Edits:
		o.Number = server.Number
		o.takeDraft(server)
	case accepted:
		o.Base = max(o.Base, server.Number) // what was typed since goes on from there
	case !overtaken:
		o.lose(server, at)
	}
}

// lose settles an unsent draft in place of which the server has another one.
// Nothing that was typed is lost: what the other does not contain is put below it.
func (o *OwnState) lose(server OwnState, at time.Time) {
	both := JoinDrafts(server.Draft, o.Draft)
	o.takeDraft(server)
	o.SetDraft(both, at)
}

func (o *OwnState) takeRead(server OwnState) {
	o.ServerRead = max(o.ServerRead, server.Read)
	if server.Read >= o.Read {
		o.Read, o.ReadOrdinal = server.Read, server.ReadOrdinal
	}
}

func (o *OwnState) takeDraft(server OwnState) {
	o.Draft, o.DraftEdited, o.DraftUnsent = server.Draft, server.DraftEdited, false
}

// Unbound is the state without what a server knows: a draft that is unsent. It is
// how a state goes to another conversation.
func (o OwnState) Unbound() OwnState {
	return OwnState{Draft: o.Draft, DraftEdited: o.DraftEdited, DraftUnsent: o.Draft != "", Edits: o.Edits + 1}
}

// Join adds the draft of a conversation that moved here.
func (o *OwnState) Join(moved OwnState) {
	o.SetDraft(JoinDrafts(o.Draft, moved.Draft), moved.DraftEdited)
}

// JoinDrafts puts the second draft below the first, unless one is a part of the
// other.
func JoinDrafts(first, second string) string {
	switch {
	case strings.Contains(first, second):
		return first
	case strings.Contains(second, first):
		return second
	}
	return first + "\n" + second
}

// Owned is the own state of a conversation.
type Owned struct {
	Conversation uint64
	Order        int64 // rises with each change of any own state in the store
	OwnState
}

// Own keeps the user's own states.
type Own interface {
	// ChangeOwn changes the own states of conversations in one step. A provisional
	// conversation that has moved stands for the one it moved to. A stale epoch
	// changes nothing, unless all are provisional. change must not call the store.
	ChangeOwn(
		ctx context.Context, epoch uint64, conversations []uint64, change func(conversation uint64, own *OwnState),
	) error
	// OwnStates returns those with a greater Order, ascending.
	OwnStates(ctx context.Context, after int64) ([]Owned, error)
	// UnsentOwn returns unsent states of conversations that a server knows, with a
	// greater id, by id.
	UnsentOwn(ctx context.Context, after uint64, limit int) ([]Owned, error)
}
