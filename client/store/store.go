// Package store is what a client keeps on its own machine: the outbox, the part
// of each log that it has, and the user's own state in each conversation. Memory
// keeps it for one process; package sqlite keeps it in a file that all processes
// of one profile share.
//
// A conversation's id is the only key. A person who was named while no server
// could be asked has a provisional conversation, whose id is above MaxID; what is
// in it moves to the real one as soon as a server has named that.
//
// The server's logs are the truth. Everything here but the outbox and the drafts
// can be dropped and fetched again.
package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/msrchat/msrchat/shared/content"
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

// MaxID is the largest id and sequence number that a server gives.
const MaxID = 1<<62 - 1

// Provisional says that a conversation is one of this store's own, which no
// server knows.
func Provisional(conversation uint64) bool { return conversation > MaxID }

// Message is one entry of a conversation's log.
type Message struct {
	Conversation uint64
	Seq          uint64 // 1, 2, 3 … without a gap
	// Ordinal is how many entries up to this one count as unread messages.
	Ordinal uint64
	ID      MessageID
	Sender  uint64 // user id
	// Kind and Body are what it says: see Content in chat.proto. This program may
	// not know the kind.
	Kind uint32
	Body []byte
	At   time.Time // by the server's clock
}

// Text is the text of a text, "" for other kinds.
func (m Message) Text() string { return textOf(m.Kind, m.Body) }

func textOf(kind uint32, body []byte) string {
	if kind != content.Text {
		return ""
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

// Peer is the other person of a direct conversation. A name without an id is as
// somebody typed it: a provisional conversation has such a one.
type Peer struct {
	ID   uint64
	Name string
}

// Range is the contiguous part of a log that is stored: Lo..Hi, both included.
// It is empty where Lo is Hi+1; it still says where to go on.
type Range struct{ Lo, Hi uint64 }

// Conversation is what is known of a conversation without asking a server.
type Conversation struct {
	ID uint64
	// Peer is zero where the conversation is not a direct one, or not known well.
	Peer Peer
	// Stored is nil while no part of the log was ever fetched.
	Stored *Range
	// Last is the newest stored message, nil where there is none.
	Last *Message
	// Head is the greatest sequence number that a server named, HeadOrdinal the
	// ordinal there; both are 0 until then.
	Head, HeadOrdinal uint64
	Own               OwnState
}

// Unread is how many messages the user has not read.
func (c Conversation) Unread() int {
	if c.HeadOrdinal <= c.Own.ReadOrdinal {
		return 0
	}
	return int(c.HeadOrdinal - c.Own.ReadOrdinal)
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
	// Conversation may be provisional.
	Conversation uint64
	Kind         uint32
	Body         []byte
	At           time.Time // by this machine's clock, when it was accepted

	State    SendState
	Seq      uint64    // when Acknowledged
	LoggedAt time.Time // when Acknowledged, by the server's clock
	Existing bool      // an earlier sending had reached the log already
	Code     errs.Code // when Failed
	Reason   string    // when Failed, for a person
}

// Text is the text of a text, "" for other kinds.
func (o Outgoing) Text() string { return textOf(o.Kind, o.Body) }

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

// MaxEmpty bounds the provisional conversations that are kept although nothing
// waits in them, and the memory of where others moved; the oldest make room. A
// window that shows one of them must still find it when something is typed.
const MaxEmpty = 1_000

// ErrNotFound: there is no such message in the outbox (any more).
var ErrNotFound = errors.New("no such message in the outbox")

// ErrNoConversation: a provisional conversation that is not in the store.
var ErrNoConversation = errs.New(errs.CodeNotFound, "there is no such conversation here")

// ErrStale: an id or data is from an earlier log epoch. The same id may belong to
// another conversation now.
var ErrStale = errs.New(errs.CodeConflict, "the server's history was restored; open the conversation again")

// Store is one process's handle on the data of one user. Its methods may be
// called from any goroutine and block for disk access only.
type Store interface {
	Outbox
	Log
	Own

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
	// Enqueue accepts a message: it sets Order, and Conversation where that is a
	// provisional one which has moved. The rest is the caller's. epoch is the one in
	// which the caller got the conversation's id: another one than the stored is
	// refused with ErrStale, unless the conversation is provisional.
	Enqueue(ctx context.Context, epoch uint64, m Outgoing) (Outgoing, error)
	// Queued returns queued messages with a greater Order, ascending.
	Queued(ctx context.Context, after int64, limit int) ([]Outgoing, error)
	// Settle records outcomes in one step: of each message the ID and what follows
	// State in Outgoing. Unknown and settled ids are skipped.
	Settle(ctx context.Context, outcomes []Outgoing) error
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

// Move says that everything of a provisional conversation moved to another one.
type Move struct {
	Order    int64 // rising
	From, To uint64
}

// Log keeps conversations and contiguous parts of their logs.
type Log interface {
	// State returns the epoch and whether the conversations were listed.
	State(ctx context.Context) (State, error)
	// Begin makes epoch the stored one. Where it differs from the last one, events
	// and conversations are dropped, since a restored server may use the same ids
	// for others; unsent messages and drafts of a direct conversation move to a
	// provisional one with the same person. Unsent messages of other conversations
	// fail with ErrStale, and have no conversation any more. A store without an epoch
	// (0) takes it and keeps what it has.
	Begin(ctx context.Context, epoch uint64) (State, error)
	// SetListed records that PutConversations was called for every conversation.
	SetListed(ctx context.Context, epoch uint64) error
	// PutConversations adds conversations or updates them: a peer replaces the one
	// that was known, a head only rises. A Stored range, which must be empty, is
	// taken only where none is stored. What is in a provisional conversation with
	// the same person moves.
	PutConversations(ctx context.Context, epoch uint64, convs []Conversation) error
	// Resolve is PutConversations for the conversation with somebody who was named:
	// a provisional one of that key moves, whatever a server calls the person.
	Resolve(ctx context.Context, epoch uint64, peerKey string, conv Conversation) error
	// Moved returns the moves with a greater Order, ascending.
	Moved(ctx context.Context, after int64) ([]Move, error)
	// Append stores a run: consecutive messages of one conversation, ascending. It
	// is kept only where it touches the stored range or there is none; stored says
	// so. The head rises in any case.
	Append(ctx context.Context, epoch uint64, run []Message) (stored bool, err error)
	// Conversations returns all, by id; of the provisional ones those in which
	// something waits.
	Conversations(ctx context.Context) ([]Conversation, error)
	// Conversation returns one; ok says whether it is known.
	Conversation(ctx context.Context, id uint64) (conv Conversation, ok bool, err error)
	// Contact returns the direct conversation with a person, and makes a
	// provisional one where none is known.
	Contact(ctx context.Context, name string) (Conversation, error)
	// Messages returns the last limit stored messages below before, ascending;
	// 0 for before means the end of what is stored.
	Messages(ctx context.Context, conversation, before uint64, limit int) ([]Message, error)
}

// PeerKey is what makes two spellings of a name the same person.
func PeerKey(name string) string {
	if _, key, err := text.FindName(name); err == nil {
		return key
	}
	return name // from a server with other rules: only itself
}
