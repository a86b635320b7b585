package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"

	"github.com/msrchat/msrchat/client/store"
	"github.com/msrchat/msrchat/shared/errs"
	"github.com/msrchat/msrchat/shared/text"
)

// Assigner says where to connect. *Gate is one.
type Assigner interface {
	Assign(ctx context.Context, token Token, avoid []string) (Assignment, error)
}

// Options say what a client does. Gate, Session and Store must be set.
type Options struct {
	Gate    Assigner
	Session Session
	// Store keeps the outbox and what was fetched. Several clients, also in
	// several processes, may use handles on the same data. The client does not
	// close it.
	Store store.Store
	// Logger may be nil.
	Logger *slog.Logger
	// Program names the program and its version to operators.
	Program string
	// TLS is the base configuration for servers that have a TLS name; nil uses
	// the system's roots.
	TLS *tls.Config
	// Assignment is where to connect first, as a log-in returns it.
	Assignment *Assignment

	// SendOnly neither receives nor stores messages. The client then raises the read
	// mark to the messages that it sent; an application that receives messages does
	// that itself.
	SendOnly bool
	// FromNow leaves out messages from before the client was opened; otherwise
	// receiving continues where the store ends.
	FromNow bool
	// EventBuffer is how many events may wait for the application; 256 if 0.
	EventBuffer int
	// FirstPage is how many messages of a conversation that is new to the store
	// are fetched at once; 50 if 0, none if negative.
	FirstPage int
	// Outstanding bounds the unanswered sends; the server's limit if 0.
	Outstanding int
	// Backoff are the waits between attempts to connect.
	Backoff Backoff
	// Patience is how long a server may be silent while a request is unanswered;
	// 10 s if 0, at most two heartbeats. So nobody waits long for a dead server:
	// after half of it the server is pinged. A server that answers pings, but not
	// the request for twelve times as long, is given up, too.
	Patience time.Duration
}

// Client is a lasting connection to msrChat. Its methods may be called from
// any goroutine.
type Client struct {
	opt    Options
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
	events chan Event
	ops    chan func(*owner) // run by the owner's goroutine
	wake   chan struct{}     // the outbox got something; holds one signal

	mu         sync.Mutex
	link       Link   // the latest state; under mu
	epoch      uint64 // the log epoch; under mu
	firstEpoch uint64 // what epoch was set to when it was 0; under mu
}

// Open starts a client. It returns without waiting for a connection; the error
// is the store's. The client ends with ctx or Close.
func Open(ctx context.Context, opt Options) (*Client, error) {
	if opt.Gate == nil || opt.Store == nil || len(opt.Session.Token) == 0 || opt.Session.User.ID == 0 {
		return nil, errors.New("open client: gate, session and store must be set")
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.EventBuffer <= 0 {
		opt.EventBuffer = 256
	}
	if opt.FirstPage == 0 {
		opt.FirstPage = 50
	}
	if opt.Patience <= 0 {
		opt.Patience = 10 * time.Second
	}
	opt.Backoff = opt.Backoff.orDefault()
	ctx, cancel := context.WithCancel(ctx)
	c := &Client{
		opt: opt, log: opt.Logger.With("user", opt.Session.User.ID), cancel: cancel,
		done: make(chan struct{}), events: make(chan Event, opt.EventBuffer+reserved),
		ops: make(chan func(*owner)), wake: make(chan struct{}, 1),
	}
	o, err := newOwner(ctx, c)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open client: %w", err)
	}
	c.epoch = o.sync.epoch
	go o.run()
	return c, nil
}

// Close disconnects and waits for the client's goroutines. What is queued stays
// in the store.
func (c *Client) Close() {
	c.cancel()
	<-c.done
}

// Events delivers what happens; it is closed when the client has ended. See
// Event for what is left out while nobody reads.
func (c *Client) Events() <-chan Event { return c.events }

// Link is the state of the connection.
func (c *Client) Link() Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// Session is the session that the client was opened with.
func (c *Client) Session() Session { return c.opt.Session }

// errClosed is returned by calls on a client that has ended.
var errClosed = errs.New(errs.CodeUnavailable, "the client was closed")

// do runs fn on the owner's goroutine, and does not wait for its end.
func (c *Client) do(ctx context.Context, fn func(*owner)) error {
	select {
	case c.ops <- fn:
		return nil
	case <-ctx.Done():
		return c.gaveUp(ctx)
	case <-c.done:
		return errClosed
	}
}

// gaveUp is the error for a caller whose context ended; it says why there is no
// connection.
func (c *Client) gaveUp(ctx context.Context) error {
	link := c.Link()
	switch {
	case link.State == LoggedOut || link.State == Stopped:
		return link.Cause
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case link.State == Online:
		return errs.Wrap(errs.CodeUnavailable, ctx.Err(), "the server did not answer in time")
	case link.Cause != nil:
		return errs.Wrap(errs.CodeUnavailable, errors.Join(ctx.Err(), link.Cause),
			"no connection: "+Describe(link.Cause))
	}
	return errs.Wrap(errs.CodeUnavailable, ctx.Err(), "no connection in time")
}

// Reconnect tries to connect now instead of at Link.RetryAt.
func (c *Client) Reconnect(ctx context.Context) error {
	return c.do(ctx, func(o *owner) { o.retryNow() })
}

// WaitOnline returns when the client is online, or with the reason why it will
// not be, or when ctx ends.
func (c *Client) WaitOnline(ctx context.Context) (Link, error) {
	reply := make(chan struct{})
	if err := c.do(ctx, func(o *owner) { o.whenOnline(reply) }); err != nil {
		return c.Link(), err
	}
	select {
	case <-reply:
	case <-ctx.Done():
		return c.Link(), c.gaveUp(ctx)
	case <-c.done:
		return c.Link(), errClosed
	}
	link := c.Link()
	if link.State == LoggedOut || link.State == Stopped {
		return link, link.Cause
	}
	return link, nil
}

// onOwner runs fn on the owner's goroutine and waits for its end.
func (c *Client) onOwner(ctx context.Context, fn func(*owner) error) error {
	reply := make(chan error, 1)
	if err := c.do(ctx, func(o *owner) { reply <- fn(o) }); err != nil {
		return err
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return errClosed
	}
}

// Send accepts a text: when it returns, the message is in the outbox, and is sent
// as soon as there is a connection, by this client or another one of the profile.
// It does not wait for the network. Messages of one goroutine are sent in the order
// of their calls.
func (c *Client) Send(ctx context.Context, conversation uint64, message string) (Outgoing, error) {
	return c.In(c.Epoch()).Send(ctx, conversation, message)
}

// Wait waits until a message is settled: acknowledged (nil), or refused (an
// *errs.Error). When ctx ends first the message stays in the outbox, and the
// error is CodeUnavailable or the context's.
func (c *Client) Wait(ctx context.Context, id MessageID) (Outgoing, error) {
	reply := make(chan Outgoing, 1)
	if err := c.do(ctx, func(o *owner) { o.wait(id, reply) }); err != nil {
		return Outgoing{}, err
	}
	defer func() { _ = c.do(context.WithoutCancel(ctx), func(o *owner) { o.unwait(id, reply) }) }()
	select {
	case out, ok := <-reply:
		switch {
		case !ok:
			return Outgoing{}, c.ended()
		case out.State == Failed:
			return out, errs.New(out.Code, "%s", out.Reason)
		}
		return out, nil
	case <-ctx.Done():
		return Outgoing{}, c.gaveUp(ctx)
	case <-c.done:
		return Outgoing{}, errClosed
	}
}

// ended is why the client settles no more messages.
func (c *Client) ended() error {
	if link := c.Link(); link.State == LoggedOut || link.State == Stopped {
		return link.Cause
	}
	return store.ErrNotFound
}

// Unsent returns the messages that are queued or failed, in the order typed.
func (c *Client) Unsent(ctx context.Context) ([]Outgoing, error) { return c.opt.Store.Unsent(ctx) }

// Discard removes a failed message from the outbox.
func (c *Client) Discard(ctx context.Context, id MessageID) error {
	return c.opt.Store.Discard(ctx, id)
}

// Chats returns the conversations that the store knows, also without a
// connection.
func (c *Client) Chats(ctx context.Context) ([]Cached, error) { return c.opt.Store.Conversations(ctx) }

// Contact returns the direct conversation with a person from the store, a
// provisional one where there is none. It does not ask a server.
func (c *Client) Contact(ctx context.Context, name string) (Cached, error) {
	display, _, err := text.FindName(name)
	if err != nil {
		return Cached{}, err
	}
	return c.opt.Store.Contact(ctx, display)
}

// OpenDirect returns the conversation with a person, which the server creates if
// needed. CodeNotFound: nobody has that name.
func (c *Client) OpenDirect(ctx context.Context, name string) (Conversation, error) {
	display, key, err := text.FindName(name)
	if err != nil {
		return Conversation{}, err
	}
	f, err := c.request(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_OpenDirect{
		OpenDirect: &chatv1.OpenDirect{PeerName: display},
	}}, func(o *owner, f *chatv1.ServerFrame) error {
		conv, err := asConversation(f.GetConversation())
		if err != nil {
			return err
		}
		return o.opened(key, conv)
	})
	if err != nil {
		return Conversation{}, err
	}
	return asConversation(f.GetConversation())
}

// Conversations asks the server for all conversations of the user, by id.
func (c *Client) Conversations(ctx context.Context) ([]Conversation, error) {
	var out []Conversation
	for after := uint64(0); ; {
		f, err := c.request(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_ListConversations{
			ListConversations: &chatv1.ListConversations{AfterId: after, Limit: listPage},
		}}, nil)
		if err != nil {
			return nil, err
		}
		page, more, err := asList(f.GetConversationList(), after)
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
		if !more {
			return out, nil
		}
		after = page[len(page)-1].ID
	}
}

// History asks the server for a part of a log. It waits for a connection.
func (c *Client) History(ctx context.Context, conversation uint64, part Range) (Page, error) {
	return c.history(ctx, conversation, part, func(*owner, Page) {})
}

// history asks for a page, which the owner takes.
func (c *Client) history(
	ctx context.Context, conversation uint64, part Range, take func(*owner, Page),
) (Page, error) {
	f, err := c.request(ctx, &chatv1.ClientFrame{Body: &chatv1.ClientFrame_History{History: &chatv1.History{
		ConversationId: conversation, After: part.After, Before: part.Before, Limit: uint32(max(part.Limit, 0)),
	}}}, func(o *owner, f *chatv1.ServerFrame) error {
		page, err := asPage(f.GetHistoryPage(), conversation)
		if err == nil {
			take(o, page)
		}
		return err
	})
	if err != nil {
		return Page{}, err
	}
	return asPage(f.GetHistoryPage(), conversation)
}

// Messages returns the last limit messages below before (0: the newest), from
// the store where it has them, else from the server; what came from there is
// stored. If the server does not answer before ctx ends, it returns what the store
// has together with the error.
func (c *Client) Messages(ctx context.Context, conversation, before uint64, limit int) ([]Message, error) {
	have, err := c.opt.Store.Messages(ctx, conversation, before, limit)
	if err != nil || store.Provisional(conversation) {
		return nil, err
	}
	if n := len(have); n > 0 && (before == 0 || have[n-1].Seq+1 == before) && (n == limit || have[0].Seq == 1) {
		return have, nil
	}
	if n := len(have); n > 0 && before != 0 && have[n-1].Seq+1 != before {
		have = nil // the store ends below before; there is a gap between them
	}
	// Without a stored part this asks for the end of the log.
	end := before
	if end == 0 {
		end = store.MaxID
	}
	if n := len(have); n > 0 {
		end, limit = have[0].Seq, limit-n
	}
	page, err := c.history(ctx, conversation, Range{Before: end, Limit: limit}, func(o *owner, page Page) {
		o.keep(page.Messages)
	})
	if err != nil {
		return have, err
	}
	return append(page.Messages, have...), nil
}
