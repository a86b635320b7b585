package tui

import (
	"context"

	"github.com/msrchat/msrchat/client"
	"github.com/msrchat/msrchat/client/store"
)

// Backend is what the screen needs of the client. Its methods may be called
// from any goroutine. Those with a context may block: for the disk, and where
// it says so for the network.
type Backend interface {
	// User is who is logged in.
	User() client.User
	// Events tells what happens; see client.Event. It is closed at the end.
	Events() <-chan client.Event
	Link() client.Link
	// Reconnect tries to connect now.
	Reconnect(ctx context.Context) error

	// Chats, Unsent and Drafts are what is kept here.
	Chats(ctx context.Context) ([]client.Cached, error)
	Unsent(ctx context.Context) ([]client.Outgoing, error)
	Drafts(ctx context.Context) (map[string]string, error)
	// Stored returns the last limit messages below before (0: the newest) that
	// are kept here.
	Stored(ctx context.Context, conversation, before uint64, limit int) ([]client.Message, error)
	// Messages does so from the server where they are not kept here. It waits
	// for the network.
	Messages(ctx context.Context, conversation, before uint64, limit int) ([]client.Message, error)
	// OpenDirect returns the conversation with a person. It waits for the
	// network.
	OpenDirect(ctx context.Context, name string) (client.Conversation, error)

	// Send puts a message into the outbox.
	Send(ctx context.Context, to client.Target, text string) (client.Outgoing, error)
	// Discard forgets a failed message.
	Discard(ctx context.Context, id client.MessageID) error
	// SetDraft keeps an unfinished text; "" removes it.
	SetDraft(ctx context.Context, key, text string) error
	// Meta and SetMeta keep small values; "" where there is none.
	Meta(ctx context.Context, name string) (string, error)
	SetMeta(ctx context.Context, name, value string) error
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

func (r remote) Meta(ctx context.Context, name string) (string, error) {
	return r.store.Meta(ctx, name)
}

func (r remote) SetMeta(ctx context.Context, name, value string) error {
	return r.store.SetMeta(ctx, name, value)
}
