// Package client is msrChat's client library: it connects to a chat server that
// gate assigns, keeps what was typed until it is acknowledged, fetches what it
// missed, and finds its way back after every fault.
//
// The server's logs are the truth and a push is a hint: for each conversation
// the client knows how far it has the log without a gap, takes the one message
// that follows, and pulls whatever lies between it and any later sign.
package client

import (
	"time"

	"github.com/msrchat/msrchat/client/store"
)

// The data that the library shares with its store.
type (
	// Message is one entry of a conversation's log.
	Message = store.Message
	// MessageID names a message for ever.
	MessageID = store.MessageID
	// Peer is the other person of a direct conversation.
	Peer = store.Peer
	// Outgoing is a message in the outbox.
	Outgoing = store.Outgoing
	// SendState says how far a message of the outbox is.
	SendState = store.SendState
	// Cached is what is known of a conversation without asking a server.
	Cached = store.Conversation
)

// The states of an outgoing message.
const (
	Queued       = store.Queued
	Acknowledged = store.Acknowledged
	Failed       = store.Failed
)

// Conversation is a conversation as a server described it.
type Conversation struct {
	ID   uint64
	Peer Peer
	Head uint64 // the last sequence number, 0 while empty
}

// Target says whom a message is for: a conversation, or else a person by name.
type Target struct {
	Conversation uint64
	Peer         string
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

// Event is something that the application is told: LinkChanged, Received,
// SendChanged, OutboxChanged, ConversationChanged or Reset.
type Event interface{ event() }

// LinkChanged tells a new state of the connection. States that the application
// was too slow to read are left out; the latest is always told.
type LinkChanged struct{ Link Link }

// Received is a message of a log, the own ones included. In one client each
// conversation's messages come in order, each exactly once, without a gap from
// the first one on. They are never left out: while the application does not
// read, the client stops accepting, and fetches the rest when it reads again.
type Received struct {
	Message Message
	Peer    Peer
	// Mine: sent by this user, here or elsewhere.
	Mine bool
}

// SendChanged tells that an outgoing message was acknowledged or failed.
type SendChanged struct{ Outgoing Outgoing }

// OutboxChanged tells that the outbox may have changed otherwise: another
// process of the profile sent or queued something, or SendChanged events were
// left out because the application did not read. Call Unsent.
type OutboxChanged struct{}

// ConversationChanged tells that a conversation became known, or that older
// messages of it were stored. It is left out while the application does not
// read.
type ConversationChanged struct{ Conversation uint64 }

// Reset tells that the servers' logs were restored to an earlier time: messages
// received before may no longer be in them. What was cached is gone.
type Reset struct{}

func (LinkChanged) event()         {}
func (Received) event()            {}
func (SendChanged) event()         {}
func (OutboxChanged) event()       {}
func (ConversationChanged) event() {}
func (Reset) event()               {}
