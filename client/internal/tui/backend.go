package tui

import (
	"context"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// Backend is what the screen needs of the client. Its methods may be called from
// any goroutine. Those with a context may block: for the disk, and where it says
// so for the network.
type Backend interface {
	// User is the user who is logged in.
	User() client.User
	// Events delivers what happens; see client.Event. It is closed at the end.
	Events() <-chan client.Event
	Link() client.Link
	// Reconnect tries to connect now.
	Reconnect(ctx context.Context) error

	// Chats and Unsent are what is kept on this machine.
	Chats(ctx context.Context) ([]client.Cached, error)
	Unsent(ctx context.Context) ([]client.Outgoing, error)
	// Stored returns the last limit events below before (0: the newest) that are
	// kept on this machine.
	Stored(ctx context.Context, conversation, before uint64, limit int) ([]client.Message, error)
	// Messages does so from the server where they are not kept here. It waits for
	// the network.
	Messages(ctx context.Context, conversation, before uint64, limit int) ([]client.Message, error)
	// Contact returns the conversation with a person as far as this machine knows
	// it, a provisional one where it does not.
	Contact(ctx context.Context, name string) (client.Cached, error)
	// OpenDirect returns the conversation with a person. It waits for the network.
	OpenDirect(ctx context.Context, name string) (client.Conversation, error)

	// Epoch is the log epoch; ids that are read now are valid in it.
	Epoch() uint64
	// Send puts a message into the outbox.
	Send(ctx context.Context, to Target, text string) (client.Outgoing, error)
	// Discard forgets a failed message.
	Discard(ctx context.Context, id client.MessageID) error
	// SetRead raises the read mark. It returns the own state right afterwards.
	SetRead(ctx context.Context, of Target, seq uint64) (client.OwnState, error)
	// SetDraft keeps an unfinished text in place of the known one; "" removes it.
	// Where another text is kept by now, it puts the new one below that. It returns
	// the own state right afterwards; see client.OwnStateChanged for the order.
	SetDraft(ctx context.Context, of Target, known, text string) (client.OwnState, error)
}

// Target is a conversation to write to. Its id is valid in that log epoch only; in
// another one the write is refused with store.ErrStale.
type Target struct{ Epoch, ID uint64 }

// remote is the Backend on a real client and its store.
type remote struct {
	*client.Client
	store store.Store
}

// NewBackend returns the Backend on a client and the store it was opened with.
// It closes neither.
func NewBackend(c *client.Client, s store.Store) Backend { return remote{c, s} }

func (r remote) User() client.User { return r.Session().User }

func (r remote) Stored(ctx context.Context, conversation, before uint64, limit int) ([]client.Message, error) {
	return r.store.Messages(ctx, conversation, before, limit)
}

func (r remote) Send(ctx context.Context, to Target, text string) (client.Outgoing, error) {
	return r.In(to.Epoch).Send(ctx, to.ID, text)
}

func (r remote) SetRead(ctx context.Context, of Target, seq uint64) (client.OwnState, error) {
	return r.In(of.Epoch).SetRead(ctx, of.ID, seq)
}

func (r remote) SetDraft(ctx context.Context, of Target, known, text string) (client.OwnState, error) {
	return r.In(of.Epoch).SetDraft(ctx, of.ID, known, text)
}
