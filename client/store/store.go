// Package store is what a client keeps on its own machine: the outbox, the part
// of each log that it has, and drafts. Memory keeps it for one process; package
// sqlite keeps it in a file that all processes of one profile share.
//
// The server's logs are the truth. Everything here but the outbox and the
// drafts can be dropped and fetched again.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// MessageID names a message for ever. Its writer makes it once (UUIDv7), before
// the message is sent for the first time; sending it again is then safe.
type MessageID [16]byte

// NewMessageID returns a fresh id.
func NewMessageID() (MessageID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return MessageID{}, err
	}
	return MessageID(id), nil
}

// String is the usual form with dashes.
func (id MessageID) String() string { return uuid.UUID(id).String() }

// Kind says what a message is: the protocol's EventKind.
type Kind int32

// KindText is a text. A message of any other kind is from a newer server: it
// has its place in the log, but this program cannot show it.
const KindText Kind = 1

// MaxID is the largest id and sequence number that a store takes.
const MaxID = 1<<62 - 1

// Message is one entry of a conversation's log.
type Message struct {
	Conversation uint64
	Seq          uint64 // 1, 2, 3 … without a gap
	ID           MessageID
	Sender       uint64 // user id
	Kind         Kind
	Text         string    // for KindText
	At           time.Time // by the server's clock
}

// Peer is the other person of a direct conversation.
type Peer struct {
	ID   uint64
	Name string
}

// Range is the contiguous part of a log that is stored: Lo..Hi, both included.
// It is empty where Lo is Hi+1; it still says where to go on.
type Range struct{ Lo, Hi uint64 }

// Conversation is what is known of a conversation without asking a server.
type Conversation struct {
	ID   uint64
	Peer Peer
	// Stored is nil while no part of the log was ever fetched.
	Stored *Range
	// Last is the newest stored message, nil where there is none.
	Last *Message
}

// SendState says how far a message of the outbox is.
type SendState int

// The states. A message leaves Queued once and for good.
const (
	// Queued: accepted here, not yet acknowledged; it will be sent.
	Queued SendState = iota
	// Acknowledged: durable in the log at Seq.
	Acknowledged
	// Failed: refused by the server; it will not be sent again.
	Failed
)

func (s SendState) String() string {
	return [...]string{"queued", "acknowledged", "failed"}[s]
}

// Outgoing is a message in the outbox.
type Outgoing struct {
	ID MessageID
	// Order is the place in the order typed, over all processes of the profile.
	Order int64
	// Conversation is 0 until a server told it for Peer.
	Conversation uint64
	// Peer is the addressee's name as typed or known, PeerKey what makes two
	// names the same; both empty where the conversation alone is known.
	Peer, PeerKey string
	Text          string
	At            time.Time // by this machine's clock, when it was accepted

	State    SendState
	Seq      uint64    // when Acknowledged
	LoggedAt time.Time // when Acknowledged, by the server's clock
	Existing bool      // an earlier sending had reached the log already
	Code     errs.Code // when Failed
	Reason   string    // when Failed, for a person
}

// Settlement is the end of a message's stay in the outbox.
type Settlement struct {
	ID    MessageID
	State SendState // Acknowledged or Failed

	Seq      uint64
	LoggedAt time.Time
	Existing bool

	Code   errs.Code
	Reason string
}

// MaxQueued bounds the messages that wait; beyond it Enqueue refuses with
// CodeExhausted. A person never gets there, a script without a network does.
const MaxQueued = 10_000

// MaxFailed bounds the refused messages that are kept for their writer to see;
// the oldest make room.
const MaxFailed = 1_000

// KeepAcknowledged is how long an acknowledged message stays in the outbox: a
// process that waits for it looks every fraction of a second, unless its machine
// sleeps.
const KeepAcknowledged = 24 * time.Hour

// ErrNotFound: there is no such message in the outbox (any more).
var ErrNotFound = errors.New("no such message in the outbox")

// ErrStale: the data was read from another log epoch than the stored one.
var ErrStale = errors.New("the log epoch changed")

// Store is one process's handle on the data of one user. Its methods may be
// called from any goroutine and block for disk access only.
type Store interface {
	Outbox
	Log
	Drafts

	// Shared says whether other handles may change the data.
	Shared() bool
	// Changed says whether any handle changed the data since the last call on
	// this one. It is cheap and may say yes for nothing.
	Changed(ctx context.Context) (bool, error)
	// Meta and SetMeta keep small values by name; "" where there is none.
	Meta(ctx context.Context, name string) (string, error)
	SetMeta(ctx context.Context, name, value string) error
	// Close releases the handle, and the sender's lock if it holds it.
	Close() error
}

// Outbox holds what was typed and is not yet acknowledged. What Enqueue accepted
// survives the death of the process and of the machine.
type Outbox interface {
	// Enqueue accepts a message: it sets Order. ID, At, Text and the addressee
	// are the caller's.
	Enqueue(ctx context.Context, m Outgoing) (Outgoing, error)
	// Queued returns queued messages with a greater Order, ascending.
	Queued(ctx context.Context, after int64, limit int) ([]Outgoing, error)
	// Resolve gives queued messages to a peer their conversation, and remembers
	// the conversation. A stale epoch changes nothing.
	Resolve(ctx context.Context, epoch uint64, peerKey string, conv Conversation) error
	// Settle records outcomes in one step. Unknown and settled ids are skipped.
	Settle(ctx context.Context, s []Settlement) error
	// Outgoing returns one message, or ErrNotFound.
	Outgoing(ctx context.Context, id MessageID) (Outgoing, error)
	// Unsent returns what is queued or failed, in order.
	Unsent(ctx context.Context) ([]Outgoing, error)
	// Discard forgets a failed message; ErrNotFound for any other.
	Discard(ctx context.Context, id MessageID) error

	// TryLock makes this handle the only one that sends. It does not wait; it
	// says no where another handle, in this or another process, holds the lock.
	// The death of a process frees its lock.
	TryLock() (bool, error)
	// Unlock lets others send. Without the lock it does nothing.
	Unlock() error
}

// State is what Begin returns.
type State struct {
	Epoch uint64
	// Listed: the conversations were listed once in this epoch. From then on, a
	// conversation without a stored range is a new one.
	Listed bool
}

// Log keeps contiguous parts of logs.
type Log interface {
	// State returns the epoch and whether the conversations were listed.
	State(ctx context.Context) (State, error)
	// Begin makes epoch the stored one. Where it differs from the last one,
	// events and conversations are dropped, and queued messages keep only their
	// peer's name, since a restored server may use the same ids for others. A
	// store without an epoch (0) takes it and keeps what it has.
	Begin(ctx context.Context, epoch uint64) (State, error)
	// SetListed records that PutConversations was called for every conversation.
	SetListed(ctx context.Context, epoch uint64) error
	// PutConversations adds conversations or updates their peers. A Stored range,
	// which must be empty, is taken only where none is stored.
	PutConversations(ctx context.Context, epoch uint64, convs []Conversation) error
	// Append stores a run: consecutive messages of one conversation, ascending.
	// It is kept only where it touches the stored range or there is none;
	// otherwise nothing changes and stored is false.
	Append(ctx context.Context, epoch uint64, run []Message) (stored bool, err error)
	// Conversations returns all, by id.
	Conversations(ctx context.Context) ([]Conversation, error)
	// ConversationWith finds the direct conversation with a peer, if known.
	ConversationWith(ctx context.Context, peerKey string) (conv Conversation, ok bool, err error)
	// Messages returns the last limit stored messages below before, ascending;
	// 0 for before means the end of what is stored.
	Messages(ctx context.Context, conversation, before uint64, limit int) ([]Message, error)
}

// Drafts keep unfinished texts by a key of the caller's choice.
type Drafts interface {
	SetDraft(ctx context.Context, key, text string) error // "" removes it
	Drafts(ctx context.Context) (map[string]string, error)
}

// PeerKey is what makes two spellings of a name the same person.
func PeerKey(name string) string {
	if _, key, err := text.Name(name); err == nil {
		return key
	}
	return name // from a server with other rules: only itself
}
