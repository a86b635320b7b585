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

	// Send puts a message into the outbox.
	Send(ctx context.Context, conversation uint64, text string) (client.Outgoing, error)
	// Discard forgets a failed message.
	Discard(ctx context.Context, id client.MessageID) error
	// SetRead raises the read mark. It returns the own state afterwards; one with
	// fewer Edits is older.
	SetRead(ctx context.Context, conversation, seq uint64) (client.OwnState, error)
	// SetDraft keeps an unfinished text in place of the known one; "" removes it.
	// Where another text is kept by now, it puts the new one below that. It returns
	// the own state afterwards.
	SetDraft(ctx context.Context, conversation uint64, known, text string) (client.OwnState, error)
}

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

func (r remote) SetRead(ctx context.Context, conversation, seq uint64) (client.OwnState, error) {
	return r.own(ctx, conversation, r.Client.SetRead(ctx, conversation, seq))
}

// SetDraft looks at the store first: the client puts a text below one that it has
// not told of yet, but what it has told may still be on its way to the screen.
func (r remote) SetDraft(ctx context.Context, conversation uint64, known, text string) (client.OwnState, error) {
	c, _, err := r.store.Conversation(ctx, conversation)
	if err != nil {
		return client.OwnState{}, err
	}
	if theirs := c.Own.Draft; clean(theirs) != known {
		text = joinDrafts(theirs, text)
	}
	return r.own(ctx, conversation, r.Client.SetDraft(ctx, conversation, text))
}

// own is the own state after it was set, or not.
func (r remote) own(ctx context.Context, conversation uint64, err error) (client.OwnState, error) {
	if err != nil {
		return client.OwnState{}, err
	}
	c, _, err := r.store.Conversation(ctx, conversation)
	return c.Own, err
}
