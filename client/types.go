// Package client is msrChat's client library: it connects to a chat server that
// gate assigns, keeps what was typed until it is acknowledged, fetches what it
// missed, and reconnects after every fault.
//
// The server's logs are the truth and a push is a hint: for each conversation
// the client knows how far it has the log without a gap, takes the one message
// that follows, and pulls what lies between it and any later one that it learns of.
package client

import (
	"time"

	"github.com/msrchat/msrchat/client/store"
)

// The data that the library shares with its store.
type (
	// Message is one entry of a conversation's log.
	Message = store.Message
	// MessageID names a message; it never changes.
	MessageID = store.MessageID
	// Peer is the other person of a direct conversation.
	Peer = store.Peer
	// OwnState is what the user has set in a conversation: how far they have read,
	// and what they have begun to write.
	OwnState = store.OwnState
	// Outgoing is a message in the outbox.
	Outgoing = store.Outgoing
	// SendState says how far a message of the outbox is.
	SendState = store.SendState
	// Cached is what the store has of a conversation.
	Cached = store.Conversation
)

// The states of an outgoing message.
const (
	Queued       = store.Queued
	Acknowledged = store.Acknowledged
	Failed       = store.Failed
)

// Provisional says that a conversation is one with a person who was named while no
// server could be asked. Once a server has named the real one everything moves there,
// and ConversationResolved says so.
func Provisional(conversation uint64) bool { return store.Provisional(conversation) }

// Conversation is a conversation as a server described it.
type Conversation struct {
	ID   uint64
	Peer Peer
	// Head is the last sequence number, 0 while empty, and Ordinal how many of the
	// messages count as unread ones.
	Head, Ordinal uint64
}

// Range selects a part of a log. With Before set: the last Limit messages below
// it; otherwise the first Limit messages above After. Limit 0 is the server's
// page.
type Range struct {
	After, Before uint64
	Limit         int
}

// Page is a part of a log, ascending and without a gap.
type Page struct {
	Messages []Message
	// Head is the log's last sequence number when the page was read.
	Head uint64
}

// LinkState says how the connection is.
type LinkState int

// The states of the connection.
const (
	// Connecting: looking for a server.
	Connecting LinkState = iota
	// Online: connected.
	Online
	// Offline: not connected; it tries again by itself at Link.RetryAt.
	Offline
	// LoggedOut: the session has ended. Nothing more happens: log in again and
	// open a new client.
	LoggedOut
	// Stopped: the server asked not to come back. Link.Cause says why.
	Stopped
)

func (s LinkState) String() string {
	return [...]string{"connecting", "online", "offline", "logged out", "stopped"}[s]
}

// Link describes the connection.
type Link struct {
	State LinkState
	// The chat server, while Online.
	Instance, Address, Release string
	// Cause is why the last connection or attempt failed; nil while Online and
	// during the first attempt.
	Cause error
	// RetryAt is when the next attempt is due, while Offline.
	RetryAt time.Time
}

// Event is LinkChanged, Received, SendChanged, OutboxChanged, ConversationChanged,
// ConversationResolved, OwnStateChanged or Reset.
type Event interface{ event() }

// LinkChanged reports a new state of the connection. States that the application
// was too slow to read are left out, but never the latest.
type LinkChanged struct{ Link Link }

// Received is a message of a log, the user's own included. In one client each
// conversation's messages come in order, each exactly once, without a gap from
// the first one on. They are never left out: while the application does not
// read, the client stops accepting, and fetches the rest when it reads again.
type Received struct {
	Message Message
	Peer    Peer
	// Mine: sent by this user, here or elsewhere.
	Mine bool
}

// SendChanged says that an outgoing message was acknowledged or failed.
type SendChanged struct{ Outgoing Outgoing }

// OutboxChanged says that the outbox may have changed otherwise: another
// process of the profile sent or queued something, or SendChanged events were
// left out because the application did not read. Call Unsent.
type OutboxChanged struct{}

// ConversationChanged says that a conversation is new here, that its log is longer
// than what was received of it, or that older messages of it were stored.
// It is left out while the application does not read.
type ConversationChanged struct{ Conversation uint64 }

// ConversationResolved says that a provisional conversation, From, is now the real one,
// To: its outbox and draft have moved there. It comes before anything else about To,
// and is never left out. Calls with the old id still reach To.
type ConversationResolved struct{ From, To uint64 }

// OwnStateChanged says that the user's own state in a conversation was changed by
// another device, by another process of the profile, or by the server's answer to
// what was set here. While the application does not read, all but the latest state of
// each conversation are left out. Changes by SetRead and SetDraft of this client are
// not reported.
//
// The read mark never falls. Sets is how many calls of SetDraft for the conversation,
// by this client since the last Reset, are in Own. An application that has made more
// ignores the draft of this event, because its own is newer. Text that it has not set
// yet it keeps below a draft that is new to it (store.JoinDrafts).
type OwnStateChanged struct {
	Conversation uint64
	Own          OwnState
	Sets         uint64
}

// Reset says that the servers' logs were restored to an earlier time: messages
// received before may no longer be in them. What was cached is gone, and the ids of
// conversations are invalid; what was typed is in provisional conversations. Call
// Chats, and Contact for a person. Epoch is the new one; see Client.In.
type Reset struct{ Epoch uint64 }

func (LinkChanged) event()          {}
func (Received) event()             {}
func (SendChanged) event()          {}
func (OutboxChanged) event()        {}
func (ConversationChanged) event()  {}
func (ConversationResolved) event() {}
func (OwnStateChanged) event()      {}
func (Reset) event()                {}
